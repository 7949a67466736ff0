"""What a method asks of the models of a slice: the base among them, how many, equally many layers.

These are the rules by which mergekit refuses a configuration, before it reads any weights.
"""

from __future__ import annotations

from typing import Final

from recipelang.convert.mergekit.configuration import Slice
from recipelang.convert.mergekit.methods import Method
from recipelang.convert.mergekit.references import Reference
from recipelang.diagnostics import Label, Sink

__all__ = ["check_slice"]

NAME_FIRST: Final = "write `base_model:` with one of the two, which the result starts from"


def check_slice(method: Method, one: Slice, base: Reference | None, sink: Sink) -> None:
    """Report E0745 for models that the method does not take together."""
    _check_distinct(one, sink)
    _check_lengths(one, sink)
    base = one.base or base
    models = [each.model for each in one.inputs]
    if method.base == "required" and base is None:
        help = "write `base_model:` with the model that the others were trained from"
        help = NAME_FIRST if method.pair else help
        sink.error("E0745", f"`{method.name}` needs a `base_model`", one.span, help=help)
        return
    used = base if method.base != "ignored" else None
    if used is not None and used not in models:
        message = f"the base `{used}` is not among the sources of this slice"
        help = "add it, with the same number of layers"
        help = NAME_FIRST if method.pair else help
        sink.error("E0745", message, one.span, help=help)
        return
    count = len(models) - (used is not None)
    if count < method.fewest or (method.most is not None and count > method.most):
        sink.error(
            "E0745",
            f"`{method.name}` takes {_wanted(method)}, found {count}",
            one.span,
            help=NAME_FIRST if method.pair and count > method.fewest else "",
            notes=_added(one, base),
        )


def _check_distinct(one: Slice, sink: Sink) -> None:
    first: dict[Reference, Label] = {}
    for each in one.inputs:
        if each.model in first:
            message = f"`{each.model}` is merged with itself"
            help = "remove it"
            sink.error("E0745", message, each.span, secondary=(first[each.model],), help=help)
        first.setdefault(each.model, Label(each.span, "first here"))


def _check_lengths(one: Slice, sink: Sink) -> None:
    counts = [(each, each.layers[1] - each.layers[0]) for each in one.inputs if each.layers]
    for each, count in counts[1:]:
        if count != counts[0][1]:
            message = f"the sources of a slice have equally many layers, found {count} here"
            label = Label(counts[0][0].span, f"{counts[0][1]} layers")
            sink.error("E0745", message, each.span, secondary=(label,))


def _wanted(method: Method) -> str:
    """How many models a method takes, as a phrase."""
    besides = " besides its base" if method.base == "required" else ""
    if method.most == method.fewest:
        number = "one model" if method.fewest == 1 else "two models"
        return number + besides
    return f"{method.fewest} models or more{besides}"


def _added(one: Slice, base: Reference | None) -> tuple[str, ...]:
    """Say that mergekit made the base an input, where it did."""
    added = base is not None and any(e.model == base and e.span is one.span for e in one.inputs)
    return ("mergekit adds `base_model` to the models where it is not among them",) if added else ()
