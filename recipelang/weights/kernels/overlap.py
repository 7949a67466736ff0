"""Where several task vectors changed a weight, and where one did alone (Yuan et al. 2026, arXiv
2601.13572).

Example:
    >>> import numpy as np
    >>> blocks = {"inputs": (np.array([1.0, 0.0]), np.array([3.0, 2.0])), "base": (np.zeros(2),)}
    >>> mean_change(np, changes(np, blocks, 2, 1e-5))
    array([2., 2.])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from recipelang.weights.kernel import Array, Inputs
from recipelang.weights.kernels.gram import vectors

__all__ = ["Changes", "changes", "mean_change", "touched"]

Changes: TypeAlias = "Sequence[tuple[Array, Array]]"
"""For each input its differences to the base, 0 where they count as none, and where they count."""


def changes(xp: Any, inputs: Inputs, count: int, epsilon: float) -> Changes:
    """The differences of ``count`` inputs that are larger than ``epsilon``."""
    found: list[tuple[Array, Array]] = []
    for vector in vectors(inputs, range(count), True):
        counts = xp.abs(vector) > epsilon
        vector *= counts
        found.append((vector, counts))
    return found


def touched(xp: Any, found: Changes) -> Array:
    """How many inputs changed each element, in the blocks' dtype."""
    first, where = found[0]
    total = xp.astype(where, first.dtype)
    for _, where in found[1:]:
        total += where
    return total


def mean_change(xp: Any, found: Changes) -> Array:
    """The mean of the changes that count, 0 where there is none."""
    total = found[0][0]
    for vector, _ in found[1:]:
        total = total + vector
    return total / xp.maximum(touched(xp, found), 1)
