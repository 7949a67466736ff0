"""Geometry on the sphere of directions: the arc between two vectors (Shoemake 1985), the direction
of a weighted sum, the Karcher mean (Karcher 1977; Buss and Fillmore 2001).

Means of n vectors are worked out from the matrix of their cosines and given as coordinates over
their unit vectors. An arc's two factors are given for one pair or, as arrays, for many.

Where vectors cancel (opposite vectors; directions whose sum is nothing) no direction between them
is defined, and already near there float32 sums do not tell it. Callers take the straight line then.

Example:
    >>> import numpy as np
    >>> left, right = arc(np, *angle(np, np.array(1.0), np.array(1.0), np.array(0.0)), 0.5)
    >>> f"{float(left):.6f} {float(right):.6f}"
    '0.707107 0.707107'
    >>> karcher_mean([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5], 10)
    [0.7071067811865475, 0.7071067811865475]
"""

from __future__ import annotations

from collections.abc import Sequence
from math import acos, cos, pi, sin, sqrt
from typing import Any

from recipelang.weights.kernel import Array
from recipelang.weights.kernels.gram import Matrix

__all__ = ["CANCELLED", "angle", "arc", "direction", "karcher_mean"]

NARROW = 1e-8
"""Angles (radians) below which the arc is the chord to float64's precision."""
CANCELLED = 1e-3
"""Vectors that are closer to opposite than this angle (radians), and unit vectors whose weighted
sum is shorter than this share of the weights, have no direction between them: cosines are known to
2^-23, which leaves such a direction 12 % uncertain."""


def angle(xp: Any, aa: Array, bb: Array, ab: Array) -> tuple[Array, Array]:
    """The cosine between vectors with these squared norms and dot products, and where there is no
    arc between them: a zero vector, equal or opposite directions. Any shape, float64."""
    length = xp.sqrt(aa) * xp.sqrt(bb)
    empty = length == 0
    cosine = xp.clip(ab / (length + empty), -1.0, 1.0)
    theta = xp.arccos(cosine)
    return cosine, empty | (theta < NARROW) | (theta > pi - CANCELLED)


def arc(xp: Any, cosine: Array, straight: Array, t: float) -> tuple[Array, Array]:
    """The factors sin((1 - t) θ) / sin θ and sin(t θ) / sin θ; 1 - t and t where ``straight``."""
    theta = xp.where(straight, pi / 2, xp.arccos(cosine))
    sine = xp.sin(theta)
    return (
        xp.where(straight, 1 - t, xp.sin((1 - t) * theta) / sine),
        xp.where(straight, t, xp.sin(t * theta) / sine),
    )


def direction(cosines: Matrix, shares: Sequence[float]) -> list[float] | None:
    """The direction of sum_i shares_i u_i as coordinates over the unit vectors u_i, None where the
    sum cancels. A u_i of a zero vector is zero, and so is its row of the matrix."""
    length = _length(cosines, shares)
    weight = sum(abs(share) for i, share in enumerate(shares) if cosines[i][i])
    return None if length <= CANCELLED * weight else [share / length for share in shares]


def karcher_mean(
    cosines: Matrix, shares: Sequence[float], iterations: int, *, tolerance: float = 1e-9,
    mergekit: bool = False,
) -> list[float] | None:  # fmt: skip
    """The point m of the sphere with the least sum_i shares_i angle(m, u_i)^2, as coordinates over
    the unit vectors u_i; None where it is not defined. ``shares`` add up to 1.

    From the direction of sum_i shares_i u_i, each iteration goes along the geodesic of
    T = sum_i shares_i log_m(u_i), until |T| < ``tolerance`` (radians). A u_i opposite to m has no
    logarithm and does not pull.

    ``mergekit`` starts from u_0 where the sum cancels, and skips u_i nearer than the tolerance.
    """
    mean = direction(cosines, shares)
    if mergekit:
        length = _length(cosines, shares)
        first = [1.0] + [0.0] * (len(shares) - 1)
        mean = [share / length for share in shares] if length >= tolerance else first
    if mean is None:
        return None
    for _ in range(iterations):
        tangent = _tangent(cosines, shares, mean, tolerance if mergekit else 0.0)
        step = _length(cosines, tangent)
        if step < tolerance:
            break
        stretch = sin(step) / step
        mean = [cos(step) * m + stretch * t for m, t in zip(mean, tangent, strict=True)]
        length = _length(cosines, mean)
        mean = [m / length for m in mean]
    return mean


def _tangent(
    cosines: Matrix, shares: Sequence[float], mean: Sequence[float], nearest: float
) -> list[float]:
    """sum_i shares_i θ_i / sin θ_i (u_i - cos θ_i m), coordinates over u."""
    pulls: list[float] = []
    along = 0.0
    for share, row in zip(shares, cosines, strict=True):
        cosine = max(-1.0, min(1.0, sum(c * m for c, m in zip(row, mean, strict=True))))
        theta = acos(cosine)
        if theta < nearest or theta > pi - CANCELLED:
            pull = 0.0
        else:
            pull = share * (theta / sin(theta) if theta > NARROW else 1.0)
        pulls.append(pull)
        along += pull * cosine
    return [pull - along * m for pull, m in zip(pulls, mean, strict=True)]


def _length(cosines: Matrix, coordinates: Sequence[float]) -> float:
    """The norm of a vector given by its coordinates over the unit vectors."""
    places = range(len(cosines))
    square = sum(coordinates[i] * cosines[i][j] * coordinates[j] for i in places for j in places)
    return sqrt(max(0.0, square))
