"""karcher-merge: the Karcher mean of several models' directions, the point of the sphere with the
least squared angles to them, at their mean length (Karcher 1977; for merging Wang, Ye and Yin 2026,
arXiv 2603.04972)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from recipelang.ops.merge._fields import as_mergekit, check_weights, merging
from recipelang.ops.spec import (
    SUBJECT,
    WITH,
    Cost,
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
from recipelang.weights.kernels.gram import (
    Matrix,
    cosines,
    gram_kernel,
    normalised,
    single,
    unused,
    used,
)
from recipelang.weights.kernels.sphere import karcher_mean

TOLERANCE = 1e-5
"""mergekit's: the least norm, angle and step (radians) that count."""


def karcher_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0541 for weights that are all zero, E0601 to E0603."""
    check_weights(typed, normalized=True, help="give one model a weight")
    return merged_type(typed)


def karcher_cost(typed: Typed) -> Cost:
    """One level of statistics."""
    return streaming_cost(typed, merged_type(typed), levels=1)


@operation(
    kind="weights",
    result="Model",
    origin="common",
    laws=("permutation_invariant", "ignores_zero_weight", "unanimous", "homogeneous"),
    include=merging,
    refuses=(("from", "the mean is of models, not of changes: a base can be one of the models"),),
    result_type=karcher_result,
    cost=karcher_cost,
)
def karcher_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the models"],
    weight: Annotated[PerInput[PerTensor[float]], Range(0), "share of each model"] = 1.0,
    iterations: Annotated[int, Range(1), "steps towards the mean at most"] = 10,
    **shared: Any,
) -> Kernel:
    """R = m * sum_i a_i |X_i| with a_i = w_i / sum_j w_j, each tensor taken as one vector, and m
    the unit vector with the least sum_i a_i angle(m, X_i)^2. From the direction of sum_i a_i X_i /
    |X_i| each step goes along the geodesic of T = sum_i a_i θ_i / sin θ_i (X_i / |X_i| - cos θ_i
    m), with θ_i = angle(m, X_i), until |T| < 1e-9. A zero tensor has no direction, only a length.

    Where the directions cancel (|sum_i a_i X_i / |X_i|| <= 0.001), R = sum_i a_i X_i. mergekit has
    no weights, stops at |T| < 1e-5, leaves out tensors of norm up to 1e-5, starts from the first
    where directions cancel, and computes cosines in the stored dtype.

    Karcher 1977, Riemannian Center of Mass; Buss and Fillmore 2001; for merging Wang et al. 2026,
    arXiv 2603.04972.

        mean = a -> karcher-merge with b and c { iterations = 20 }
    """
    shares = normalised(weight, "give one model a weight")
    taken = used(shares)
    mergekit = as_mergekit(shared)
    kept = [shares[i] for i in taken]
    if len(taken) == 1 and not mergekit:
        return single(taken[0], len(shares))
    return gram_kernel(
        taken,
        lambda gram: _factors(gram, kept, iterations, mergekit),
        unread=unused(len(shares), taken),
    )


def _factors(
    gram: Matrix, shares: Sequence[float], iterations: int, mergekit: bool
) -> Sequence[float]:
    """The factors of the tensors.

    >>> _factors([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5], 10, False)
    [0.7071067811865475, 0.7071067811865475]
    """
    norms, angles = cosines(gram)
    live = [i for i, norm in enumerate(norms) if norm > (TOLERANCE if mergekit else 0)]
    if not live:
        return [0.0] * len(shares)
    among = [[angles[i][j] for j in live] for i in live]
    total = sum(shares[i] for i in live)
    mean = karcher_mean(
        among, [shares[i] / total for i in live], iterations,
        tolerance=TOLERANCE if mergekit else 1e-9, mergekit=mergekit,
    )  # fmt: skip
    if mean is None:
        return shares
    length = sum(share * norm for share, norm in zip(shares, norms, strict=True))
    factors = [0.0] * len(shares)
    for i, m in zip(live, mean, strict=True):
        factors[i] = length * m / norms[i]
    return factors
