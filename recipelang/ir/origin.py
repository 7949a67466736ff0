"""Where models come from: every model has one origin edge, so lineage is a forest.

A fine-tune's origin is the model that it started from, a merge's its base; an operation that
declares no origin starts a new one. See the language reference, section 4, "Origin".

Example:
    ``common_origin((finetune base on a, finetune base on b))`` is ``base``.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from recipelang.ir.graph import Node
from recipelang.ops.registry import lookup
from recipelang.types import ModelType

__all__ = ["ancestors", "common_origin", "is_open", "origin_of"]

_known: WeakKeyDictionary[Node, Node | None] = WeakKeyDictionary()


def origin_of(node: Node) -> Node | None:
    """The model that this one comes from, or None where a new origin starts."""
    if node in _known:
        return _known[node]
    operation = lookup(node.op) if node.op != "parameter" else None
    origin: Node | None = None
    for role in operation.origin.split(" or ") if operation is not None else ():
        if role == "common":
            origin = common_origin(tuple(n for n in node.inputs if isinstance(n.type, ModelType)))
        elif role:
            origin = node.one(role)
        if origin is not None:
            break
    _known[node] = origin
    return origin


def ancestors(node: Node) -> tuple[Node, ...]:
    """The model, its origin, the origin of that, and so on."""
    found = [node]
    while (origin := origin_of(found[-1])) is not None:
        found.append(origin)
    return tuple(found)


def common_origin(nodes: Sequence[Node]) -> Node | None:
    """The nearest model that all of these come from (or are), None when there is none."""
    if not nodes:
        return None
    shared = set(ancestors(nodes[0])).intersection(*(ancestors(node) for node in nodes[1:]))
    return next((node for node in ancestors(nodes[0]) if node in shared), None)


def is_open(node: Node) -> bool:
    """Whether the lineage ends in a parameter of a template, so that the true origin is unknown."""
    return ancestors(node)[-1].op == "parameter"
