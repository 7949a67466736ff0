"""ram-merge: average task vectors where several models changed a weight, and keep what one changed
alone (Reinforced Agent Merging, Yuan et al. 2026, arXiv 2601.13572)."""

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
    Range,
    Typed,
    operation,
)  # fmt: skip
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results
from recipelang.weights.kernels.overlap import changes, mean_change


def ram_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, merged_type(typed))


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "unanimous", "keeps_base"),
    include=merging,
    result_type=merged_type,
    cost=ram_cost,
)
def ram_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    epsilon: Annotated[PerTensor[float], Range(0), "changes up to this size count as none"] = 1e-5,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    **shared: Any,
) -> Kernel:
    """R = B + scale * the mean of those D_i = X_i - B with |D_i| > epsilon, element by element; B
    where there is none. What one model changed alone is kept whole, not divided by their number.

    mergekit computes the same in the stored dtype.

    Yuan et al. 2026, Reinforced Agent Merging, arXiv 2601.13572.

        agents = coder -> ram-merge with planner and searcher from base
    """
    count = len(inputs)

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        total = mean_change(xp, changes(xp, blocks, count, epsilon))
        if scale != 1:
            total *= scale
        total += blocks["base"][0]
        return total

    return Kernel(combine)
