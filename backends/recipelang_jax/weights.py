"""Weight kernels on JAX: numpy's names over arrays of one device, and the way to it and back.

Operations run one at a time, not as one compiled program, so that each rounds as numpy's does and a
shape is compiled once whatever a tensor's numbers are. XLA moves host arrays through pinned buffers
of its own and without waiting; what has arrived is held to what was sent by the sum of its words,
and what it was made of is kept until then. Its CPU client counts numbers below 2^-126 as zero.

Example:
    >>> arrays = WeightArrays(jax.devices()[0])
    >>> with arrays.computing():
    ...     wide = arrays.widen(jnp.asarray([1.00390625], jnp.float32), np.dtype(np.float32))
    ...     print(arrays.narrow(wide, "BF16"))
    [1]
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from recipelang.weights.arrays import BUDGET_BYTES, ReadRange, pieces
from recipelang.weights.numbers import numpy_dtype
from recipelang.weights.proving import WrongNumbers
from recipelang_jax.arrays import Array, scoped, uniform_bits

__all__ = ["Namespace", "WeightArrays"]


class Namespace:
    """``jax.numpy``, with the random words of merges."""

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)

    def uniform_bits(self, key: tuple[int, int], start: int, stop: int) -> Array:
        """The words of the 64-bit indices ``[start, stop)``, uint32."""
        index = jnp.arange(start, stop, dtype=jnp.uint64)
        low, high = index.astype(jnp.uint32), (index >> 32).astype(jnp.uint32)
        return uniform_bits(jnp.asarray(key, jnp.uint32), low, high)


class WeightArrays:
    """:class:`recipelang.weights.arrays.Arrays` over the arrays of a device."""

    def __init__(self, device: jax.Device) -> None:
        self.device = device
        self.xp: Any = Namespace()

    @property
    def whole(self) -> bool:
        """A tensor is one block."""
        return True

    @property
    def proven(self) -> bool:
        """Not yet: large merges came out wrong on an H100 with jax 0.11."""
        return False

    @property
    def blocks_at_once(self) -> int:
        """A tensor is one block."""
        return 1

    @property
    def budget_bytes(self) -> int:
        """Four fifths of what XLA may still use; the host's budget where the device is the host."""
        found: dict[str, int] = self.device.memory_stats() or {}
        if "bytes_limit" not in found:
            return BUDGET_BYTES
        return (found["bytes_limit"] - found.get("bytes_in_use", 0)) * 4 // 5

    def load(self, read: ReadRange, dtype: str, start: int, stop: int) -> Array:
        """Stored elements, piece by piece. Raises WrongNumbers where others arrive."""
        size = numpy_dtype(dtype).itemsize
        parts: list[Array] = []
        sent = 0
        for first, last in pieces(start, stop, size):
            piece = read(first, last)
            sent += _words(piece)
            parts.append(jax.device_put(piece, self.device))
        there = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
        _compare(sent, _words_there(there), "to")
        return there

    def unload(self, stored: Array, dtype: str) -> Iterator[NDArray[Any]]:
        """Stored elements, piece by piece: the next is on its way while one is used. Raises
        WrongNumbers before the last where others have arrived."""
        there = _words_there(stored)
        arrived, before = 0, None
        for first, last in pieces(0, len(stored), numpy_dtype(dtype).itemsize):
            coming: Any = lax.dynamic_slice_in_dim(stored, first, last - first)
            coming.copy_to_host_async()
            if before is not None:
                here = np.asarray(before)
                arrived += _words(here)
                yield here
            before = coming
        if before is not None:
            here = np.asarray(before)
            _compare(arrived + _words(here), there, "from")
            yield here

    def fetch(self, stored: Array, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """A few elements on the host."""
        return np.asarray(lax.dynamic_slice_in_dim(stored, start, stop - start))

    def zeros(self, count: int, dtype: np.dtype[Any]) -> Array:
        """Wide zeros."""
        return jnp.zeros(count, dtype)

    def widen(self, stored: Array, to: np.dtype[Any]) -> Array:
        """Wide numbers; arrays cannot be written to, so this may be the stored one."""
        return stored.astype(to)

    def narrow(self, wide: Array, dtype: str) -> Array:
        """Rounded once."""
        if wide.dtype == jnp.float64 and dtype in ("BF16", "F16"):
            wide = _to_odd(wide)
        return wide.astype(numpy_dtype(dtype))

    def checked(self, stored: Array, dtype: str, failure: Callable[[], Exception]) -> Array:
        """Raises at once."""
        if not bool(jnp.isfinite(stored).all()):
            raise failure()
        return stored

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """64-bit types, full products, this device: of the thread, not of the process."""
        with (
            scoped("F64"),
            jax.default_device(self.device),
            jax.default_matmul_precision("highest"),
        ):
            yield


def _words(values: NDArray[Any]) -> int:
    """The sum of the elements' bits as unsigned integers, modulo 2^64."""
    return int(values.view(f"u{values.dtype.itemsize}").sum(dtype=np.uint64))


def _words_there(stored: Array) -> Array:
    """The same of a device's array, on the device."""
    with scoped("F64"):
        words = lax.bitcast_convert_type(stored, f"uint{8 * stored.dtype.itemsize}")
        return jnp.sum(words, dtype=jnp.uint64)


def _compare(here: int, there: Array, way: str) -> None:
    if here % 2**64 != int(there):
        raise WrongNumbers(f"numbers changed on their way {way} the device")


def _to_odd(wide: Array) -> Array:
    """float64 to float32 rounded to odd, after which the next rounding is the only one: see
    :mod:`recipelang.weights.numbers`."""
    near = wide.astype(jnp.float32)
    toward_zero = jnp.where(
        jnp.abs(near.astype(jnp.float64)) > jnp.abs(wide), jnp.nextafter(near, jnp.float32(0)), near
    )
    inexact = (toward_zero.astype(jnp.float64) != wide) & jnp.isfinite(wide)
    odd = lax.bitcast_convert_type(toward_zero, jnp.uint32) | inexact.astype(jnp.uint32)
    return lax.bitcast_convert_type(odd, jnp.float32)
