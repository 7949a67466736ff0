"""della-merge: drop entries of task vectors at random, small ones more often, add the rest (Deep
et al. 2024, arXiv 2406.11617)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import Density, Rescale, Spread, merging
from recipelang.ops.merge._task_vectors import check_spread, summed_result, thinned_cost, thinnings
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
    Typed,
    operation,
)  # fmt: skip
from recipelang.types import ModelType
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.task_vectors import check_sum, combine
from recipelang.weights.kernels.thinning import Thinning, by_rank


def della_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0536 for a spread that leaves (0, 1], E0541, E0601 to
    E0603."""
    check_spread(typed)
    return summed_result(typed)


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("ignores_zero_weight", "keeps_base"),
    include=merging,
    result_type=della_result,
    cost=thinned_cost(levels=0),
)
def della_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "share of each task vector"] = 1.0,
    density: Density = 0.5,
    epsilon: Spread = 0.15,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    normalize: Annotated[bool, "divide by the sum of the weights"] = False,
    rescale: Rescale = "inverse",
    seed: Annotated[int, DRAWS, "another one draws other masks"] = 0,
    tensor: Annotated[str, TENSOR] = "",
    draws: Annotated[tuple[str, ...], DRAWN] = (),
    **shared: Any,
) -> Kernel:
    """`dare-merge` with probabilities that grow with an entry's magnitude.

    An entry is kept with probability density - epsilon + 2 epsilon q and divided by it; q is the
    rank of its magnitude in its row of the last axis, from 0 for the smallest to 1 for the largest
    (the lowest index first among equals, 1/2 in a row of one).

    mergekit draws from one global stream, and with `rescale` brings the L1 norm back (`rescale =
    l1`) in place of dividing.

        student = mine -> della-merge with chat(weight = 0.4) { density = 40%, epsilon = 0.1 }
    """
    check_sum(weight, normalize)
    inverse = rescale == "inverse"

    def thin(i: int) -> Thinning:
        return by_rank(draws[i], tensor, density[i], epsilon[i], inverse=inverse)

    return combine(
        weight, thinnings(density, rescale, thin), scale=scale, normalize=normalize, elect=False
    )
