"""Fields that vary by layer or tensor: ``gradient(0, 0.5, 1)`` and ``per { "mlp" = 0.3, "*" = 1
}``.

Example:
    >>> ramp = Form("gradient", (("0", 0.0), ("1", 1.0)))
    >>> stacks = {"model.layers": 5}
    >>> resolve(ramp, "model.layers.2.mlp.up_proj.weight", stacks=stacks, default=None)
    0.5
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from recipelang.diagnostics import fault
from recipelang.values import Attr, Form
from recipelang.weights.layers import depth_of

__all__ = ["check_patterns", "matches", "resolve"]


def resolve(value: Attr, name: str, *, stacks: Mapping[str, int], default: Attr) -> Attr:
    """The value for the tensor ``name`` of a model with these stacks of layers, by prefix.

    A ``gradient`` is piecewise linear over depth: layer i of L stands at i / (L - 1) of its stack,
    tensors before the layers at 0, those after them at 1
    (:func:`recipelang.weights.layers.depth_of`). In ``per`` the first pattern that matches wins;
    where none does it is ``default``. A tuple (one value an input) is resolved item by item.
    """
    if isinstance(value, tuple):
        return tuple(resolve(item, name, stacks=stacks, default=default) for item in value)
    if not isinstance(value, Form):
        return value
    if value.name == "gradient":
        return _piecewise([arg for _, arg in value.args], depth_of(name, stacks))
    if value.name == "per":
        for pattern, item in value.args:
            if matches(pattern, name):
                return resolve(item, name, stacks=stacks, default=default)
        return default
    return value


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern of ``per`` names the tensor.

    >>> matches("mlp", "model.layers.0.mlp.up_proj.weight"), matches("ml", "model.layers.0.mlp.x")
    (True, False)
    >>> matches("*.norm.weight", "model.norm.weight")
    True
    """
    return _compiled(pattern).search(name) is not None


def check_patterns(value: Attr, names: Iterable[str]) -> str | None:
    """The first pattern of a ``per`` that matches none of the names, or None."""
    known = list(names)
    if isinstance(value, tuple):
        return next((bad for item in value if (bad := check_patterns(item, known))), None)
    if isinstance(value, Form) and value.name == "per":
        for pattern, item in value.args:
            if not any(matches(pattern, name) for name in known):
                return pattern
            bad = check_patterns(item, known)
            if bad:
                return bad
    return None


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A glob over the full name where there is a ``*``, else whole dotted components."""
    if "*" in pattern:
        return re.compile(r"\A" + ".*".join(re.escape(part) for part in pattern.split("*")) + r"\Z")
    return re.compile(r"(?:\A|\.)" + re.escape(pattern) + r"(?:\.|\Z)")


def _piecewise(points: list[Attr], position: float) -> float:
    values = [float(p) for p in points if isinstance(p, int | float)]
    if not values:
        raise fault("E0543", "`gradient` needs numbers")
    if len(values) == 1:
        return values[0]
    place = position * (len(values) - 1)
    left = min(int(place), len(values) - 2)
    share = place - left
    return values[left] * (1 - share) + values[left + 1] * share
