"""slerp-merge: interpolate two models along the arc between them (Shoemake 1985)."""

from __future__ import annotations

from math import acos, pi, sin, sqrt
from typing import Annotated, Any

from recipelang.ops.merge._fields import check_pair, merging
from recipelang.ops.spec import SUBJECT, WITH, Cost, Model, PerTensor, Range, Typed, operation
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results, Statistic, SumOf, Value

NARROW = 1e-4
"""Angles (radians) below which the arc and the chord agree to float32's precision."""


def slerp_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0542 unless there are two models, E0601 to E0603."""
    check_pair(typed, "slerp-merge")
    return merged_type(typed)


def slerp_cost(typed: Typed) -> Cost:
    """One level of statistics."""
    return streaming_cost(typed, merged_type(typed), levels=1)


def shares(aa: float, bb: float, ab: float, t: float) -> tuple[float, float]:
    """The factors of a and b, from their squared norms and their dot product.

    >>> shares(1.0, 1.0, 0.0, 0.5)
    (0.7071067811865475, 0.7071067811865475)
    """
    if t in (0.0, 1.0):
        return 1.0 - t, t
    norms = sqrt(aa) * sqrt(bb)
    if norms == 0:
        return 1 - t, t
    angle = acos(max(-1.0, min(1.0, ab / norms)))
    if angle < NARROW or pi - angle < NARROW:
        return 1 - t, t
    return sin((1 - t) * angle) / sin(angle), sin(t * angle) / sin(angle)


@operation(
    kind="weights",
    result="Model",
    origin="common",
    laws=("endpoints", "idempotent"),
    include=merging,
    result_type=slerp_result,
    cost=slerp_cost,
)
def slerp_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "two models: a, the subject, and b"],
    t: Annotated[PerTensor[float], Range(0, 1), "0 gives a, 1 gives b"],
    **shared: Any,
) -> Kernel:
    """R = sin((1 - t) θ) / sin θ * a + sin(t θ) / sin θ * b, with θ the angle between the two
    tensors taken as vectors.

    Where a direction between them is not defined (a zero tensor, opposite tensors) and where the
    arc is the chord to float32's precision (θ below 1e-4), R = (1 - t) a + t b. Norms and dot
    product are summed in float64. mergekit takes the chord for cosines above 0.9995 already.

        between = a -> slerp-merge with b { t = gradient(0, 0.5, 1) }
    """

    def statistics(results: Results) -> tuple[Statistic, ...]:
        return tuple(SumOf(_product(i, j)) for i, j in ((0, 0), (1, 1), (0, 1)))

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        if results:
            aa, bb, ab = (s for s in results[0] if isinstance(s, float))
            left, right = shares(aa, bb, ab, t)
        else:
            left, right = 1.0 - t, t
        a, b = blocks["inputs"]
        if not left or not right:
            return b * right if right else a * left
        total = a * left
        total += b * right
        return total

    ends = t in (0, 1)
    unread = frozenset({("inputs", 1 - int(t))}) if ends else frozenset[tuple[str, int]]()
    return Kernel(combine, () if ends else (statistics,), unread)


def _product(i: int, j: int) -> Value:
    def product(xp: Any, blocks: Inputs, block: Block) -> Array:
        left = blocks["inputs"][i].astype(xp.float64)
        return left * blocks["inputs"][j]

    return product
