"""The host's arrays, computed strip by strip by the compiled library.

Example:
    >>> host() is HOST or host() is STRIPS
    True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipelang.weights.arrays import BUDGET_BYTES, HOST, Arrays, ReadRange
from recipelang.weights.kernel import Array
from recipelang.weights.numbers import FLOATS, narrow, numpy_dtype
from recipelang.weights.strips.lazy import XP, Lazy, checked, concrete, convert, converts
from recipelang.weights.strips.program import Program, operations

__all__ = ["STRIPS", "StripArrays", "host"]


@dataclass(frozen=True, slots=True)
class StripArrays:
    """Blocks are lazy where something is computed, and numpy's as they are read. Noting what is
    asked for costs as much whatever a block's size, so a block is as large as several of
    numpy's."""

    xp: Any = XP
    whole: bool = False
    proven: bool = True
    budget_bytes: int = BUDGET_BYTES
    blocks_at_once: int = 16

    def load(self, read: ReadRange, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """What was read."""
        return read(start, stop)

    def unload(self, stored: Array, dtype: str) -> Iterator[NDArray[Any]]:
        """The array, computed now."""
        yield concrete(stored)

    def fetch(self, stored: Array, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """These elements alone."""
        if isinstance(stored, Lazy) and stored.value is None:
            return Program((stored,)).run(stop, start).values[0]
        found: NDArray[Any] = concrete(stored)[start:stop]
        return found

    def zeros(self, count: int, dtype: np.dtype[Any]) -> Array:
        """Noted alone."""
        return XP.zeros(count, dtype)

    def widen(self, stored: Array, to: np.dtype[Any]) -> Array:
        """See :func:`recipelang.weights.numbers.widen`."""
        return convert(stored, to)

    def narrow(self, wide: Array, dtype: str) -> Array:
        """See :func:`recipelang.weights.numbers.narrow`."""
        wanted = numpy_dtype(dtype)
        if wide.dtype == wanted or (isinstance(wide, Lazy) and converts(wide.dtype, wanted)):
            return convert(wide, wanted)
        return narrow(concrete(wide), dtype)

    def checked(self, stored: Array, dtype: str, failure: Callable[[], Exception]) -> Array:
        """Raises when it is computed."""
        return checked(stored, failure) if dtype in FLOATS else stored

    def computing(self) -> AbstractContextManager[None]:
        """Nothing to set."""
        return nullcontext()


STRIPS: Arrays = StripArrays()


def host() -> Arrays:
    """Where kernels run on the host: strip by strip with the compiled library, else on numpy."""
    return STRIPS if operations() else HOST
