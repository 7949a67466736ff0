"""dare-merge: drop entries of task vectors at random, add the rest (Yu et al. 2023, arXiv
2311.03099)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import Density, Rescale, merging
from recipelang.ops.merge._task_vectors import summed_result, thinned_cost, thinnings
from recipelang.ops.spec import (
    BY_ORIGIN,
    DRAWN,
    DRAWS,
    FROM,
    SUBJECT,
    TENSOR,
    WITH,
    Model,
    PerInput,
    PerTensor,
    operation,
)  # fmt: skip
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.task_vectors import check_sum, combine
from recipelang.weights.kernels.thinning import Thinning, at_random


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("ignores_zero_weight", "keeps_base"),
    include=merging,
    result_type=summed_result,
    cost=thinned_cost(levels=0),
)
def dare_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "share of each task vector"] = 1.0,
    density: Density = 0.5,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    normalize: Annotated[bool, "divide by the sum of the weights"] = False,
    rescale: Rescale = "inverse",
    seed: Annotated[int, DRAWS, "another one draws other masks"] = 0,
    tensor: Annotated[str, TENSOR] = "",
    draws: Annotated[tuple[str, ...], DRAWN] = (),
    **shared: Any,
) -> Kernel:
    """R = B + scale * sum_i w_i D_i', divided by sum_i w_i when `normalize`.

    D_i' is X_i - B with each entry kept with probability density_i and divided by it, so that the
    expectation is that of task arithmetic.

    Masks follow from the seed, the input, the tensor and the entry, on every machine the same; the
    density is rounded to a multiple of 2^-16. With `rescale = l1` the rest is scaled to the task
    vector's L1 norm, as mergekit does.

        student = mine -> dare-merge with chat(weight = 0.4) { density = 30% }
    """
    check_sum(weight, normalize)
    inverse = rescale == "inverse"

    def thin(i: int) -> Thinning:
        return at_random(draws[i], tensor, density[i], inverse=inverse)

    return combine(
        weight, thinnings(density, rescale, thin), scale=scale, normalize=normalize, elect=False
    )
