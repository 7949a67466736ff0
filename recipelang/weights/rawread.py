"""Reads ranges of tensors from files by ``pread``: mapped pages would count as resident memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recipelang.diagnostics import fault
from recipelang.weights.numbers import numpy_dtype
from recipelang.weights.safetensors import Entry, open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_bytes", "read_elements"]

ALONE = "leave inputs alone while a recipe runs, and run it again"


def read_elements(
    file: Path, entry: Entry, start: int = 0, stop: int | None = None
) -> NDArray[np.generic]:
    """Elements ``[start, stop)`` of a tensor, 1-D, in the stored dtype."""
    dtype = numpy_dtype(entry.info.dtype)
    stop = entry.info.elements if stop is None else stop
    first = entry.start + start * dtype.itemsize
    buffer = np.empty((stop - start) * dtype.itemsize, np.uint8)
    read_bytes(file, first, buffer)
    return buffer.view(dtype)


def read_bytes(file: Path, offset: int, into: NDArray[np.uint8]) -> None:
    """Fill a byte array from a file. Raises RecipeError E0735 when the file has become shorter."""
    descriptor = open_regular(file, "E0735")
    try:
        view, done = memoryview(into.data), 0
        while done < len(view):
            count = os.preadv(descriptor, [view[done:]], offset + done)
            if count == 0:
                raise fault(
                    "E0735",
                    f"`{file}` ends at byte {offset + done}, it changed while it was read",
                    help=ALONE,
                )
            done += count
    except OSError as error:
        raise fault("E0735", f"cannot read `{file}`: {error.strerror}", help=ALONE) from None
    finally:
        os.close(descriptor)
