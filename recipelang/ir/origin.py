"""Where models come from: every model has one origin edge, so lineage is a forest.

A fine-tune's origin is the model that it started from, a merge's its base; an operation that
declares no origin starts a new one. Layers of a model come from the same layers of its origin. See
the language reference, section 4, "Origin".

Example:
    ``common_origin((finetune base on a, finetune base on b))`` is ``base``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

from recipelang.ir.graph import Node
from recipelang.ops.registry import lookup
from recipelang.types import LayersType, ModelType

__all__ = ["LAYERS", "Origin", "Range", "ancestors", "common_origin", "is_open", "itself"]

LAYERS = "layers"
"""The operation that takes a range of layers: ``m.layers(8, 24)``."""


@dataclass(frozen=True, slots=True)
class Range:
    """The layers ``[start, stop)`` of a model, whether or not the recipe takes them anywhere."""

    model: Node
    start: int
    stop: int


Origin: TypeAlias = "Node | Range"
_known: WeakKeyDictionary[Node, Origin | None] = WeakKeyDictionary()


def ancestors(node: Node) -> tuple[Origin, ...]:
    """The model (or the layers), its origin, the origin of that, and so on."""
    found = [itself(node)]
    while (origin := _origin_of(found[-1])) is not None:
        found.append(origin)
    return tuple(found)


def common_origin(nodes: Sequence[Node]) -> Origin | None:
    """The nearest model that all of these come from (or are), None when there is none."""
    if not nodes:
        return None
    shared = set(ancestors(nodes[0])).intersection(*(ancestors(node) for node in nodes[1:]))
    return next((found for found in ancestors(nodes[0]) if found in shared), None)


def is_open(node: Node) -> bool:
    """Whether the lineage ends in a parameter of a template, so that the true origin is unknown."""
    last = ancestors(node)[-1]
    return (last.model if isinstance(last, Range) else last).op == "parameter"


def itself(node: Node) -> Origin:
    """The node, or the range that it takes."""
    if node.op != LAYERS:
        return node
    (model,), start, stop = node.inputs, node.attr("start"), node.attr("stop")
    assert isinstance(start, int)
    assert isinstance(stop, int)
    return Range(model, start, stop)


def _origin_of(one: Origin) -> Origin | None:
    """What this comes from, or None where a new origin starts."""
    if isinstance(one, Range):
        origin = _origin_of(one.model)
        return Range(origin, one.start, one.stop) if isinstance(origin, Node) else None
    if one not in _known:
        _known[one] = _declared(one)
    return _known[one]


def _declared(node: Node) -> Origin | None:
    """The origin by the operation's declaration."""
    operation = lookup(node.op) if node.op != "parameter" else None
    for role in operation.origin.split(" or ") if operation is not None else ():
        if role == "common":
            kinds = ModelType | LayersType
            found = common_origin(tuple(n for n in node.inputs if isinstance(n.type, kinds)))
        else:
            origin = node.one(role) if role else None
            found = None if origin is None else itself(origin)
        if found is not None:
            return found
    return None
