"""slerp-merge: interpolate two models along the arc between them (Shoemake 1985)."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import as_mergekit, base_is_subject, check_pair, merging
from recipelang.ops.spec import SUBJECT, WITH, Cost, Model, PerTensor, Range, Typed, operation
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Kernel
from recipelang.weights.kernels.gram import Matrix, gram_kernel, single
from recipelang.weights.kernels.sphere import angle, arc


def slerp_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0542 unless there are two models, E0601 to E0603,
    E0640 to E0642."""
    check_pair(typed, "slerp-merge")
    return merged_type(typed)


def slerp_cost(typed: Typed) -> Cost:
    """One level of statistics."""
    return streaming_cost(typed, merged_type(typed), levels=1)


def factors(gram: Matrix, t: float, mergekit: bool = False) -> tuple[float, float]:
    """What a and b are multiplied by, from their dot products.

    >>> factors([[1.0, 0.0], [0.0, 4.0]], 0.5)
    (0.7071067811865475, 0.7071067811865475)
    """
    import numpy as np

    aa, bb, ab = (np.float64(x) for x in (gram[0][0], gram[1][1], gram[0][1]))
    if mergekit:
        a, b = (x if (x := np.sqrt(square)) > 1e-8 else np.float64(1) for square in (aa, bb))
        cosine = np.clip(ab / (a * b), -1, 1)
        straight = abs(cosine) > 0.9995
    else:
        cosine, straight = angle(np, aa, bb, ab)
    left, right = arc(np, cosine, straight, t)
    return float(left), float(right)


@operation(
    kind="weights",
    result="Model",
    origin="common",
    laws=("endpoints", "unanimous", "homogeneous"),
    include=merging,
    refuses=base_is_subject("slerp-merge"),
    result_type=slerp_result,
    cost=slerp_cost,
)
def slerp_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "two models: a, the subject, and b"],
    t: Annotated[PerTensor[float], Range(0, 1), "0 gives a, 1 gives b"],
    **shared: Any,
) -> Kernel:
    """R = sin((1 - t) θ) / sin θ * a + sin(t θ) / sin θ * b, with θ the angle between the two
    tensors taken as vectors.

    Where no direction between them is defined (a zero tensor; opposite tensors, π - θ < 0.001), R =
    (1 - t) a + t b. The dot products are summed in float64. mergekit takes the chord for cosines
    above 0.9995 and below -0.9995 already, so for most pairs of light fine-tunes.

    Shoemake 1985, Animating Rotation with Quaternion Curves.

        between = a -> slerp-merge with b { t = gradient(0, 0.5, 1) }
    """
    if t in (0, 1):
        return single(int(t), 2)
    mergekit = as_mergekit(shared)
    return gram_kernel((0, 1), lambda gram: factors(gram, t, mergekit))
