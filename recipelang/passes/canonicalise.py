"""canonicalise: put inputs into one order, and leave out those that carry no weight.

Example: ``merge(a, c, b)`` becomes ``merge(a, b, c)``, so that both ways to write it are one step.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipelang.ir.graph import Node
from recipelang.lineage.keys import input_order, input_role
from recipelang.ops.spec import Operation
from recipelang.passes.state import GraphState, rewrite
from recipelang.values import Attr

__all__ = ["Canonicalise"]


@dataclass(frozen=True, slots=True)
class Canonicalise:
    """Sort the inputs of ``permutation_invariant`` operations by step id, their own parameters with
    them; drop the inputs of ``ignores_zero_weight`` operations whose weight is 0.

    Law: ``f(x, a, b) = f(x, b, a)``, and ``f(x, a: 0) = f(x)``. The first input stays first and
    stays: the result takes its dtype, configuration and files. Sorting reassociates the sums of
    three and more inputs: at most one rounding of the accumulator a term; two inputs and zero
    weights are exact.
    """

    name: str = "canonicalise"
    exactness: str = "reassociates"

    def apply(self, state: GraphState) -> GraphState:
        """Rewrite every operation that declares the laws."""
        texts: list[str] = []

        def rule(before: Node, built: Node) -> Node | None:
            operation = state.lookup(before.op)
            role = input_role(operation)
            if operation is None or not built.role(role):
                return None
            kept = _weighted(built, operation, role)
            ids = [state.step_id(node) for node in before.role(role)]
            order = input_order(built, operation, ids)
            taken = tuple(i for i in order if i in kept)
            if taken == tuple(range(len(ids))):
                return None
            place = state.place(before) or before.op
            names = [state.place(n) or n.op for n in before.role(role)]
            dropped = [names[i] for i in range(len(ids)) if i not in kept]
            if dropped:
                texts.append(f"`{place}` does not read {_list(dropped)}: weight 0")
            if tuple(sorted(taken)) != taken:
                texts.append(f"`{place}` takes {_list([names[i] for i in taken])} in this order")
            return _taking(state, built, operation, role, taken)

        return rewrite(state, rule).note(self.name, *texts)


def _weighted(node: Node, operation: Operation, role: str) -> frozenset[int]:
    """The indices of the inputs that count: the first, and those whose weight is not the number
    0."""
    weights = node.attr("weight")
    everything = frozenset(range(len(node.role(role))))
    if "ignores_zero_weight" not in operation.laws or not isinstance(weights, tuple):
        return everything
    zero = {i for i, w in enumerate(weights) if isinstance(w, (int, float)) and w == 0}
    return everything - (zero - {0})


def _taking(
    state: GraphState, node: Node, operation: Operation, role: str, order: tuple[int, ...]
) -> Node:
    """The node with its inputs, and what belongs to each, in this order."""
    count = len(node.role(role))

    def moved(name: str, value: Attr) -> Attr:
        spec = operation.field(name)
        if spec is None or not spec.per_input or not isinstance(value, tuple):
            return value
        return tuple(value[i] for i in order) if len(value) == count else value

    operands = {r: [ns[i] for i in order] if r == role else list(ns) for r, ns in node.operands}
    attrs = {name: moved(name, value) for name, value in node.attrs}
    hints = dict(node.hints)
    return state.graph.node(node.op, node.version, operands, attrs, hints, node.type)


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
