"""ties-merge: keep each task vector's largest changes, elect a sign, add what agrees (Yadav et al.
2023, arXiv 2306.01708)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import merging
from recipelang.ops.spec import (
    BLOCK,
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
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.task_vectors import kept_count, ties


def ties_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0601 to E0603."""
    return merged_type(typed)


def ties_cost(typed: Typed) -> Cost:
    """One level of statistics."""
    return streaming_cost(typed, merged_type(typed), levels=1)


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "ignores_zero_weight"),
    include=merging,
    result_type=ties_result,
    cost=ties_cost,
)
def ties_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    weight: Annotated[PerInput[PerTensor[float]], "share of each task vector"] = 1.0,
    density: Annotated[
        PerInput[PerTensor[Fraction]],
        BLOCK,
        Range(0, 1, open_low=True),
        "share of its entries kept",
    ] = 0.5,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    normalize: Annotated[bool, "divide by the weights that took part in an entry"] = True,
    **shared: Any,
) -> Kernel:
    """With D_i = X_i - B and V_i = w_i times the floor(density N) largest entries of D_i (at least
    one, lowest index first among equals), tensor by tensor: an entry's elected sign is that of
    sum_i V_i (plus where it is zero), and R = B + scale * sum of the V_i that have that sign,
    divided by the sum of their |w_i| when `normalize`.

    The paper trims over the whole model; this is tensor by tensor, as in mergekit. mergekit divides
    by the sum of w_i, which differs for negative weights only, and rounds task vectors to the
    stored dtype.

        student = mine -> ties-merge with chat(weight = 0.4) { density = 60% }
    """
    first: Any = base
    counts = [kept_count(share, first.elements) for share in density]
    return ties(weight, counts, first.elements, scale, normalize)
