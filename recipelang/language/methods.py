"""Members that are called: ``m.layers(8, 24)``, the layers of a model from 8 up to 24.

Example: the same layers of one model are one step, wherever the recipe takes them.
"""

from __future__ import annotations

from recipelang.ir.graph import Node
from recipelang.ir.origin import LAYERS
from recipelang.language import syntax
from recipelang.language.blocks import read_field
from recipelang.language.fields import Owner
from recipelang.language.report import report_fault
from recipelang.language.scope import Scope
from recipelang.language.values import POISON, Attached, Elaborated, Poison
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Fault
from recipelang.types import ModelType
from recipelang.values import Attr

__all__ = ["call_method", "has_method", "split_method"]


def split_method(callee: syntax.Value) -> tuple[syntax.Value, syntax.Name] | None:
    """What stands before the last dot of ``x.layers``, and the name behind it; None where what is
    called has no name of a method."""
    match callee:
        case syntax.Ref(parts=(*before, name)) if before and name.text == LAYERS:
            return syntax.Ref(tuple(before), before[0].span.to(before[-1].span)), name
        case syntax.Member(of=of, name=name) if name.text == LAYERS:
            return of, name
        case _:
            return None


def has_method(value: Elaborated) -> bool:
    """Whether it has layers to take: a model has."""
    inner = value.value if isinstance(value, Attached) else value
    return isinstance(inner, Node) and isinstance(inner.type, ModelType)


def call_method(
    value: Elaborated, of: syntax.Value, call: syntax.Call, scope: Scope, place: str
) -> Elaborated:
    """The step that takes layers of a model; faults are reported, and give poison.

    ``value`` is the model, ``of`` what the recipe writes for it.
    """
    if not isinstance(value, Node):
        scope.sink.error(
            "E0510",
            "parameters stand on the layers, not on their model",
            of.span,
            help="write them last: `m.layers(0, 8)(weight = 0.4)`",
        )
        return POISON
    operation = lookup(LAYERS)
    assert operation is not None
    if len(call.args) != 2 or any(arg.name for arg in call.args):
        scope.sink.error(
            "E0511",
            "`layers` takes two numbers: the first layer, and the first that stays out",
            call.span,
            help="write `m.layers(8, 24)` for the layers 8 to 23",
        )
        return POISON
    owner = Owner(LAYERS, call.callee.span)
    spans = {"model": of.span}
    fields: dict[str, Attr] = {}
    for spec, arg in zip(operation.fields, call.args, strict=True):
        found = read_field(spec, arg.value, scope, owner)
        if isinstance(found, Poison):
            return POISON
        fields[spec.name], spans[spec.name] = found, arg.value.span
    inside = place if place.endswith("/") else ""
    try:
        return scope.builder.step(operation, {"model": [value]}, fields, call.span, inside)
    except Fault as fault:
        report_fault(fault, scope.sink, call.span, spans)
        return POISON
