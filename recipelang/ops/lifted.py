"""Merges of layers: what merges models merges the same layers of models, and gives layers.

Every operation that makes one model of several, tensor by tensor, is lifted in this one place: the
layers are taken for the models that have just these, its own type rule says what comes out, and
that is layers again.

Example: ``ties-merge a.layers(0, 8) with b.layers(0, 8) from base.layers(0, 8)`` is 8 layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from recipelang.ops.spec import Fault, Operation, Typed
from recipelang.types import LayersType, ModelType, Type

__all__ = ["result_of"]


def result_of(operation: Operation, typed: Typed) -> Type:
    """What the operation's type rule says of these operands; of layers, layers.

    Raises what the rule raises; Fault E0631 where models and layers meet, E0632 for layers that are
    not equally many.
    """
    assert operation.result_type is not None, operation.verb
    found = list(_models(operation, typed))
    if not operation.takes_layers or not any(isinstance(t, LayersType) for _, _, t in found):
        return operation.result_type(typed)
    count = _common_count(found)
    types = {role: tuple(_model(t) for t in given) for role, given in typed.types.items()}
    made = operation.result_type(replace(typed, types=types))
    assert isinstance(made, ModelType), operation.verb
    return LayersType(made, count)


def _models(operation: Operation, typed: Typed) -> Iterator[tuple[str, str, Type]]:
    """The operands that are models or layers: role, name, type."""
    for operand in operation.operands:
        names = typed.places.get(operand.name, ())
        for index, type_ in enumerate(typed.types.get(operand.name, ())):
            if isinstance(type_, ModelType | LayersType):
                name = names[index] if index < len(names) else operand.name
                yield f"{operand.name}[{index}]", name, type_


def _model(type_: Type | None) -> Type | None:
    return type_.of if isinstance(type_, LayersType) else type_


def _common_count(found: list[tuple[str, str, Type]]) -> int | None:
    """How many layers all have, None where that is not known of any."""
    first: tuple[str, int] | None = None
    layers, some = next((name, t.count) for _, name, t in found if isinstance(t, LayersType))
    for at, name, type_ in found:
        if not isinstance(type_, LayersType):
            raise Fault(
                "E0631",
                f"`{name}` is a Model, and `{layers}` is layers of one",
                at=at,
                label="a whole model",
                help=f"merge layers with layers, such as `{name}.layers(0, {some or 8})`",
            )
        if type_.count is None:
            continue
        if first is not None and type_.count != first[1]:
            raise Fault(
                "E0632",
                f"`{first[0]}` has {_layers(first[1])}, `{name}` has {_layers(type_.count)}",
                at=at,
                label=_layers(type_.count),
                help="the layers of a merge are merged one by one: take equally many of each",
            )
        first = first or (name, type_.count)
    return None if first is None else first[1]


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
