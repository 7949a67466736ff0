"""Values of mergekit's parameters: numbers, gradients over depth, and lists with filters.

A setting is a list of entries, and the first whose filter is part of a tensor's name holds. Entries
of a wider scope follow those of a narrower one, up to the first without a filter.

Example:
    >>> narrow, wide = (Entry("mlp", (0, 1)),), (Entry(None, (0.5,)), Entry("norm", (2,)))
    >>> [(entry.filter, entry.points) for entry in chained([narrow, None, wide])]
    [('mlp', (0, 1)), (None, (0.5,))]
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from recipelang.convert.mergekit.methods import Parameter, Value
from recipelang.convert.yaml_tree import Item, Mapping, Scalar, Sequence
from recipelang.diagnostics import Sink, Span
from recipelang.language.suggest import did_you_mean

__all__ = ["Entry", "Setting", "chained", "number", "read_setting", "truth"]

NUMBER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|(?=\.[0-9]))(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")
TRUTHS: Final = {
    "true": True, "yes": True, "on": True, "t": True, "y": True,
    "false": False, "no": False, "off": False, "f": False, "n": False,
}  # fmt: skip
WANTED: Final = {
    "number": "a number", "fraction": "a number", "whole": "a whole number",
    "bool": "`true` or `false`",
}  # fmt: skip
CONDITION: Final = ("filter", "value")


@dataclass(frozen=True, slots=True)
class Entry:
    """A value for the tensors whose names hold ``filter`` (None: for all).

    ``points`` is one value, or several that are spread over the layers. ``span`` is None for
    mergekit's own default. With ``module`` it holds for the tensors of that module only. ``wider``:
    it is of a wider scope than entries before it.
    """

    filter: str | None
    points: tuple[Value, ...]
    span: Span | None = field(default=None, compare=False)
    module: str = ""
    wider: bool = field(default=False, compare=False)


Setting: TypeAlias = tuple[Entry, ...]


def number(text: str) -> int | float | None:
    """The number that a decimal text stands for, also where YAML takes it for a text.

    >>> number("1e-5"), number("-.5"), number("1_000"), number("010"), number(".inf")
    (1e-05, -0.5, 1000, None, None)
    """
    if not NUMBER.fullmatch(text):
        return None
    plain = text.replace("_", "")
    if re.fullmatch(r"[-+]?\d+", plain):
        return int(plain) if len(plain) < 20 else None
    value = float(plain)
    return value if abs(value) <= 1e300 else None


def truth(text: str) -> bool | None:
    """The truth value that mergekit takes a text for; its own files have ``normalize: 1.0``.

    >>> truth("yes"), truth("1.0"), truth("0"), truth("2")
    (True, True, False, None)
    """
    value = number(text)
    return bool(value) if value in (0, 1) else TRUTHS.get(text.lower())


def chained(scopes: Iterable[Setting | None]) -> Setting:
    """The entries of several scopes, the narrowest first, up to the first that takes everything;
    without those that earlier ones leave no tensor."""
    found: list[Entry] = []
    for setting in scopes:
        wider = bool(found)
        for entry in (replace(each, wider=wider) for each in setting or ()):
            if entry.filter is None:
                return (*found, entry)
            if not any(earlier.filter in entry.filter for earlier in found if earlier.filter):
                found.append(entry)
    return tuple(found)


def read_setting(parameter: Parameter, item: Item, sink: Sink) -> Setting | None:
    """The setting that is written; None and errors (E0741, E0744, E0745) where it has no
    meaning."""
    if isinstance(item, Sequence) and any(not isinstance(i, Scalar) for i in item.items):
        read = [_condition(parameter, child, sink) for child in item.items]
        entries = tuple(entry for entry in read if entry is not None)
        return entries if len(entries) == len(read) and not _unreached(entries, sink) else None
    if isinstance(item, Mapping):
        entry = _condition(parameter, item, sink)
        return (entry,) if entry else None
    points = _points(parameter, item, sink)
    return (Entry(None, points, item.span),) if points else None


def _unreached(entries: Setting, sink: Sink) -> bool:
    """Report entries behind one that takes every tensor; mergekit never looks at them."""
    end = next((i for i, entry in enumerate(entries) if entry.filter is None), len(entries))
    for entry in entries[end + 1 :]:
        message = "this entry is never reached: one before it takes every tensor"
        sink.error("E0744", message, entry.span, help="put the entry without `filter` last")
    return len(entries) > end + 1


def _condition(parameter: Parameter, item: Item, sink: Sink) -> Entry | None:
    """``{filter, value}``."""
    if not isinstance(item, Mapping):
        message = f"`{parameter.name}` mixes plain values and entries with filters"
        help = "write every entry as `- filter: ...` with `value: ...` below it"
        sink.error("E0744", message, item.span, help=help)
        return None
    for key, _ in item.entries:
        if key.text not in CONDITION:
            help = did_you_mean(key.text, CONDITION)
            sink.error("E0741", f"a filtered value has no `{key.text}`", key.span, help=help)
            return None
    value = item.get("value")
    if value is None:
        message = f"this entry of `{parameter.name}` has no `value`"
        sink.error("E0745", message, item.span)
        return None
    points = _points(parameter, value, sink)
    written = item.get("filter")
    if written is None or (isinstance(written, Scalar) and _takes_all(written)):
        return Entry(None, points, item.span) if points else None
    if not isinstance(written, Scalar) or not _fits(written, sink) or points is None:
        if not isinstance(written, Scalar):
            sink.error("E0744", "a filter is a part of a tensor's name", written.span)
        return None
    return Entry(written.text, points, item.span)


def _takes_all(filter: Scalar) -> bool:
    return filter.kind == "null" or filter.text in ("*", "")


def _fits(filter: Scalar, sink: Sink) -> bool:
    """Whether a filter can be part of a tensor's name."""
    if re.fullmatch(r"[\w.-]+", filter.text):
        return True
    plain = re.sub(r"[^\w.-]+", "", filter.text)
    message = f"the filter `{filter.text}` matches no tensor: it is a part of a name, not a pattern"
    sink.error("E0744", message, filter.span, help=f"write `{plain}`" if plain else "")
    return False


def _points(parameter: Parameter, item: Item, sink: Sink) -> tuple[Value, ...] | None:
    """One value, or those of a gradient."""
    items = item.items if isinstance(item, Sequence) else (item,)
    if not items:
        sink.error("E0744", f"`{parameter.name}` is an empty list", item.span, help="remove it")
        return None
    points: list[Value] = []
    for child in items:
        value = _value(parameter, child)
        if value is None:
            shown = f"`{child.text}`" if isinstance(child, Scalar) else "a list"
            message = f"`{parameter.name}` is {WANTED[parameter.kind]}, found {shown}"
            sink.error("E0744", message, child.span)
            return None
        if not isinstance(value, bool) and not parameter.range.holds(value):
            message = f"`{parameter.name}` lies in {parameter.range}, found `{value}`"
            sink.error("E0744", message, child.span)
            return None
        points.append(value)
    return tuple(points)


def _value(parameter: Parameter, item: Item) -> Value | None:
    if not isinstance(item, Scalar):
        return None
    if parameter.kind == "bool":
        return truth(item.text)
    found = number(item.text) if item.kind in ("int", "float", "text") else None
    if parameter.kind == "whole" and found is not None:
        return int(found) if found == int(found) else None
    return found
