"""Statistics over a tensor that is seen block by block: sums in float64, exact k-th magnitudes.

A k-th magnitude takes one pass where a sample brackets it well, which it nearly always does: what
is above the bracket is counted, what is inside is kept and selected from. Otherwise it falls back
to counting by digits of the bit pattern, which takes two passes more (four for float64). The answer
is exact either way.

Example:
    >>> import numpy as np
    >>> values = np.array([3, -1, 2, -3], np.float32)
    >>> one = KthAccumulator(KthMagnitude(lambda xp, inputs, block: inputs, 2), 4, None)
    >>> one.add(0, values)
    >>> one.end_pass(lambda block: values)
    >>> one.result
    Kth(threshold=3.0, last=3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isnan, prod, sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recipelang.weights.kernel import (
    ColumnSums,
    Kth,
    KthMagnitude,
    Result,
    RowSums,
    Statistic,
    SumOf,
    SumsOf,
)
from recipelang.weights.sums import added

__all__ = [
    "Accumulator",
    "ColumnAccumulator",
    "KthAccumulator",
    "RowAccumulator",
    "SumAccumulator",
    "accumulator",
]

Floats: TypeAlias = "NDArray[Any]"
SIGMAS = 6
"""Half the width of the bracket, in standard deviations of a rank in the sample."""
KEEP_ALL = 1 << 20
"""Tensors of at most this many elements are kept whole."""


class SumAccumulator:
    """One sum, or several that share work. ``totals`` are those of the blocks so far."""

    def __init__(self, statistic: SumOf | SumsOf) -> None:
        self.value = statistic.value
        self.single = isinstance(statistic, SumOf)
        self.result: Result | None = None
        self.totals: list[float] = []

    def terms(self, values: Any) -> Iterable[Any]:
        """What each sum is taken of, from what ``value`` gave."""
        return (values,) if self.single else values

    def add(self, start: int, values: Any) -> None:
        """Take the next block's values of every sum."""
        found = enumerate(self.terms(values))
        self.totals = [added(self.totals[i] if self.totals else 0.0, v) for i, v in found]

    def end_pass(self, again: Callable[[int], Floats]) -> None:
        """The pass is over."""
        totals = tuple(self.totals)
        self.result = (totals[0] if totals else 0.0) if self.single else totals


class RowAccumulator:
    """The sums of the rows of the last axis, in float64."""

    def __init__(self, statistic: RowSums, shape: tuple[int, ...]) -> None:
        self.value = statistic.value
        self.result: Result | None = None
        self._row = max(1, shape[-1]) if shape else 1
        self._rows = np.zeros(prod(shape) // self._row)

    def add(self, start: int, values: Floats) -> None:
        """Take the next block's values, whole rows of the last axis."""
        rows = values.reshape(-1, self._row).sum(axis=1, dtype=np.float64)
        first = start // self._row
        self._rows[first : first + len(rows)] = rows

    def end_pass(self, again: Callable[[int], Floats]) -> None:
        """The pass is over."""
        self.result = self._rows


class ColumnAccumulator:
    """The sums over the first axis, block after block in order, in float64."""

    def __init__(self, statistic: ColumnSums, shape: tuple[int, ...]) -> None:
        self.value = statistic.value
        self.result: Result | None = None
        self._row = shape[-1] if len(shape) > 1 else 1
        self._columns = np.zeros((prod(shape[1:]) // self._row, self._row))

    def add(self, start: int, values: Floats) -> None:
        """Take the next block's values, whole rows of the last axis."""
        rows = values.reshape(-1, self._row)
        if len(self._columns) == 1:
            self._columns[0] += rows.sum(axis=0, dtype=np.float64)
        else:
            places = (start // self._row + np.arange(len(rows))) % len(self._columns)
            np.add.at(self._columns, places, rows.astype(np.float64))

    def end_pass(self, again: Callable[[int], Floats]) -> None:
        """The pass is over."""
        self.result = self._columns.reshape(-1)


class KthAccumulator:
    """The k-th largest magnitude, lowest index first among equals. ``sample`` holds some
    magnitudes.

    ``again(i)`` of :meth:`end_pass` gives the values of the i-th block once more.
    """

    def __init__(self, statistic: KthMagnitude, elements: int, sample: Floats | None) -> None:
        self.value, self.k, self.elements = statistic.value, statistic.k, elements
        self.result: Result | None = None
        self._low, self._high = _bracket(sample, self.k / elements)
        self._starts: list[int] = []
        self._inside: list[Floats] = []
        self._above = self._kept = 0
        self._limit = max(elements // 4, KEEP_ALL)
        self._digits: _Digits | None = None

    @property
    def bracket(self) -> tuple[float, float] | None:
        """What magnitudes are to be compared with, None where they are counted by digits."""
        return None if self._digits is not None else (self._low, self._high)

    def add(self, start: int, values: Floats) -> None:
        """Take the next block's values."""
        magnitudes = np.abs(values)
        if self._digits is not None:
            self._starts.append(start)
            self._digits.add(magnitudes)
        elif self._kept <= self._limit:
            # Comparing and counting is nearly free; taking elements by a mask is not.
            above = magnitudes > self._high
            inside = magnitudes >= self._low
            inside ^= above  # what is above the bracket is also above its lower end
            self.add_compared(start, int(np.count_nonzero(above)), magnitudes[inside])

    def add_compared(self, start: int, above: int, inside: Floats) -> None:
        """Take the next block's: how many magnitudes are above the bracket, and those inside."""
        self._starts.append(start)
        self._above += above
        self._kept += inside.size
        if self._kept <= self._limit:
            self._inside.append(inside)

    def end_pass(self, again: Callable[[int], Floats]) -> None:
        """The pass is over: the result is there, or one more pass is needed."""
        if self._digits is None:
            self._select(again)
            if self.result is None:
                self._inside.clear()
                self._digits = _Digits(self.k)
        elif self._digits.end_pass():
            threshold, need = self._digits.threshold, self._digits.need
            self.result = self._locate(threshold, need, self._digits.equal, again)
        self._starts = self._starts if self.result else []

    def _select(self, again: Callable[[int], Floats]) -> None:
        if self._kept > self._limit:
            return
        rank = self.k - self._above
        if 1 <= rank <= self._kept:
            values = np.concatenate(self._inside)
            place = values.size - rank
            values.partition(place)
            threshold = float(values[place])
            need = rank - int(np.count_nonzero(values > threshold))
            equal = [int(np.count_nonzero(part == threshold)) for part in self._inside]
            self.result = self._locate(threshold, need, equal, again)

    def _locate(
        self, threshold: float, need: int, equal: list[int], again: Callable[[int], Floats]
    ) -> Kth:
        """The place of the ``need``-th element that equals the threshold, by each block's count of
        them."""
        if isnan(threshold):
            return Kth(threshold, -1)  # nothing compares with it; who reads the tensor complains
        for block, count in enumerate(equal):
            if need <= count:
                places = np.flatnonzero(np.abs(again(block)) == threshold)
                return Kth(float(threshold), self._starts[block] + int(places[need - 1]))
            need -= count
        raise AssertionError("fewer equal elements than were counted")


class _Digits:
    """Counting by 16-bit digits of the bit pattern, from the top: magnitudes order as their bits
    do."""

    def __init__(self, k: int) -> None:
        self.need, self.threshold = k, 0.0
        self.equal: list[int] = []
        self._prefix, self._shift = 0, -1
        self._counts = np.zeros(1 << 16, np.int64)
        self._dtype: np.dtype[Any] | None = None

    def add(self, magnitudes: Floats) -> None:
        if self._dtype is None:
            self._dtype = magnitudes.dtype
            self._shift = magnitudes.dtype.itemsize * 8 - 16
        bits = magnitudes.view(f"u{magnitudes.dtype.itemsize}")
        if self._shift < 0:
            self.equal.append(int(np.count_nonzero(bits == self._prefix)))
            return
        width = magnitudes.dtype.itemsize * 8
        if self._shift + 16 < width:
            bits = bits[(bits >> (self._shift + 16)) == self._prefix]
        digit = ((bits >> self._shift) & 0xFFFF).astype(np.intp)
        self._counts += np.bincount(digit, minlength=1 << 16)

    def end_pass(self) -> bool:
        """Fix one digit; True when the threshold is whole and its equals are counted."""
        if self._shift < 0:
            return True
        from_top = np.cumsum(self._counts[::-1])
        place = int(np.searchsorted(from_top, self.need))
        if place:
            self.need -= int(from_top[place - 1])
        self._prefix = self._prefix << 16 | (0xFFFF - place)
        self._shift -= 16
        self._counts[:] = 0
        if self._shift < 0:
            assert self._dtype is not None
            whole = np.array([self._prefix], f"u{self._dtype.itemsize}").view(self._dtype)
            self.threshold = float(whole[0])
        return False


Accumulator: TypeAlias = "SumAccumulator | RowAccumulator | ColumnAccumulator | KthAccumulator"


def accumulator(statistic: Statistic, shape: tuple[int, ...], sample: Floats | None) -> Accumulator:
    """What collects a statistic over a tensor of this shape."""
    match statistic:
        case SumOf() | SumsOf():
            return SumAccumulator(statistic)
        case RowSums():
            return RowAccumulator(statistic, shape)
        case ColumnSums():
            return ColumnAccumulator(statistic, shape)
        case KthMagnitude():
            return KthAccumulator(statistic, prod(shape), sample)


def _bracket(sample: Floats | None, share: float) -> tuple[float, float]:
    """Magnitudes between which the k-th one is likely to be; everything without a sample."""
    if sample is None or sample.size == 0:
        return -1.0, float("inf")
    ordered = np.sort(np.abs(sample))[::-1]
    margin = SIGMAS * sqrt(share * (1 - share) * ordered.size) + 1
    high, low = int(share * ordered.size - margin), int(share * ordered.size + margin)
    return (
        float(ordered[low]) if low < ordered.size else -1.0,
        float(ordered[high]) if high > 0 else float("inf"),
    )
