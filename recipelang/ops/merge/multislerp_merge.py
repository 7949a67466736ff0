"""multislerp-merge: the weighted mean of several models' directions, at their mean length
(mergekit's Multi-SLERP, which has no paper)."""

# A per-input field has one default for all inputs, which the checkers take for a tuple.
# mypy: disable-error-code="assignment"
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Annotated, Any

from recipelang.ops.merge._fields import as_mergekit, check_weights, merging, truthy
from recipelang.ops.spec import (
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
from recipelang.weights.kernels.sphere import direction


def multislerp_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0541 for weights that cancel, E0601 to E0603."""
    check_weights(typed, normalized=truthy(typed.fields.get("normalize")))
    return merged_type(typed)


def multislerp_cost(typed: Typed) -> Cost:
    """One level of statistics."""
    return streaming_cost(typed, merged_type(typed), levels=1)


@operation(
    kind="weights",
    result="Model",
    origin="base or common",
    version=2,
    laws=("permutation_invariant", "ignores_zero_weight", "homogeneous"),
    include=merging,
    result_type=multislerp_result,
    cost=multislerp_cost,
)
def multislerp_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the models"],
    base: Annotated[Model | None, FROM, "merge task vectors, the differences to this model"] = None,
    weight: Annotated[PerInput[PerTensor[float]], "share of each model"] = 1.0,
    normalize: Annotated[bool, "divide the weights by their sum"] = True,
    **shared: Any,
) -> Kernel:
    """R = m * sum_i w_i |V_i| with m the direction of sum_i w_i V_i / |V_i|, each tensor taken as
    one vector. With a base that is written, V_i = X_i - B and B is added at the end. Without
    weights and with equal lengths it is the arithmetic mean, stretched to their length.

    Where the directions cancel (|sum_i w_i V_i / |V_i|| <= 0.001 sum_i |w_i|), R = sum_i w_i V_i.
    mergekit adds 1e-8 to norms, goes a last step along a tangent which is zero by construction, and
    gives a model that is alone unchanged whatever its weight.

    From mergekit (Goddard et al. 2024, arXiv 2403.13257), which has no paper of it.

        mean = a -> multislerp-merge with b(weight = 0.5) and c
    """
    shares = normalised(weight) if normalize else list(weight)
    taken = used(shares)
    with_base = base is not None
    kept = [shares[i] for i in taken]
    if kept == [1]:
        return single(taken[0], len(shares), base=with_base)
    solve = _mergekit if as_mergekit(shared) else _exact
    unread = unused(len(shares), taken)
    return gram_kernel(taken, lambda gram: solve(gram, kept), base=with_base, unread=unread)


def _exact(gram: Matrix, shares: Sequence[float]) -> Sequence[float]:
    """The factors of the vectors.

    >>> _exact([[4.0, 0.0], [0.0, 4.0]], [0.5, 0.5])
    [0.7071067811865475, 0.7071067811865475]
    """
    norms, angles = cosines(gram)
    mean = direction(angles, shares)
    if mean is None:
        return shares
    length = sum(share * norm for share, norm in zip(shares, norms, strict=True))
    return [length * m / norm if norm else 0.0 for m, norm in zip(mean, norms, strict=True)]


def _mergekit(gram: Matrix, shares: Sequence[float]) -> Sequence[float]:
    norms = [sqrt(row[i]) for i, row in enumerate(gram)]
    mean = [share / (norm + 1e-8) for share, norm in zip(shares, norms, strict=True)]
    places = range(len(mean))
    square = sum(mean[i] * gram[i][j] * mean[j] for i in places for j in places)
    size = sqrt(max(0.0, square))
    if size < 1e-8:
        return shares
    length = sum(share * norm for share, norm in zip(shares, norms, strict=True))
    return [length * m / size for m in mean]
