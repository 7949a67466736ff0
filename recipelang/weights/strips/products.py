"""Products of thin matrices in one order, whatever library is there: a BLAS adds in its own, which
differs between processors and with the number of rows, and its threads wait for those of others.

Example:
    >>> thin_product(np.ones((2, 3), np.float32), np.ones((3, 2), np.float32)).tolist()
    [[3.0, 3.0], [3.0, 3.0]]
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipelang.native import library

__all__ = ["thin_product"]


def thin_product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """``left (n, r)`` times ``right (r, m)``, both float32 or both float64: each number is the sum
    of r products in order, one rounding an operation; r is 1 at least."""
    native, (rows, rank), columns = library(), left.shape, right.shape[1]
    if native is None:
        out: NDArray[Any] = left[:, :1] * right[0]
        for i in range(1, rank):
            out += left[:, i : i + 1] * right[i]
        return out
    out = np.empty((rows, columns), left.dtype)
    left, right = np.ascontiguousarray(left), np.ascontiguousarray(right)
    product = native.f4_product if left.dtype == np.float32 else native.f8_product
    product(left.ctypes.data, right.ctypes.data, rows, rank, columns, out.ctypes.data)
    return out
