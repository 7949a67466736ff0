"""iso-merge: add the task vectors up and give all their directions the same strength (isotropic
merging, Marczak et al. 2025, arXiv 2502.04959)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._decomposed import (
    check_finite,
    decomposing_cost,
    is_matrix,
    mean_of_tasks,
)
from recipelang.ops.merge._fields import merging
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
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type
from recipelang.weights.kernel import Kernel, MatrixKernel
from recipelang.weights.kernels.task_matrices import isotropic, isotropic_bytes


def iso_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0557, E0601 to E0603."""
    check_finite(typed, "iso-merge")
    return merged_type(typed)


def iso_cost(typed: Typed) -> Cost:
    """One decomposition of every matrix."""
    return decomposing_cost(typed, merged_type(typed), 1, lambda info: isotropic_bytes((info,)))


@operation(
    kind="weights",
    result="Model",
    origin="base",
    determinism="repeatable",
    laws=("permutation_invariant", "ignores_zero_weight", "keeps_base"),
    include=merging,
    result_type=iso_result,
    cost=iso_cost,
)
def iso_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "factor on each task vector"] = 1.0,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    **shared: Any,
) -> Kernel | MatrixKernel:
    """Of a matrix, with sum_i w_i (X_i - B) = U S V^T of rank k: R = B + scale * (sum of S / k)
    U V^T: the singular vectors stay, each singular value becomes their mean.

    Other tensors take the mean: R = B + scale * sum_i w_i (X_i - B) / n, where tasks of weight 0 do
    not count. Singular values up to 2^-20 of the largest count as zero, and the mean is over the
    others: the paper's code takes it over min(m, n), which for sums of low rank gives arbitrary
    directions most of the strength.

        both = verses -> iso-merge with definitions from base { scale = 1.2 }
    """
    first: Any = base
    count = sum(1 for w in weight if w)
    if not count or not is_matrix(first):
        return mean_of_tasks(weight, scale)
    infos: Any = (first, *inputs)
    return isotropic(weight, infos, scale)
