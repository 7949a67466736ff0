"""fold_constants: compute what is known before the run.

Example: ``density = gradient(0.5, 0.5)`` becomes ``density = 0.5``; the gate ``x <= 2 * 3`` is ``x
<= 6``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipelang.ir.graph import Node
from recipelang.ops.spec import Operation
from recipelang.passes.state import GraphState, rewrite
from recipelang.program import Arithmetic, MeasuredExpr
from recipelang.values import Attr, Form, show

__all__ = ["FoldConstants"]


@dataclass(frozen=True, slots=True)
class FoldConstants:
    """A gradient or table that is the same everywhere is a number; ``f(f(x))`` of an ``f`` that
    is ``idempotent`` with these fields is ``f(x)``; a ``unit_factor`` of 1 is the operand;
    arithmetic on numbers in gates is a number.

    Law: each side has the bits of the other.
    """

    name: str = "fold_constants"
    exactness: str = "exact"

    def apply(self, state: GraphState) -> GraphState:
        """Rewrite attributes, nodes and gates."""
        texts: list[str] = []

        def rule(before: Node, built: Node) -> Node | None:
            place = state.place(before) or before.op
            attrs = {name: folded(value) for name, value in built.attrs}
            for name, value in built.attrs:
                if attrs[name] != value:
                    texts.append(f"`{name}` of `{place}` is {show(attrs[name])} throughout")
            made = built
            if attrs != dict(built.attrs):
                operands = dict(built.operands)
                made = state.graph.node(
                    built.op, built.version, operands, attrs, dict(built.hints), built.type
                )
            same = _collapsed(state, made)
            if same is not None:
                texts.append(f"`{place}` is its operand: {_why(made)}")
            return same or made

        state = rewrite(state, rule)
        gates = tuple(
            replace(gate, left=folded_measure(gate.left), right=folded_measure(gate.right))
            for gate in state.gates
        )
        for old, new in zip(state.gates, gates, strict=True):
            if (old.left, old.right) != (new.left, new.right):
                texts.append(f"a constant of the gate `{old.text}`")
        return replace(state, gates=gates).note(self.name, *texts)


def folded(value: Attr) -> Attr:
    """The value, with forms that are the same number everywhere replaced by it."""
    if isinstance(value, tuple):
        return tuple(folded(item) for item in value)
    if not isinstance(value, Form) or value.name not in ("gradient", "per") or not value.args:
        return value
    items = {folded(item) for _, item in value.args}
    covers = value.name == "gradient" or any(pattern == "*" for pattern, _ in value.args)
    first = folded(value.args[0][1])
    return first if covers and len(items) == 1 and isinstance(first, (int, float)) else value


def _collapsed(state: GraphState, node: Node) -> Node | None:
    """The operand that the node's result is equal to, if there is one."""
    operation = state.lookup(node.op)
    if operation is None or len(node.inputs) != 1:
        return None
    inner = node.inputs[0]
    if "unit_factor" in operation.laws and node.attr("factor") == 1:
        return inner
    same = inner.op == node.op and inner.attrs == node.attrs and len(inner.inputs) == 1
    return inner if same and _is_idempotent(operation, node) else None


def _is_idempotent(operation: Operation, node: Node) -> bool:
    normalized = node.attr("normalize") is True and "idempotent_when_normalized" in operation.laws
    return normalized or "idempotent" in operation.laws


def _why(node: Node) -> str:
    return "a factor of 1" if node.attr("factor") == 1 else f"`{node.op}` twice is once"


def folded_measure(value: MeasuredExpr) -> MeasuredExpr:
    """The expression with arithmetic on two numbers carried out; a division by zero stays."""
    if not isinstance(value, Arithmetic):
        return value
    left, right = folded_measure(value.left), folded_measure(value.right)
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        return replace(value, left=left, right=right)
    match value.op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return left / right if right else replace(value, left=left, right=right)
