"""tsv-merge: keep each fine-tune's leading singular vectors and take apart what overlaps (task
singular vectors, Gargiulo et al. 2025, arXiv 2412.00081)."""

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
    Fraction,
    Model,
    PerInput,
    PerTensor,
    Range,
    Typed,
    operation,
)  # fmt: skip
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type
from recipelang.weights.kernel import Kernel, MatrixKernel
from recipelang.weights.kernels.task_matrices import singular_vectors, singular_vectors_bytes
from recipelang.weights.kernels.thinning import entries


def tsv_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0557, E0601 to E0603."""
    check_finite(typed, "tsv-merge")
    return merged_type(typed)


def tsv_cost(typed: Typed) -> Cost:
    """A decomposition of every matrix of every input."""
    count = len(typed.types.get("inputs", ()))
    return decomposing_cost(
        typed, merged_type(typed), count,
        lambda info: singular_vectors_bytes((info,), -(-min(info.shape) // count), count),
    )  # fmt: skip


@operation(
    kind="weights",
    result="Model",
    origin="base",
    determinism="repeatable",
    laws=("permutation_invariant", "ignores_zero_weight", "keeps_base"),
    include=merging,
    result_type=tsv_result,
    cost=tsv_cost,
)
def tsv_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "factor on each task vector"] = 1.0,
    rank_share: Annotated[
        PerTensor[Fraction] | None,
        Range(0, 1, open_low=True),
        "share of its singular vectors that each task keeps [1 / number of tasks]",
    ] = None,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    **shared: Any,
) -> Kernel | MatrixKernel:
    """Of a matrix (m, n), with D_i = X_i - B = U_i S_i V_i^T cut to its leading
    floor(rank_share min(m, n)) singular triplets (at least one), U = [U_1 … U_n], V = [V_1 … V_n]
    and U', V' the nearest matrices with orthonormal columns: R = B + scale * U' diag(w_i S_i) V'^T.

    Tasks whose singular vectors are orthogonal are added up; where they overlap, the vectors are
    turned apart. Other tensors take the mean: R = B + scale * sum_i w_i D_i / n. Tasks of weight 0
    do not count. Singular values up to 2^-20 of the largest count as zero, and directions that two
    tasks share in full are one direction: the paper's code fills both with arbitrary vectors.

        both = verses -> tsv-merge with definitions from base
    """
    first: Any = base
    count = sum(1 for w in weight if w)
    if not count or not is_matrix(first):
        return mean_of_tasks(weight, scale)
    smaller = min(first.shape)
    rank = smaller // count if rank_share is None else entries(rank_share, smaller)
    infos: Any = (first, *inputs)
    return singular_vectors(weight, infos, max(1, rank), scale)
