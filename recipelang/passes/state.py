"""What the passes work on: the graph as it stands, and what each node of it stands for.

The *lowered* graph is what the recipe says; step ids, draws, places and spans belong to its nodes.
A pass makes new nodes; ``current`` says which node computes a lowered one now, ``stands_for`` the
way back. So no pass can change a step id or a random draw.

Example: ``state = start(program, roots, ids)``, then ``run_passes(state)`` of
:mod:`recipelang.passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from recipelang.ir.graph import Graph, Node, walk
from recipelang.lineage.keys import Lookup, draws_of
from recipelang.ops import registry
from recipelang.program import GateRoot, Program, nodes_of

__all__ = ["Change", "GraphState", "Region", "TokenSet", "rewrite", "start", "users_of"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing a pass did: ``text`` reads after the pass's name in ``recipe plan --passes``."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Weight operations that run as one streaming pass over the tensors.

    ``nodes`` are in run order; ``outputs`` are those whose result is stored; the others exist a
    block at a time only.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TokenSet:
    """A dataset in the tokens of one tokenizer, made once for all its users.

    ``key`` (64 hex digits) covers the dataset, the tokenizer, the window and what decides the
    tokens of a row; ``length`` is in tokens, None where it is not known before the run.
    """

    key: str
    dataset: Node
    tokenizer: str
    length: int | None
    users: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class GraphState:
    """A program between two passes.

    ``targets`` are what the run must give, ``roots`` what is scheduled (more than the targets until
    ``drop_dead`` ran); both are current nodes, in order. ``ids`` maps lowered nodes to step ids.
    """

    program: Program
    graph: Graph
    targets: tuple[Node, ...]
    roots: tuple[Node, ...]
    current: Mapping[Node, Node]
    stands_for: Mapping[Node, Node]
    ids: Mapping[Node, str]
    gates: tuple[GateRoot, ...] = ()
    regions: tuple[Region, ...] = ()
    token_sets: tuple[TokenSet, ...] = ()
    changes: tuple[Change, ...] = ()
    lookup: Lookup = field(default=registry.lookup)

    def nodes(self) -> tuple[Node, ...]:
        """The scheduled nodes, operands first."""
        return tuple(walk(self.roots))

    def step_id(self, node: Node) -> str:
        """The step id of the lowered step that a current node stands for."""
        return self.ids[self.stands_for[node]]

    def draws(self, node: Node) -> str | None:
        """The draw key of a current node, None where it draws nothing."""
        return draws_of(self.stands_for[node], self.ids, lookup=self.lookup)

    def place(self, node: Node) -> str:
        """The name the recipe has for a current node; empty where it has none."""
        places = self.program.places
        found = places.get(self.stands_for[node])
        if found is not None:
            return found
        return next(
            (places[n] for n, now in self.current.items() if now is node and n in places), ""
        )

    def note(self, name: str, *texts: str) -> GraphState:
        """The state with changes added under a pass's name."""
        return replace(self, changes=(*self.changes, *(Change(name, text) for text in texts)))


def start(
    program: Program, targets: Sequence[Node], ids: Mapping[Node, str], *,
    everything: bool = False, gates: tuple[GateRoot, ...] = (), lookup: Lookup = registry.lookup,
) -> GraphState:  # fmt: skip
    """The lowered program. With ``everything``, the bindings that no target needs are scheduled
    too."""
    bound = (
        [n for value in program.bindings.values() for n in nodes_of(value)] if everything else []
    )
    roots = tuple(dict.fromkeys([*targets, *bound]))
    same = {node: node for node in walk(roots)}
    return GraphState(
        program, program.graph, tuple(dict.fromkeys(targets)), roots, same, dict(same), ids,
        gates=gates, lookup=lookup,
    )  # fmt: skip


def users_of(roots: Sequence[Node]) -> dict[Node, list[Node]]:
    """For each node below the roots the nodes that take it, once each, in walk order."""
    users: dict[Node, list[Node]] = {}
    for node in walk(roots):
        users.setdefault(node, [])
        for operand in dict.fromkeys(node.inputs):
            users[operand].append(node)
    return users


Rule = Callable[[Node, Node], Node | None]
"""``rule(before, built)``: a node as it was, and over its rewritten operands; what it becomes, or
None to leave ``built``."""


def rewrite(state: GraphState, rule: Rule) -> GraphState:
    """Apply a rule to every scheduled node, operands first, and keep what each node stands for.

    A rule must not give a step that draws another draw key than the one it stands for; where two
    draws would fall together, the node stays as it was.
    """
    new: dict[Node, Node] = {}
    stands: dict[Node, Node] = {}
    for node in walk(state.roots):
        origin = state.stands_for[node]
        built = rebuilt(state.graph, node, new)
        made = rule(node, built) or built
        if made in stands and _draws_differ(state, stands[made], origin):
            made = node
        new[node] = made
        stands.setdefault(made, origin)
    for made in walk(new[root] for root in state.roots):
        stands.setdefault(made, state.stands_for.get(made, made))
    return replace(
        state,
        targets=tuple(dict.fromkeys(new[n] for n in state.targets)),
        roots=tuple(dict.fromkeys(new[n] for n in state.roots)),
        current={low: new.get(now, now) for low, now in state.current.items()},
        stands_for=stands,
    )


def _draws_differ(state: GraphState, one: Node, other: Node) -> bool:
    """Whether the second draws, and not what the first draws."""
    if one is other:
        return False
    first, second = (draws_of(n, state.ids, lookup=state.lookup) for n in (one, other))
    return second is not None and first != second


def rebuilt(graph: Graph, node: Node, new: Mapping[Node, Node]) -> Node:
    """The node over the new operands; the same object where none changed."""
    if all(new[n] is n for n in node.inputs):
        return node
    operands = {role: [new[n] for n in nodes] for role, nodes in node.operands}
    return graph.node(
        node.op, node.version, operands, dict(node.attrs), dict(node.hints), node.type
    )
