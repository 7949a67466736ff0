"""magmax-merge: keep for each weight the largest change of any model (MagMax, Marczak et al. 2024,
arXiv 2407.06322)."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import merging
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
)  # fmt: skip
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results
from recipelang.weights.kernels.gram import vectors


def magmax_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, merged_type(typed))


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "unanimous", "homogeneous", "keeps_base"),
    include=merging,
    result_type=merged_type,
    cost=magmax_cost,
)
def magmax_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    **shared: Any,
) -> Kernel:
    """R = B + scale * D_k with D_i = X_i - B and k the model whose |D_k| is the largest, element by
    element; of two opposite changes of one size the positive one. The order of the models has no
    effect. mergekit has no such method.

    Marczak et al. 2024, MagMax, arXiv 2407.06322.

        all = birds -> magmax-merge with fish and trees from base { scale = 0.5 }
    """
    count = len(inputs)

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        first, *others = vectors(blocks, range(count), True)
        up, down = first, first
        for vector in others:
            up, down = xp.maximum(up, vector), xp.minimum(down, vector)
        upwards = up >= -down
        total = up * upwards
        total += down * ~upwards
        if scale != 1:
            total *= scale
        total += blocks["base"][0]
        return total

    return Kernel(combine)
