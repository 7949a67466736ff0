"""Where weight kernels compute: on the host's processors, or on a device of a backend.

On the host a tensor is cut into blocks that stay in cache; on a device it is one block, because
there a launch costs more than a cache saves. ``stored`` arrays below hold numbers in the stored
dtype, ``wide`` ones float32 or float64; both are 1-D arrays of the namespace ``xp``.

Example:
    >>> import numpy as np
    >>> HOST.narrow(np.array([1.00390625], np.float32), "BF16").astype(np.float32)
    array([1.], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from recipelang.weights.kernel import Array
from recipelang.weights.numbers import all_finite, narrow, widen

__all__ = ["BUDGET_BYTES", "HOST", "PIECE_BYTES", "Arrays", "HostArrays", "ReadRange", "pieces"]

BUDGET_BYTES = 512 << 20
"""What a region holds in the host's memory at a time."""
PIECE_BYTES = 8 << 20
"""Transfers to and from a device go in pieces of so many bytes, so that reading the next piece
overlaps the transfer of this one, and host memory stays small whatever the tensor's size."""

ReadRange = Callable[[int, int], NDArray[Any]]
"""``read(start, stop)``: these stored elements of a tensor, 1-D."""


class Arrays(Protocol):
    """The arrays of one place."""

    @property
    def xp(self) -> Any:
        """The namespace that kernels get, see :mod:`recipelang.weights.kernel`."""
        ...

    @property
    def whole(self) -> bool:
        """Whether a tensor is one block, as on a device."""
        ...

    @property
    def proven(self) -> bool:
        """Whether its numbers are taken as they come. Where not, the first tensor of each kind is
        computed on the host too, see :mod:`recipelang.weights.proving`."""
        ...

    @property
    def budget_bytes(self) -> int:
        """What a region may hold here at a time."""
        ...

    @property
    def blocks_at_once(self) -> int:
        """How many of numpy's blocks are one here, where a tensor is not."""
        ...

    def load(self, read: ReadRange, dtype: str, start: int, stop: int) -> Array:
        """Elements ``[start, stop)`` brought here as they are stored: no byte more is moved."""
        ...

    def unload(self, stored: Array, dtype: str) -> Iterator[NDArray[Any]]:
        """The elements on the host, in order; each part is valid until the next is asked for."""
        ...

    def fetch(self, stored: Array, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """A few elements on the host."""
        ...

    def zeros(self, count: int, dtype: np.dtype[Any]) -> Array:
        """Wide zeros."""
        ...

    def widen(self, stored: Array, to: np.dtype[Any]) -> Array:
        """A wide copy, as :func:`recipelang.weights.numbers.widen` gives it."""
        ...

    def narrow(self, wide: Array, dtype: str) -> Array:
        """Rounded once to nearest, ties to even, as :func:`recipelang.weights.numbers.narrow`
        rounds."""
        ...

    def checked(self, stored: Array, dtype: str, failure: Callable[[], Exception]) -> Array:
        """The same numbers. ``failure()`` is raised, here or where what follows from them is
        computed, if one is an infinity or NaN."""
        ...

    def computing(self) -> AbstractContextManager[None]:
        """What a thread is in while it uses these arrays."""
        ...


@dataclass(frozen=True, slots=True)
class HostArrays:
    """numpy, block by block."""

    xp: Any = np
    whole: bool = False
    proven: bool = True
    budget_bytes: int = BUDGET_BYTES
    blocks_at_once: int = 1

    def load(self, read: ReadRange, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """What was read."""
        return read(start, stop)

    def unload(self, stored: NDArray[Any], dtype: str) -> Iterator[NDArray[Any]]:
        """The array itself."""
        yield stored

    def fetch(self, stored: NDArray[Any], dtype: str, start: int, stop: int) -> NDArray[Any]:
        """A view of them."""
        return stored[start:stop]

    def zeros(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """numpy's."""
        return np.zeros(count, dtype)

    def widen(self, stored: NDArray[Any], to: np.dtype[Any]) -> NDArray[Any]:
        """See :func:`recipelang.weights.numbers.widen`."""
        return widen(stored, to)

    def narrow(self, wide: NDArray[Any], dtype: str) -> NDArray[Any]:
        """See :func:`recipelang.weights.numbers.narrow`."""
        return narrow(wide, dtype)

    def checked(
        self, stored: NDArray[Any], dtype: str, failure: Callable[[], Exception]
    ) -> NDArray[Any]:
        """Raises at once."""
        if not all_finite(stored, dtype):
            raise failure()
        return stored

    def computing(self) -> AbstractContextManager[None]:
        """Nothing to set."""
        return nullcontext()


HOST: Arrays = HostArrays()


def pieces(start: int, stop: int, itemsize: int) -> Iterator[tuple[int, int]]:
    """The ranges of at most :data:`PIECE_BYTES` that ``[start, stop)`` is moved in.

    >>> list(pieces(5, 7, 2))
    [(5, 7)]
    """
    step = max(1, PIECE_BYTES // itemsize)
    for first in range(start, stop, step):
        yield first, min(first + step, stop)
