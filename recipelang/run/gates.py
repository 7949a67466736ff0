"""Gates: measured numbers against a bound.

A gate compares point estimates; the interval of each measure is printed beside it, and whether the
interval leaves the answer open.

Example:
    >>> judge(0.62, ">=", 0.6)
    True
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from recipelang.ir.graph import Node
from recipelang.program import Arithmetic, GateRoot, MeasuredExpr
from recipelang.run.values import Measurement

__all__ = ["GateResult", "evaluate_gate", "judge", "number"]

Compare = Callable[[float, float], bool]
COMPARE: Final[Mapping[str, Compare]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate after the run. ``left`` and ``right`` are the two sides' values; ``measured`` are the
    measures that they rest on, by name."""

    hard: bool
    text: str
    message: str
    left: float
    op: str
    right: float
    passed: bool
    measured: tuple[tuple[str, Measurement], ...]


def judge(left: float, op: str, right: float) -> bool:
    """Whether the comparison holds. A value that is not a number passes no gate."""
    return left == left and right == right and COMPARE[op](left, right)


def number(expression: MeasuredExpr, measured: Mapping[Node, Measurement]) -> float:
    """The value of an expression over measures; a division by zero gives NaN."""
    match expression:
        case Node():
            return measured[expression].value
        case Arithmetic(op=op, left=left, right=right):
            a, b = number(left, measured), number(right, measured)
            match op:
                case "+":
                    return a + b
                case "-":
                    return a - b
                case "*":
                    return a * b
                case _:
                    return a / b if b else float("nan")
        case _:
            return float(expression)


def evaluate_gate(
    gate: GateRoot, measured: Mapping[Node, Measurement], names: Mapping[Node, str]
) -> GateResult:
    """The gate's outcome. ``names`` says what each measure is called."""
    left, right = number(gate.left, measured), number(gate.right, measured)
    nodes = [*_nodes(gate.left), *_nodes(gate.right)]
    rows = tuple((names[node], measured[node]) for node in dict.fromkeys(nodes))
    passed = judge(left, gate.op, right)
    return GateResult(gate.hard, gate.text, gate.message, left, gate.op, right, passed, rows)


def _nodes(expression: MeasuredExpr) -> list[Node]:
    match expression:
        case Node():
            return [expression]
        case Arithmetic(left=left, right=right):
            return [*_nodes(left), *_nodes(right)]
        case _:
            return []
