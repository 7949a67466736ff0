"""Statistics over tensors that are seen whole, by array code of any namespace.

They are what a device takes. No shape depends on a number, so JAX compiles each once. Sums are
taken in float64 in the library's own order, so they differ from the host's by float64's rounding;
k-th magnitudes are exact, lowest index first among equals.

Example:
    >>> import numpy as np
    >>> kth_magnitude(np, np.array([3, -1, 2, -3], np.float32), 2)
    Kth(threshold=3.0, last=3)
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

import numpy as np

from recipelang.weights.kernel import (
    Array,
    ColumnSums,
    Kth,
    KthMagnitude,
    Result,
    RowSums,
    Statistic,
    SumOf,
    SumsOf,
)

__all__ = ["kth_magnitude", "take"]


def take(xp: Any, statistic: Statistic, values: Any, shape: tuple[int, ...]) -> Result:
    """A statistic over the whole tensor of ``shape``, from its function's ``values``. Arrays come
    back on the host, as a kernel finds them there."""
    match statistic:
        case SumOf():
            return float(xp.sum(values, dtype=xp.float64))
        case SumsOf():
            return tuple(float(xp.sum(one, dtype=xp.float64)) for one in values)
        case RowSums():
            rows = values.reshape(-1, max(1, shape[-1]) if shape else 1)
            return np.array(xp.sum(rows, axis=1, dtype=xp.float64).tolist(), np.float64)
        case ColumnSums():
            rows = values.reshape(shape[0] if shape else 1, -1)
            return np.array(xp.sum(rows, axis=0, dtype=xp.float64).tolist(), np.float64)
        case KthMagnitude():
            return kth_magnitude(xp, values, statistic.k)


def kth_magnitude(xp: Any, values: Array, k: int) -> Kth:
    """The ``k``-th largest magnitude and the last index kept, exactly, ``1 <= k <= len(values)``.

    Magnitudes order as their bit patterns do, so the threshold is found bit by bit: 31 passes of
    comparing and counting (63 in float64) that hold one byte an element; a device's sort of the
    whole holds twelve and more, and is slower.
    """
    magnitudes = xp.abs(values)
    bits = np.dtype(np.int64 if values.dtype == xp.float64 else np.int32)

    def count(mask: Array) -> int:
        return int(xp.count_nonzero(mask))

    low, high = 0, _bits_of(inf, bits) + 1
    if count(magnitudes >= 0.0) < k:
        return Kth(nan, -1)  # NaN among them: nothing is kept, and who reads the tensor complains
    while high - low > 1:
        middle = (low + high) // 2
        if count(magnitudes >= _float_of(middle, bits)) >= k:
            low = middle
        else:
            high = middle
    threshold = _float_of(low, bits)
    need = k - count(magnitudes > threshold)
    equal = magnitudes == threshold
    if need == count(equal):
        return Kth(threshold, len(values) - 1)
    places = xp.cumsum(xp.astype(equal, xp.int32), axis=0, dtype=xp.int32)
    return Kth(threshold, int(xp.searchsorted(places, need)))


def _float_of(pattern: int, bits: np.dtype[Any]) -> float:
    return float(np.array([pattern], bits).view(f"f{bits.itemsize}")[0])


def _bits_of(number: float, bits: np.dtype[Any]) -> int:
    return int(np.array([number], f"f{bits.itemsize}").view(bits)[0])
