"""model-stock-merge: go from a base towards the mean of its fine-tunes, as far as the angles
between them say (Model Stock, Jang et al. 2024, arXiv 2403.19522)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from recipelang.ops.merge._fields import as_mergekit, check_tasks, merging
from recipelang.ops.spec import (
    BY_ORIGIN,
    FROM,
    SUBJECT,
    WITH,
    Cost,
    Model,
    PerTensor,
    Typed,
    operation,
)
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results
from recipelang.weights.kernels.gram import Matrix, gram_kernel, vectors


def model_stock_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0542 for a single fine-tune, E0601 to E0603."""
    check_tasks(
        typed,
        "model-stock-merge",
        help="add another `with x`, or scale one by `task-arithmetic-merge`",
    )
    return merged_type(typed)


def model_stock_cost(typed: Typed) -> Cost:
    """One level of statistics, none by rows."""
    levels = 0 if typed.fields.get("by_row") is True else 1
    return streaming_cost(typed, merged_type(typed), levels=levels)


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "unanimous", "homogeneous", "keeps_base"),
    include=merging,
    result_type=model_stock_result,
    cost=model_stock_cost,
)
def model_stock_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models, two or more"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what they were trained from"],
    by_row: Annotated[PerTensor[bool], "an angle for each row of the last axis"] = False,
    **shared: Any,
) -> Kernel:
    """R = B + t * mean_i (X_i - B) with t = n c / (1 + (n - 1) c), for n models and c the mean
    cosine of their pairs' X_i - B and X_j - B, taken as one vector a tensor or a row. The paper has
    one angle for all pairs.

    c counts as 0 where it is negative, so t lies in [0, 1]: fine-tunes that point apart give the
    base. A pair with a zero vector has the cosine 0. mergekit bounds the product of two norms from
    below by 1e-6, which pulls small changes to the base, and lets t leave [0, 1].

    Jang et al. 2024, Model Stock, arXiv 2403.19522.

        stock = a -> model-stock-merge with b and c from base
    """
    count = len(inputs)
    mergekit = as_mergekit(shared)
    first: Any = base
    if by_row and first.shape:
        return _by_row(count, mergekit)

    def solve(gram: Matrix) -> Sequence[float]:
        import numpy as np

        return [float(ratio(np, np.array(gram), mergekit)) / count] * count

    return gram_kernel(range(count), solve, base=True)


def ratio(xp: Any, gram: Array, mergekit: bool = False) -> Array:
    """t, from the dot products of the differences: (n, n) or (n, n, rows), float64.

    >>> import numpy as np
    >>> float(ratio(np, np.array([[1.0, 0.5], [0.5, 1.0]])))
    0.6666666666666666
    """
    count = len(gram)
    total = 0.0 * gram[0][0]
    for i in range(count):
        for j in range(i):
            length = xp.sqrt(gram[i][i]) * xp.sqrt(gram[j][j])
            safe = xp.maximum(length, 1e-6) if mergekit else length + (length == 0)
            total = total + xp.clip(gram[i][j] / safe, -1.0, 1.0)
    cosine = total / (count * (count - 1) / 2)
    if not mergekit:
        cosine = xp.maximum(cosine, 0.0)
    divisor = 1 + (count - 1) * cosine
    vanishes = abs(divisor) < 1e-6
    return xp.where(vanishes, 0.0, count * cosine / (divisor + vanishes))


def _by_row(count: int, mergekit: bool) -> Kernel:
    def combine(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        rows = (-1, block.shape[-1])
        found = [d.reshape(rows) for d in vectors(inputs, range(count), True)]
        gram = [[xp.sum(a * b, axis=-1, dtype=xp.float64) for b in found] for a in found]
        share = ratio(xp, gram, mergekit) / count
        total = found[0]
        for vector in found[1:]:
            total += vector
        total *= xp.astype(share[:, None], total.dtype)
        flat = total.reshape(-1)
        flat += inputs["base"][0]
        return flat

    return Kernel(combine)
