"""Sums of many numbers in float64, in one order that is written down, so that they have the same
bits wherever they are taken: on numpy, or by the compiled library.

Numbers go in strips of 1,024 (the last one filled up with zeros). A strip is folded by halves:
element i and element i + 512 are added, then i and i + 256, and so on. The strips' sums are added
in order. Strips begin anew with each block of a tensor.

Example:
    >>> added(0.5, np.ones(3, np.float32))
    3.5
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRIP", "added"]

STRIP = 1024


def added(total: float, values: NDArray[Any]) -> float:
    """``total`` and the 1-D ``values``."""
    count = -(-values.size // STRIP)
    filled = np.zeros(count * STRIP)
    filled[: values.size] = values
    strips = filled.reshape(count, STRIP)
    half = STRIP // 2
    while half:
        strips = strips[:, :half] + strips[:, half : 2 * half]
        half //= 2
    return float(np.add.accumulate(np.concatenate(([total], strips[:, 0])))[-1])
