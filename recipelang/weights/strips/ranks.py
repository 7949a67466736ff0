"""Ranks of magnitudes within rows, by the compiled library.

Example:
    >>> rank_rows(np.array([3, -1, -1], np.float32), 3)      # doctest: +SKIP
    array([1. , 0.5, 0. ], dtype=float32)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recipelang.native import library

__all__ = ["SHORTEST", "rank_rows"]

SHORTEST = 256
"""Shorter rows are sorted faster by numpy: the sort here counts thousands of digits a row."""


def rank_rows(values: NDArray[np.float32], row: int) -> NDArray[np.float32]:
    """For each element of whole rows, the rank of its magnitude in its row as a share of the
    largest rank, lowest index first among equals; ``row`` is two at least."""
    native = library()
    assert native is not None
    ranks, space = np.empty(values.size, np.float32), np.empty(2 * row, np.uint64)
    native.rank_rows(
        values.ctypes.data, values.size // row, row, 1 / (row - 1),
        ranks.ctypes.data, space.ctypes.data,
    )  # fmt: skip
    return ranks
