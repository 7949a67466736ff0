"""The order of the data: a pure function of the draws, the epoch and the step.

Each epoch is a permutation of the rows of its own; the epochs follow each other without a gap, and
step t takes positions [t batch, (t + 1) batch) of that stream. So a resumed run needs no state but
the step.

Example:
    >>> steps_of(rows=10, batch=4, epochs=1.0)
    3
    >>> [len(rows_at("00", rows=10, batch=4, step=t, total=10)) for t in range(3)]
    [4, 4, 2]
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from recipelang.data.draws import permutation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["rows_at", "rows_in", "steps_of"]


def rows_in(rows: int, epochs: float) -> int:
    """How many rows so many passes see; at least one."""
    return max(1, round(rows * epochs))


def steps_of(rows: int, batch: int, epochs: float) -> int:
    """The number of optimiser steps of so many passes; the last batch may be smaller."""
    return ceil(rows_in(rows, epochs) / batch)


@lru_cache(maxsize=4)
def _epoch(draws: str, epoch: int, rows: int) -> NDArray[np.int64]:
    return permutation(draws, "order", epoch, rows)


def rows_at(
    draws: str, *, rows: int, batch: int, step: int, total: int | None = None
) -> NDArray[np.int64]:
    """The rows of a step (0-based), at most ``batch``: fewer only at the end of a stream of
    ``total`` rows.
    """
    import numpy as np

    stop = (step + 1) * batch if total is None else min((step + 1) * batch, total)
    places = range(step * batch, stop)
    return np.array([_epoch(draws, p // rows, rows)[p % rows] for p in places], np.int64)
