"""Puts the rows of a tensor into another order, block by block.

Rows come from ranges of whatever gives a tensor: a range of neighbours is asked for at once.

Example:
    >>> import numpy as np
    >>> from recipelang.weights.rows import RowMap
    >>> table = np.arange(8.0).reshape(4, 2)
    >>> never = np.zeros(3, bool)
    >>> back = RowMap(np.array([3, 2, 0]), (), never, np.arange(3))
    >>> aligned_rows(back, [lambda rows: table[rows]], 0, 3, dtype="F64", columns=2, mean=None)
    array([[6., 7.],
           [4., 5.],
           [0., 1.]])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recipelang.types import TensorInfo
from recipelang.weights.embeddings import rows_of
from recipelang.weights.numbers import narrow, numpy_dtype, widen
from recipelang.weights.rows import RowMap, Rows, runs

__all__ = [
    "Gather",
    "aligned_rows",
    "by_ranges",
    "columns_of",
    "mean_row",
]

Gather: TypeAlias = Callable[[Rows], NDArray[Any]]
"""Row numbers -> those rows in the stored dtype, of shape (rows, columns)."""
F64 = np.dtype(np.float64)


def by_ranges(read: Callable[[int, int], NDArray[Any]], rows: Rows, columns: int) -> NDArray[Any]:
    """The rows of a tensor of which ``read`` gives elements ``[start, stop)``."""
    parts = [read(first * columns, (first + count) * columns) for _, first, count in runs(rows)]
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return whole.reshape(rows.size, columns)


def aligned_rows(
    rows: RowMap, sources: Sequence[Gather], first: int, last: int, *, dtype: str, columns: int,
    mean: NDArray[Any] | None,
) -> NDArray[Any]:  # fmt: skip
    """Rows ``[first, last)`` of an aligned tensor, in its stored dtype (a safetensors name).

    ``sources`` give the model's own rows and those of the donors, in order; padding takes ``mean``
    (zeros while that is not known).
    """
    own = rows.own[first:last]
    has = own >= 0
    if has.all():
        return sources[0](own)
    result = np.zeros((last - first, columns), numpy_dtype(dtype))
    if has.any():
        result[has] = sources[0](own[has])
    total = np.full(result.shape, -0.0)  # which any number, also -0.0, is added to without change
    count = np.zeros(last - first, np.int64)
    for (_, taken), source in zip(rows.donors, sources[1:], strict=True):
        places = np.flatnonzero(taken[first:last] >= 0)
        if places.size:
            total[places] += widen(source(taken[first:last][places]), F64)
            count[places] += 1
    filled = count > 0
    result[filled] = narrow(total[filled] / count[filled, None], dtype)
    if mean is not None:
        result[rows.padding[first:last]] = mean
    return result


def mean_row(
    rows: RowMap, part: Callable[[int, int], NDArray[Any]], step: int, *, dtype: str, columns: int
) -> NDArray[Any]:
    """The mean of the rows that stand for a token, of a tensor whose rows ``[first, last)`` are
    given by ``part``; taken in float64, ``step`` rows at a time."""
    total = np.zeros(columns)
    is_token = np.zeros(rows.own.size, np.bool_)
    is_token[rows.tokens] = True
    for first in range(0, rows.own.size, step):
        last = min(first + step, rows.own.size)
        total += widen(part(first, last), F64)[is_token[first:last]].sum(axis=0)
    return narrow(total / max(1, rows.tokens.size), dtype)


def columns_of(info: TensorInfo) -> int:
    """How many elements a row a token has."""
    return max(1, info.elements // max(1, rows_of(info)))
