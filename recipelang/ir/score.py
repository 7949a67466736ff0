"""Arithmetic over measures as a constant of a step: what `best ... by` a template compares.

The measures of all candidates are operands of the step, those of a candidate side by side; the
constant says what is made of them. ``measure(at = 1)`` is a candidate's second measure.

Example:
    >>> mean = Form("over", (("left", measure(0)), ("right", 2)))
    >>> scores(mean, [3.0, 5.0])
    [1.5, 2.5]
"""

from __future__ import annotations

from collections.abc import Sequence

from recipelang.ir.graph import Node
from recipelang.program import Arithmetic, MeasuredExpr, nodes_of
from recipelang.types import MeasuredType
from recipelang.values import Attr, Form

__all__ = ["direction_of", "measure", "score_of", "scores"]

NAMES = {"+": "plus", "-": "minus", "*": "times", "/": "over"}
FLIPPED = {"min": "max", "max": "min"}


def measure(at: int) -> Form:
    """A candidate's measure number ``at``, from 0."""
    return Form("measure", (("at", at),))


def score_of(value: MeasuredExpr) -> Attr:
    """The constant of an expression, its measures numbered from the left."""
    return _score(value, 0)


def _score(value: MeasuredExpr, start: int) -> Attr:
    if isinstance(value, Node):
        return measure(start)
    if not isinstance(value, Arithmetic):
        return value
    right = start + len(nodes_of(value.left))
    return Form(
        NAMES[value.op],
        (("left", _score(value.left, start)), ("right", _score(value.right, right))),
    )


def direction_of(value: MeasuredExpr) -> str | None:
    """Which way is better: ``min``, ``max``, ``""`` for a plain number, None where it cannot be
    told. Measures are never negative."""
    if isinstance(value, Node):
        return value.type.direction if isinstance(value.type, MeasuredType) else "min"
    if not isinstance(value, Arithmetic):
        return ""
    left, right = direction_of(value.left), direction_of(value.right)
    if left is None or right is None:
        return None
    if value.op in "-/":
        right = FLIPPED.get(right, right)
    if left and right:
        return left if left == right else None
    number = value.right if left else value.left
    negative = value.op in "*/" and isinstance(number, int | float) and number < 0
    found = left or right
    return FLIPPED.get(found, found) if negative else found


def scores(score: Attr, measured: Sequence[float]) -> list[float]:
    """The value of each candidate, from the measures of all of them. A division by zero gives
    not-a-number, which no candidate wins with."""
    width = _width(score)
    return [
        _value(score, measured[start : start + width]) for start in range(0, len(measured), width)
    ]


def _width(score: Attr) -> int:
    """How many measures a candidate has."""
    if not isinstance(score, Form):
        return 0
    if score.name == "measure":
        return 1
    return _width(score.get("left")) + _width(score.get("right"))


def _value(score: Attr, measured: Sequence[float]) -> float:
    if not isinstance(score, Form):
        assert isinstance(score, int | float)
        return float(score)
    if score.name == "measure":
        at = score.get("at")
        assert isinstance(at, int)
        return measured[at]
    left, right = (_value(score.get(side), measured) for side in ("left", "right"))
    match score.name:
        case "plus":
            return left + right
        case "minus":
            return left - right
        case "times":
            return left * right
        case _:
            return left / right if right else float("nan")
