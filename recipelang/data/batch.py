"""Batches: what a backend is fed. Arrays are numpy, made on the host, equal for all backends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows of tokens. Every array has the shape (rows, length).

    ``tokens`` int32. ``segments`` int32: 0 is padding, 1, 2, ... the documents packed into the row;
    attention stays inside a segment. ``positions`` int32 restart at 0 in each document.
    ``supervised`` bool, aligned with the target: ``supervised[r, t]`` says that token t is
    predicted from the tokens before it in its document and counted; never true at the first token
    of a document or at padding. Padding is at the end of a row.
    """

    tokens: NDArray[np.int32]
    segments: NDArray[np.int32]
    positions: NDArray[np.int32]
    supervised: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.tokens.shape[0])

    def take(self, start: int, stop: int) -> Batch:
        """Rows ``[start, stop)``."""
        part = slice(start, stop)
        return Batch(
            self.tokens[part], self.segments[part], self.positions[part], self.supervised[part]
        )
