"""sce-merge: select what varies between models, weigh models by their changes, erase minority signs
(SCE of FuseChat, Wan et al. 2024, arXiv 2408.07990)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from recipelang.ops.merge._fields import as_mergekit, check_tasks, merging
from recipelang.ops.spec import (
    BY_ORIGIN,
    FROM,
    SUBJECT,
    WITH,
    Cost,
    Fraction,
    Model,
    PerTensor,
    Range,
    Typed,
    operation,
)  # fmt: skip
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import (
    Array,
    Block,
    Inputs,
    Kernel,
    Kth,
    KthMagnitude,
    Results,
    Statistic,
    SumOf,
    SumsOf,
)
from recipelang.weights.kernels.gram import vectors
from recipelang.weights.kernels.thinning import entries, kept

Levels: TypeAlias = "tuple[Callable[[Results], tuple[Statistic, ...]], ...]"


def sce_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0542 where one model is to vary, E0601 to E0603."""
    if typed.fields.get("select") != 1:
        check_tasks(typed, "sce-merge", help="leave `select` out, or add another `with x`")
    return merged_type(typed)


def sce_cost(typed: Typed) -> Cost:
    """One level of statistics, three with a selection."""
    levels = 1 if typed.fields.get("select") == 1 else 3
    return streaming_cost(typed, merged_type(typed), levels=levels)


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "unanimous", "homogeneous", "keeps_base"),
    include=merging,
    result_type=sce_result,
    cost=sce_cost,
)
def sce_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    select: Annotated[
        PerTensor[Fraction],
        Range(0, 1, open_low=True),
        "share, of the entries that vary between the models, of those that vary most",
    ] = 1.0,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    **shared: Any,
) -> Kernel:
    """With D_i = X_i - B, tensor by tensor. Select: where `select` is below 1, the D_i are set to 0
    but for the max(1, floor(select K)) entries with the largest variance over i, lowest index first
    among equals; K is the number of entries whose variance is not 0. Calculate: c_i = sum D_i^2 /
    sum_j sum D_j^2, 1 / n where all is 0. Erase: an entry's elected sign is that of sum_i D_i (plus
    where it is zero), and R = B + scale * sum c_i D_i / sum c_i over the D_i of that sign.

    mergekit takes c_i = 1 / n where the mean squares add up to less than 1e-6, which is usual for
    light fine-tunes, bounds the last divisor from below by 1e-6, and may select nothing.

    Wan et al. 2024, FuseChat, arXiv 2408.07990.

        fused = a -> sce-merge with b and c from base { select = 10% }
    """
    count = len(inputs)
    first: Any = base
    elements: int = first.elements
    mergekit = as_mergekit(shared)

    def solve(results: Results) -> _Plan:
        sums: Any = results[-1][0] or (0.0,) * count
        nothing = len(results) > 1 and not results[1]
        limit = 1e-6 * elements if mergekit else 0.0
        return _Plan(_shares(sums, limit), _kth(results), nothing)

    def combine(xp: Any, blocks: Inputs, block: Block, plan: _Plan) -> Array:
        if plan.nothing:
            return blocks["base"][0]
        chosen = _selection(xp, blocks, block, count, plan.kth)
        total = _elect(xp, chosen, plan.shares, 1e-6 if mergekit else 0.0)
        if scale != 1:
            total *= scale
        total += blocks["base"][0]
        return total

    return Kernel(combine, _levels(select, count, mergekit=mergekit), solve=solve)


def _levels(select: float, count: int, *, mergekit: bool) -> Levels:
    """What is asked of a tensor: how many entries vary, the last one selected, and the sums of the
    squares that are left of each model."""

    def varying(results: Results) -> tuple[SumOf, ...]:
        return (SumOf(lambda xp, blocks, block: _variance(blocks) > 0),)

    def largest(results: Results) -> tuple[KthMagnitude, ...]:
        found: Any = results[0][0]
        k = _selected(select, int(found), mergekit)
        return (KthMagnitude(lambda xp, blocks, block: _variance(blocks), k),) if k else ()

    def squares(results: Results) -> tuple[SumsOf, ...]:
        kth = _kth(results)

        def values(xp: Any, blocks: Inputs, block: Block) -> Iterable[Array]:
            for vector in _selection(xp, blocks, block, count, kth):
                vector *= vector
                yield vector

        return (SumsOf(values),)

    return (squares,) if select >= 1 else (varying, largest, squares)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The models' shares, and the last entry selected: None for all, or for ``nothing``."""

    shares: tuple[float, ...]
    kth: Kth | None
    nothing: bool


def _selected(select: float, varying: int, mergekit: bool) -> int:
    """How many entries are selected, of those that vary."""
    if varying == 0:
        return 0
    return entries(select, varying, exact=False) if mergekit else max(1, entries(select, varying))


def _kth(results: Results) -> Kth | None:
    """The last entry selected, from the second of several levels."""
    found = results[1][0] if len(results) > 1 and results[1] else None
    return found if isinstance(found, Kth) else None


def _shares(squares: tuple[float, ...], limit: float) -> tuple[float, ...]:
    total = sum(squares)
    if total < limit or total == 0:
        return (1 / len(squares),) * len(squares)
    return tuple(square / total for square in squares)


def _variance(inputs: Inputs) -> Array:
    """The population variance over the models, which the base has no part in. Taken around the
    first model it is exactly 0 where all are equal, and loses at most a factor of n + 1 of
    precision."""
    origin, *others = inputs["inputs"]
    total = origin - origin
    squares = origin - origin
    for x in others:
        offset = x - origin
        total += offset
        offset *= offset
        squares += offset
    total *= total
    total *= 1 / (1 + len(others))
    squares -= total
    squares *= 1 / (1 + len(others))
    return squares


def _selection(xp: Any, inputs: Inputs, block: Block, count: int, kth: Kth | None) -> list[Array]:
    """The differences to the base, 0 where they were not selected."""
    found = vectors(inputs, range(count), True)
    if kth is not None:
        mask = kept(xp, _variance(inputs), block.start, kth)
        found = [vector * mask for vector in found]
    return found


def _elect(xp: Any, found: Sequence[Array], shares: tuple[float, ...], least: float) -> Array:
    """The mean, by shares, of the entries that have the sign of their sum. They are turned so that
    this is plus; then what agrees is what is positive."""
    first = found[0]
    total = first
    for vector in found[1:]:
        total = total + vector
    sign = xp.copysign(xp.ones_like(first), total)
    merged, divisor = xp.zeros_like(first), xp.zeros_like(first)
    for vector, share in zip(found, shares, strict=True):
        vector *= sign
        agrees = xp.astype(vector > 0, vector.dtype)
        agrees *= share
        divisor += agrees
        agrees *= vector
        merged += agrees
    if least:
        divisor = xp.maximum(divisor, least)
    else:
        divisor += divisor == 0  # where nothing took part the sum is 0
    merged /= divisor
    merged *= sign
    return merged
