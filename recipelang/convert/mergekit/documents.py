"""Documents of mergekit-multi in an order in which each comes after those that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recipelang.convert.mergekit.configuration import Configuration
from recipelang.diagnostics import Label, Sink

__all__ = ["ordered"]


def ordered(configurations: Sequence[Configuration], sink: Sink) -> list[Configuration] | None:
    """The documents, those that others use first and the result last: the one without a name, else
    the last one. None and E0745 for names that stand twice and documents made from each other."""
    by_name: dict[str, Configuration] = {}
    for one in configurations:
        if one.name in by_name:
            what = f"two documents are named `{one.name}`" if one.name else "two have no `name`"
            label = Label(by_name[one.name].span, "first here")
            sink.error("E0745", what, one.span, secondary=(label,))
            return None
        by_name[one.name] = one
    last = by_name.get("", configurations[-1])
    done: list[Configuration] = []
    for one in (*(c for c in configurations if c is not last), last):
        if not _visit(one, by_name, done, [], sink):
            return None
    return [*(one for one in done if one is not last), last]


def _visit(
    one: Configuration, by_name: Mapping[str, Configuration], done: list[Configuration],
    within: list[Configuration], sink: Sink,
) -> bool:  # fmt: skip
    """Add a document behind those that it uses; False for one that is made from itself."""
    if one in within:
        sink.error("E0745", f"`{one.name}` is made from itself", one.span)
        return False
    if one in done:
        return True
    used = [by_name[r.model.path] for r in one.references() if r.model.path in by_name]
    if not all(_visit(other, by_name, done, [*within, one], sink) for other in used):
        return False
    done.append(one)
    return True
