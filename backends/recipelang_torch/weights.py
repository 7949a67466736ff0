"""Weight kernels on torch: numpy's names over tensors of one device, and the way to it and back.

To and from a CUDA device the stored bytes go through pinned buffers, two in turn, on a stream that
belongs to the thread: reading a piece, moving the one before and computing another thread's tensor
overlap.

Example:
    >>> arrays = WeightArrays(torch.device("cpu"))
    >>> wide = arrays.widen(torch.tensor([1.00390625]), np.dtype(np.float32))
    >>> arrays.narrow(wide, "BF16")
    tensor([1.], dtype=torch.bfloat16)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recipelang.weights.arrays import BUDGET_BYTES, PIECE_BYTES, ReadRange, pieces
from recipelang.weights.numbers import numpy_dtype
from recipelang_torch.arrays import DTYPES, uniform_bits

__all__ = ["Namespace", "WeightArrays"]


class Namespace:
    """numpy's names on one device. What torch has under the same name and meaning is torch's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.arange: Any = partial(torch.arange, device=device)
        self.zeros: Any = partial(torch.zeros, device=device)
        self.ones: Any = partial(torch.ones, device=device)
        self.asarray: Any = partial(torch.as_tensor, device=device)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def astype(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """A copy, as numpy's."""
        return x.to(dtype, copy=True)

    def maximum(self, a: Any, b: Any) -> torch.Tensor:
        """Of arrays, or of an array and a number."""
        return torch.maximum(*_both(a, b))

    def minimum(self, a: Any, b: Any) -> torch.Tensor:
        """Of arrays, or of an array and a number."""
        return torch.minimum(*_both(a, b))

    def max(self, x: torch.Tensor, axis: int | None = None, keepdims: bool = False) -> torch.Tensor:
        """The largest values, without their places."""
        return torch.amax(x, dim=() if axis is None else axis, keepdim=keepdims)

    def min(self, x: torch.Tensor, axis: int | None = None, keepdims: bool = False) -> torch.Tensor:
        """The smallest values, without their places."""
        return torch.amin(x, dim=() if axis is None else axis, keepdim=keepdims)

    def sort(self, x: torch.Tensor, axis: int = -1) -> torch.Tensor:
        """The sorted values, without their places."""
        return torch.sort(x, dim=axis).values

    def argsort(self, x: torch.Tensor, axis: int = -1, stable: bool = False) -> torch.Tensor:
        """The places in sorted order."""
        return torch.argsort(x, dim=axis, stable=stable)

    def nonzero(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The places that are not zero, one array an axis."""
        return torch.nonzero(x, as_tuple=True)

    def searchsorted(
        self, a: torch.Tensor, v: torch.Tensor, side: str = "left"
    ) -> torch.Tensor:  # fmt: skip
        """Where values would go in a sorted array."""
        return torch.searchsorted(a, v, side=side)

    def uniform_bits(self, key: tuple[int, int], start: int, stop: int) -> torch.Tensor:
        """The words of the 64-bit indices ``[start, stop)``, as int64 that hold 32 bits."""
        index = self.arange(start, stop, dtype=torch.int64)
        return uniform_bits(key, index & 0xFFFFFFFF, index >> 32)


def _both(a: Any, b: Any) -> tuple[torch.Tensor, torch.Tensor]:
    like: torch.Tensor = a if isinstance(a, torch.Tensor) else b
    dtype = torch.result_type(a, b)
    return (
        torch.as_tensor(a, dtype=dtype, device=like.device),
        torch.as_tensor(b, dtype=dtype, device=like.device),
    )


def _event() -> torch.cuda.Event:
    make: Any = torch.cuda.Event
    event: torch.cuda.Event = make()
    return event


class _Pinned:
    """Two pinned buffers of a thread, and for each the event behind its last transfer."""

    def __init__(self) -> None:
        self._buffers = [torch.empty(PIECE_BYTES, dtype=torch.uint8).pin_memory() for _ in "ab"]
        self._events = [_event() for _ in "ab"]
        self._next = 0

    def put(self, raw: NDArray[np.uint8], into: torch.Tensor) -> None:
        """Start the transfer of these bytes to the device."""
        buffer, event = self._turn()
        part = buffer[: raw.size]
        np.copyto(part.numpy(), raw)
        into.copy_(part, non_blocking=True)
        event.record()

    def get(self, raw: torch.Tensor) -> tuple[NDArray[np.uint8], torch.cuda.Event]:
        """Start the transfer of these bytes to the host: they are there after the event."""
        buffer, event = self._turn()
        part = buffer[: len(raw)]
        part.copy_(raw, non_blocking=True)
        event.record()
        return part.numpy(), event

    def _turn(self) -> tuple[torch.Tensor, torch.cuda.Event]:
        self._next ^= 1
        event = self._events[self._next]
        event.synchronize()
        return self._buffers[self._next], event


class WeightArrays:
    """:class:`recipelang.weights.arrays.Arrays` over the tensors of a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.xp: Any = Namespace(device)
        self._own = threading.local()

    @property
    def whole(self) -> bool:
        """A tensor is one block."""
        return True

    @property
    def proven(self) -> bool:
        """Every merge was held to the host's numbers, on an H100 too."""
        return True

    @property
    def blocks_at_once(self) -> int:
        """A tensor is one block."""
        return 1

    @property
    def budget_bytes(self) -> int:
        """Four fifths of what is free now; the host's budget where the device is the host."""
        if self.device.type != "cuda":
            return BUDGET_BYTES
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return (torch.cuda.mem_get_info(self.device)[0] + kept) * 4 // 5

    def load(self, read: ReadRange, dtype: str, start: int, stop: int) -> torch.Tensor:
        """Stored elements, piece by piece."""
        stored = torch.empty(stop - start, dtype=DTYPES[dtype], device=self.device)
        into, size = stored.view(torch.uint8), stored.element_size()
        for first, last in pieces(start, stop, size):
            raw: Any = np.ascontiguousarray(read(first, last)).view(np.uint8)
            part = into[(first - start) * size : (last - start) * size]
            if self.device.type == "cuda":
                self._pinned.put(raw, part)
            else:
                np.copyto(part.numpy(), raw)
        return stored

    def unload(self, stored: torch.Tensor, dtype: str) -> Iterator[NDArray[Any]]:
        """Stored elements, piece by piece: the next is on its way while one is used."""
        raw = stored.contiguous().view(torch.uint8)
        if self.device.type != "cuda":
            yield raw.numpy().view(numpy_dtype(dtype))
            return
        before: tuple[NDArray[np.uint8], torch.cuda.Event] | None = None
        for first, last in pieces(0, len(raw), 1):
            coming = self._pinned.get(raw[first:last])
            if before is not None:
                before[1].synchronize()
                yield before[0].view(numpy_dtype(dtype))
            before = coming
        if before is not None:
            before[1].synchronize()
            yield before[0].view(numpy_dtype(dtype))

    def fetch(self, stored: torch.Tensor, dtype: str, start: int, stop: int) -> NDArray[Any]:
        """A few elements on the host."""
        raw: NDArray[Any] = stored[start:stop].view(torch.uint8).cpu().numpy()
        return raw.view(numpy_dtype(dtype))

    def zeros(self, count: int, dtype: np.dtype[Any]) -> torch.Tensor:
        """Wide zeros."""
        return torch.zeros(count, dtype=_WIDE[dtype.name], device=self.device)

    def widen(self, stored: torch.Tensor, to: np.dtype[Any]) -> torch.Tensor:
        """A wide copy."""
        return stored.to(_WIDE[to.name], copy=True)

    def narrow(self, wide: torch.Tensor, dtype: str) -> torch.Tensor:
        """Rounded once."""
        if wide.dtype == torch.float64 and dtype in ("BF16", "F16"):
            wide = _to_odd(wide)
        return wide.to(DTYPES[dtype])

    def checked(
        self, stored: torch.Tensor, dtype: str, failure: Callable[[], Exception]
    ) -> torch.Tensor:
        """Raises at once."""
        if not bool(torch.isfinite(stored).all()):
            raise failure()
        return stored

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients; on CUDA the thread's own stream, whose work is done at the end."""
        with torch.inference_mode():
            if self.device.type != "cuda":
                yield
                return
            if not hasattr(self._own, "stream"):
                stream: Any = torch.cuda.Stream
                self._own.stream = stream(self.device)
            with torch.cuda.stream(self._own.stream):
                yield
            self._own.stream.synchronize()

    @property
    def _pinned(self) -> _Pinned:
        if not hasattr(self._own, "pinned"):
            self._own.pinned = _Pinned()
        pinned: _Pinned = self._own.pinned
        return pinned


_WIDE: Mapping[str, torch.dtype] = {"float32": torch.float32, "float64": torch.float64}


def _to_odd(wide: torch.Tensor) -> torch.Tensor:
    """float64 to float32 rounded to odd, after which the next rounding is the only one: see
    :mod:`recipelang.weights.numbers`. torch itself goes from float64 to 16 bits by way of a float32
    rounded to nearest."""
    near = wide.to(torch.float32)
    toward_zero = torch.where(
        near.to(torch.float64).abs() > wide.abs(), torch.nextafter(near, torch.zeros_like(near)),
        near,
    )  # fmt: skip
    inexact = (toward_zero.to(torch.float64) != wide) & torch.isfinite(wide)
    odd = toward_zero.view(torch.int32) | inexact.to(torch.int32)
    return odd.view(torch.float32)
