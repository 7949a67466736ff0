"""A checked program: what :func:`recipelang.check` gives and what is planned and run.

It holds the graph's roots, the names the recipe gave to steps, and the places they were written at.
Nothing here was computed; metadata (headers, configurations, first rows) was read where it was at
hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from recipelang.diagnostics import Source, Span
from recipelang.ir.graph import Graph, Node
from recipelang.types import Type
from recipelang.values import Attr

__all__ = [
    "Arithmetic",
    "Budget",
    "GateRoot",
    "ListValue",
    "MeasuredExpr",
    "Program",
    "PublishRoot",
    "Value",
]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``left op right`` over measured and plain numbers; op one of ``+ - * /``."""

    op: str
    left: MeasuredExpr
    right: MeasuredExpr


MeasuredExpr: TypeAlias = "Node | int | float | Arithmetic"
"""A number that a run knows: a metric's node, a plain number, or arithmetic over them."""


@dataclass(frozen=True, slots=True)
class ListValue:
    """A list of values. ``item`` is the common type, None for an empty list."""

    items: tuple[Value, ...]
    item: Type | None = None


Value: TypeAlias = "Node | Attr | ListValue | MeasuredExpr"
"""What a name is bound to: a step, a constant, a list of them, or an expression over measures."""


@dataclass(frozen=True, slots=True)
class GateRoot:
    """``require`` (a failure stops the run with exit code 3) or ``expect`` (reports only).

    ``text`` is the gate as written, on one line.
    """

    hard: bool
    left: MeasuredExpr
    op: str
    right: MeasuredExpr
    message: str
    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class PublishRoot:
    """``publish what to "uri"``, as written; ``folder`` is the directory it is relative to."""

    what: Node
    uri: str
    folder: str
    overwrite: bool
    token: str | None
    span: Span


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a run. ``wall`` in seconds, ``memory`` and ``disk`` in bytes; None is no limit."""

    wall: float | None = None
    memory: int | None = None
    disk: int | None = None
    device: tuple[int, str] | None = None
    variants: int = 1000
    spans: Mapping[str, Span] = field(default_factory=dict[str, Span])


@dataclass(frozen=True, eq=False)
class Program:
    """A whole recipe, checked and lowered.

    ``bindings`` keeps the file's order. ``places`` names every node that a binding, a chain
    position (``student.1``), a list element (``teachers[2]``) or a template (``teachers[2]/tuned``)
    stands for; the first name wins. ``evaluations`` are the nodes of ``evaluate`` bindings.
    ``params`` are the values of ``param`` statements, ``overridden`` the names that ``--set``
    changed. ``used`` are the files of ``use``. ``inferred`` has the base that was found by origin,
    for each step that uses one.
    """

    source: Source
    graph: Graph
    bindings: Mapping[str, Value]
    places: Mapping[Node, str]
    spans: Mapping[Node, Span]
    gates: tuple[GateRoot, ...]
    publishes: tuple[PublishRoot, ...]
    evaluations: tuple[Node, ...]
    budget: Budget
    seed: int
    params: Mapping[str, Attr]
    overridden: frozenset[str] = frozenset()
    used: tuple[Source, ...] = ()
    inferred: Mapping[Node, Node] = field(default_factory=dict[Node, Node])

    def roots(self, targets: tuple[str, ...] = ()) -> tuple[Node, ...]:
        """The nodes that a run of these targets builds; without targets, all that the file asks
        for.

        Without targets: evaluations, gates' measures and published values; where there are none,
        the bindings that no other binding uses.
        """
        if targets:
            return tuple(n for name in targets for n in nodes_of(self.bindings[name]))
        found = [*self.evaluations]
        for gate in self.gates:
            found += [*nodes_of(gate.left), *nodes_of(gate.right)]
        found += [publish.what for publish in self.publishes]
        if not found:
            bound = [n for value in self.bindings.values() for n in nodes_of(value)]
            used = {operand for node in _below(bound) for operand in node.inputs}
            found = [node for node in bound if node not in used]
        return tuple(dict.fromkeys(found))


def nodes_of(value: Value) -> tuple[Node, ...]:
    """The graph nodes inside a value, in order."""
    match value:
        case Node():
            return (value,)
        case ListValue():
            return tuple(node for item in value.items for node in nodes_of(item))
        case Arithmetic():
            return (*nodes_of(value.left), *nodes_of(value.right))
        case _:
            return ()


def _below(nodes: list[Node]) -> tuple[Node, ...]:
    from recipelang.ir.graph import walk

    return tuple(walk(nodes))
