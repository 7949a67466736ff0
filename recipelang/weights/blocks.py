"""How a tensor is cut: by its shape alone, so that sums run in one order wherever they are taken.

Example:
    >>> [(block.start, block.stop) for block in blocks_of(TensorInfo("F32", (3, 2)))]
    [(0, 6)]
"""

from __future__ import annotations

from collections.abc import Iterator

from recipelang.types import TensorInfo
from recipelang.weights.kernel import Block, Ranges

__all__ = ["BLOCK_ELEMENTS", "block_rows", "blocks_of", "row_ranges"]

BLOCK_ELEMENTS = 1 << 17
"""A block of float32 is 512 KiB. Smaller ones stay in a core's own cache, but Python's share, and
two threads' waiting for one another between operations, weigh more: with 2^14 elements a merge of
three task vectors took twice the wall time, with 2^16 15 to 25 % more, with 2^18 as much as now."""
RANGE_BLOCKS = 16
"""A matrix kernel reads so many blocks at a time: products of a few rows would wait for memory."""


def blocks_of(
    info: TensorInfo, start: int = 0, stop: int | None = None, at_once: int = 1
) -> Iterator[Block]:
    """The tensor's blocks, or those that hold any of the elements ``[start, stop)``: whole rows of
    the last axis, one at least; so many ``at_once``."""
    row = max(1, info.shape[-1]) if info.shape else 1
    size = max(1, BLOCK_ELEMENTS // row) * row * at_once
    for at in range(start // size * size, info.elements if stop is None else stop, size):
        yield Block(at, min(at + size, info.elements), info.shape)


def block_rows(columns: int) -> int:
    """How many rows of so many columns a block has."""
    return max(1, BLOCK_ELEMENTS // max(1, columns))


def row_ranges(info: TensorInfo) -> Ranges:
    """Ranges of whole blocks that cover a matrix."""
    rows, columns = info.shape
    step = RANGE_BLOCKS * block_rows(columns)
    return tuple((first, min(first + step, rows)) for first in range(0, rows, step))
