"""Sums of many numbers in float64, in one order that is written down, so that they have the same
bits wherever they are taken: on numpy, or by the compiled library.

Numbers go in strips of 1,024 (the last one filled up with zeros). A strip is 32 rows of 32, which
are added in order; of the row that they give places k and k + 16 are added, then k and k + 8, and
so on. The strips' sums are added in order. Strips begin anew with each block of a tensor.

Example:
    >>> added(0.5, np.ones(3, np.float32))
    3.5
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRIP", "added"]

ROW = 32
STRIP = ROW * ROW


def added(total: float, values: NDArray[Any]) -> float:
    """``total`` and the 1-D ``values``."""
    count = -(-values.size // STRIP)
    filled = np.zeros(count * STRIP)
    filled[: values.size] = values
    strips = filled.reshape(count, ROW, ROW)
    rows = strips[:, 0]
    for place in range(1, ROW):
        rows = rows + strips[:, place]
    half = ROW // 2
    while half:
        rows = rows[:, :half] + rows[:, half : 2 * half]
        half //= 2
    return float(np.add.accumulate(np.concatenate(([total], rows[:, 0])))[-1])
