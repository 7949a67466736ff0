"""group_weight_operations: run chains of weight operations as one pass over the tensors.

Example: ``linear-merge`` of a ``cast`` and a ``ties-merge`` reads their inputs, and writes one
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from recipelang.ir.graph import Node
from recipelang.passes.state import GraphState, Region, users_of
from recipelang.types import is_partial

__all__ = ["GroupWeightOperations"]


@dataclass(frozen=True, slots=True)
class GroupWeightOperations:
    """Put a weight operation into the region of its users, where all of them are weight operations
    and its result is no target; its result then exists a block at a time only.

    A model or adapter that a decomposition gives is always written: its last bits are a machine's,
    so its key does not say what it is, and it takes too long to be made again for every look at it.

    Law: every operation rounds to its dtype as before, so a region has the bits of its steps run
    one by one. A region never waits for a step, or another region, that waits for it.
    """

    name: str = "group_weight_operations"
    exactness: str = "exact"

    def apply(self, state: GraphState) -> GraphState:
        """Find the regions, users before operands."""
        order = state.nodes()
        users = users_of(state.roots)
        weights = {n for n in order if getattr(state.lookup(n.op), "kind", "") == "weights"}
        written = {n for n in weights if _determinism(state, n) != "exact"}
        written = {n for n in written if not is_partial(n.type)}
        member: dict[Node, set[Node]] = {}
        inner: set[Node] = set()
        for node in reversed(order):
            if node not in weights:
                continue
            taking = users[node]
            joined = {node}.union(*(member[u] for u in taking if u in weights))
            hidden = bool(taking) and node not in state.targets and node not in state.roots
            hidden = hidden and node not in written
            if hidden and weights.issuperset(taking) and _is_convex(joined, users, member):
                inner.add(node)
            else:
                joined = {node}
            for one in joined:
                member[one] = joined
        regions = tuple(
            Region(nodes, tuple(n for n in nodes if n not in inner))
            for nodes in _groups(order, member)
        )
        texts = [_text(state, region) for region in regions if len(region.nodes) > 1]
        return replace(state, regions=regions).note(self.name, *texts)


def _determinism(state: GraphState, node: Node) -> str:
    operation = state.lookup(node.op)
    return operation.determinism if operation else "exact"


def _is_convex(
    group: set[Node], users: Mapping[Node, list[Node]], member: Mapping[Node, set[Node]]
) -> bool:
    """Whether no path leaves the group and comes back into it. A path that comes to one step of
    another group goes on from all of them, since they run together."""
    stack = [user for node in group for user in users[node] if user not in group]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        together = member.get(node, {node})
        seen |= together
        for user in (user for one in together for user in users[one]):
            if user in group:
                return False
            stack.append(user)
    return True


def _groups(order: tuple[Node, ...], member: Mapping[Node, set[Node]]) -> list[tuple[Node, ...]]:
    """The groups, each in run order, in the order of their last nodes."""
    last = {id(member[n]): n for n in order if n in member}
    return [tuple(n for n in order if n in member[end]) for end in last.values()]


def _text(state: GraphState, region: Region) -> str:
    names = [f"`{state.place(n) or n.op}`" for n in region.nodes]
    outputs = [f"`{state.place(n) or n.op}`" for n in region.outputs]
    hidden = len(region.nodes) - len(region.outputs)
    return (
        f"{', '.join(names)} are one pass over the tensors; {hidden} of {len(names)} results "
        f"are never written, {', '.join(outputs)} {'is' if len(outputs) == 1 else 'are'}"
    )
