"""task-arithmetic-merge: add weighted task vectors to a base (Ilharco et al. 2023, arXiv
2212.04089)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import merging
from recipelang.ops.merge._task_vectors import summed_result
from recipelang.ops.spec import (
    BY_ORIGIN,
    FROM,
    SUBJECT,
    WITH,
    Cost,
    Model,
    PerInput,
    PerTensor,
    Typed,
    operation,
)  # fmt: skip
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.task_vectors import check_sum, combine


def task_arithmetic_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, merged_type(typed))


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "ignores_zero_weight", "keeps_base"),
    include=merging,
    result_type=summed_result,
    cost=task_arithmetic_cost,
)
def task_arithmetic_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "share of each task vector"] = 1.0,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    normalize: Annotated[bool, "divide by the sum of the weights"] = False,
    **shared: Any,
) -> Kernel:
    """R = B + scale * sum_i w_i (X_i - B), divided by sum_i w_i when `normalize`.

    Computed in float32 and rounded once (mergekit rounds task vectors to the stored dtype first).

        both = verses -> task-arithmetic-merge with definitions(weight = 0.5) from base
    """
    check_sum(weight, normalize)
    whole = [None] * len(weight)
    return combine(weight, whole, scale=scale, normalize=normalize, elect=False)
