"""Values of a recipe's fields as mergekit's settings: numbers, lists over depth, filters.

Where a gradient gives tensors behind the layers its last value, mergekit would give them the first,
so they get filters of their own. A pattern becomes a part of a name that holds in the same tensors.

Example:
    >>> ramp = Form("gradient", (("0", 0.0), ("1", 1.0)))
    >>> setting(ramp, Known(("model.layers.0.mlp.weight", "lm_head.weight")))
    [{'filter': 'lm_head.weight', 'value': 1}, {'value': [0, 1]}]
    >>> setting(Form("per", (("*mlp*", ramp), ("*", 0.5))), Known())
    [{'filter': 'mlp', 'value': [0, 1]}, {'value': 0.5}]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from recipelang.convert.mergekit.varying import LAYERED, OUTSIDE
from recipelang.values import Attr, Form, Quantity
from recipelang.weights.layers import layer_of
from recipelang.weights.varying import matches, resolve

__all__ = ["Inexpressible", "Known", "Setting", "setting"]

Setting: TypeAlias = Any
"""A number, a truth value, a list of numbers, or a list of mappings, for the YAML writer."""
BEHIND: Final = tuple(name for name in OUTSIDE if "embed" not in name)


class Inexpressible(Exception):
    """What mergekit cannot say; ``help`` is what the recipe would have to say instead."""

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.message, self.help = message, help


@dataclass(frozen=True, slots=True)
class Known:
    """The model's tensors (empty: not known), whether those behind the layers matter, and whether
    a gradient over the layers is one for mergekit too: it has none over a single layer, nor over
    several slices."""

    names: tuple[str, ...] = ()
    last: bool = True
    gradients: bool = True


def setting(value: Attr, known: Known, default: Attr = None) -> Setting:
    """The setting. ``default`` is the field's own, for tensors that no pattern names. Raises
    Inexpressible."""
    if not isinstance(value, Form):
        return _plain(value)
    rows = value.args if value.name == "per" else (("*", value),)
    if all(pattern != "*" for pattern, _ in rows):
        if default is None:
            raise Inexpressible(
                "no pattern gives a value to the rest of the tensors",
                'end it with a row for them: `"*" = ...`',
            )
        rows = (*rows, ("*", default))
    entries: list[dict[str, Setting]] = []
    for place, (pattern, inner) in enumerate(rows):
        following = rows[place + 1] if place + 1 < len(rows) else None
        if known.gradients and _is_pair(pattern, inner, following):
            continue
        earlier = [other for other, _ in rows[:place]]
        if place and known.gradients and _is_pair(*rows[place - 1], (pattern, inner)):
            inner = rows[place - 1][1]
            entries.append(_entry(pattern, _points(inner), known))
        else:
            entries += _entries(pattern, inner, earlier, known)
    if len(entries) == 1 and "filter" not in entries[0]:
        return entries[0]["value"]
    return entries


def _is_pair(pattern: str, value: Attr, following: tuple[str, Attr] | None) -> bool:
    """Whether a row and the next are a gradient and its first value for the rest of the tensors,
    which mergekit means by the gradient alone."""
    if not isinstance(value, Form) or following is None or not pattern.startswith(LAYERED):
        return False
    rest = pattern.removeprefix(LAYERED)
    wide = f"*{rest}" if rest else "*"
    return following[0] == wide and following[1] == _values(value)[0]


def _entries(
    pattern: str, value: Attr, earlier: list[str], known: Known
) -> list[dict[str, Setting]]:
    if not isinstance(value, Form):
        return [_entry(pattern, _plain(value), known)]
    if not known.gradients:
        raise Inexpressible("mergekit's gradients run over the layers of one slice")
    first, *_, last = _values(value)
    behind = [] if first == last or not known.last else _behind(pattern, value, earlier, known)
    own = [{"filter": name, "value": _number(last)} for name in behind]
    return [*own, _entry(pattern, _points(value), known)]


def _behind(pattern: str, value: Form, earlier: Iterable[str], known: Known) -> list[str]:
    """The tensors that the gradient gives its last value and mergekit would give its first."""
    taken = list(earlier)
    names = known.names or BEHIND
    found = [
        name for name in names
        if layer_of(name) is None and matches(pattern, name)
        and not any(matches(other, name) for other in taken)
        and resolve(value, name, stacks={}, default=None) != _values(value)[0]
    ]  # fmt: skip
    if found and not known.names:
        raise Inexpressible(
            "which tensors stand behind the layers is not known here",
            f'fetch the models\' metadata, or write `"{LAYERED}" = gradient(...), "*" = ...`',
        )
    return found


def _entry(pattern: str, value: Setting, known: Known) -> dict[str, Setting]:
    if pattern == "*":
        return {"value": value}
    return {"filter": _filter(pattern, known.names), "value": value}


def _filter(pattern: str, names: tuple[str, ...]) -> str:
    """A part of a name that holds in just the tensors that the pattern matches."""
    inner = pattern.strip("*")
    if pattern == f"*{inner}*" and "*" not in inner:
        return inner
    pieces = [piece for piece in pattern.split("*") if piece]
    candidates = [inner, f".{inner}.", f"{inner}.", f".{inner}"]
    candidates = candidates if "*" not in pattern else sorted(pieces, key=len, reverse=True)
    wanted = {name for name in names if matches(pattern, name)}
    for candidate in candidates:
        if wanted and {name for name in names if candidate in name} == wanted:
            return candidate
    raise Inexpressible(
        f"the pattern `{pattern}` is no part of a name that mergekit could look for",
        "" if names else f'fetch the models\' metadata, or write `"*{inner}*"`',
    )


def _values(form: Form) -> list[Attr]:
    return [value for _, value in form.args]


def _points(value: Attr) -> list[Setting]:
    assert isinstance(value, Form)
    return [_number(point) for point in _values(value)]


def _plain(value: Attr) -> Setting:
    return value if isinstance(value, bool | str) else _number(value)


def _number(value: Attr) -> int | float:
    """A whole number without a point, as people write it."""
    number = value.value if isinstance(value, Quantity) else value
    assert isinstance(number, int | float)
    return int(number) if float(number).is_integer() and abs(number) < 1e15 else float(number)
