"""Documents into rows of a fixed length: several in a row without seeing each other, or one a row.

Documents go into rows by best fit, longest first (Ding et al. 2024, arXiv 2404.10830, for language
models): each into the fullest row that still has room. What is longer than a row is cut, split,
dropped or refused, and counted. A piece in which nothing is supervised is left out, and counted
too.

Example:
    >>> import numpy as np
    >>> from recipelang.data.tokenise import Documents
    >>> mask = np.array([0, 1, 1, 0, 1, 0, 1, 1], bool)
    >>> packed = pack(Documents(np.arange(8, dtype=np.int32), mask, np.array([0, 3, 5, 8]), 3), 5)
    >>> batch = packed.batch([0, 1])
    >>> batch.tokens.tolist(), batch.segments.tolist()
    ([[0, 1, 2, 3, 4], [5, 6, 7, 0, 0]], [[1, 1, 1, 2, 2], [1, 1, 1, 0, 0]])
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipelang.data.batch import Batch
from recipelang.data.tokenise import Documents
from recipelang.diagnostics.diagnostic import fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Counts", "Packed", "pack", "windows"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the documents.

    ``documents`` came in; of the ``long`` ones (longer than a row) all were cut, split or dropped;
    ``lost_tokens`` are in no row; ``lost_ends`` documents lost their supervised last token;
    ``unsupervised`` pieces had nothing to learn from. ``tokens`` and ``supervised`` are in the
    rows.
    """

    documents: int
    long: int
    lost_tokens: int
    lost_ends: int
    unsupervised: int
    rows: int
    tokens: int
    supervised: int


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Rows of documents. ``pieces`` int64 (pieces, 2): start and stop in ``documents.tokens``;
    ``bins``: the pieces of each row; ``width``: tokens of the fullest row."""

    documents: Documents
    pieces: NDArray[np.int64]
    bins: tuple[tuple[int, ...], ...]
    width: int
    counts: Counts

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.bins)

    def batch(self, rows: Sequence[int] | NDArray[np.int64], width: int | None = None) -> Batch:
        """These rows, each padded to ``width`` [that of the fullest row of all]."""
        import numpy as np

        shape = (len(rows), width or self.width)
        tokens, segments, positions = (np.zeros(shape, np.int32) for _ in range(3))
        supervised = np.zeros(shape, np.bool_)
        for r, row in enumerate(rows):
            place = 0
            for segment, piece in enumerate(self.bins[int(row)], 1):
                start, stop = (int(x) for x in self.pieces[piece])
                there = slice(place, place + stop - start)
                tokens[r, there] = self.documents.tokens[start:stop]
                segments[r, there] = segment
                positions[r, there] = np.arange(stop - start, dtype=np.int32)
                supervised[r, there] = self.documents.supervised[start:stop]
                supervised[r, place] = False
                place += stop - start
        return Batch(tokens, segments, positions, supervised)


def pack(
    documents: Documents, length: int, *, packing: bool = True, overflow: str = "cut"
) -> Packed:
    """Put documents into rows of at most ``length`` tokens.

    ``overflow`` is ``cut`` (keep the start), ``split`` (into documents of their own, never of one
    token, which would not be learned: it may be the end), ``windows`` (plainly every ``length``
    tokens), ``drop`` or ``error``. Raises RecipeError E0781 for ``error``, E0778 where nothing
    supervised is left.
    """
    import numpy as np

    sizes = np.diff(documents.starts)
    long = int((sizes > length).sum())
    if overflow == "error" and long:
        raise fault(
            "E0781",
            f"{long} of {len(sizes)} documents are longer than {length} tokens, "
            f"the longest has {int(sizes.max())}",
            help="raise `length`, or choose `overflow = cut`, `split` or `drop`",
        )
    cut: list[tuple[int, int]] = []
    for start, stop in zip(
        documents.starts[:-1].tolist(), documents.starts[1:].tolist(), strict=True
    ):
        cut += _pieces(start, stop, length, overflow)
    learned = np.concatenate([[0], np.cumsum(documents.supervised)])
    kept = [(a, b) for a, b in cut if learned[b] > learned[a + 1]]
    if not kept:
        raise fault(
            "E0778",
            f"within rows of {length} tokens nothing is supervised",
            help="raise `length`: the prompts fill the rows",
        )
    pieces = np.array(kept, np.int64).reshape(-1, 2)
    lengths = (pieces[:, 1] - pieces[:, 0]).tolist()
    bins = _best_fit(lengths, length) if packing else tuple((i,) for i in range(len(lengths)))
    width = max(sum(lengths[i] for i in row) for row in bins)
    held = int(sum(lengths))
    ends = {b for _, b in kept}
    lost_ends = sum(
        1
        for stop in documents.starts[1:].tolist()
        if stop not in ends and documents.supervised[stop - 1]
    )
    counts = Counts(
        len(sizes),
        long,
        len(documents.tokens) - held,
        lost_ends,
        len(cut) - len(kept),
        len(bins),
        held,
        int(sum(learned[b] - learned[a + 1] for a, b in kept)),
    )
    return Packed(documents, pieces, bins, width, counts)


def _pieces(start: int, stop: int, length: int, overflow: str) -> list[tuple[int, int]]:
    """What is kept of one document."""
    if stop - start <= length:
        return [(start, stop)]
    if overflow in ("split", "windows"):
        found = [(a, min(a + length, stop)) for a in range(start, stop, length)]
        if overflow == "split" and length > 2 and found[-1][1] - found[-1][0] == 1:
            found[-2:] = [(found[-2][0], stop - 2), (stop - 2, stop)]
        return found
    return [(start, start + length)] if overflow == "cut" else []


def _best_fit(lengths: Sequence[int], capacity: int) -> tuple[tuple[int, ...], ...]:
    """Best fit, longest first; among equals the earlier document and the row that was filled to
    that point first. O(n log capacity)."""
    bins: list[list[int]] = []
    by_space: dict[int, deque[int]] = {}
    spaces: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        need = lengths[i]
        at = bisect_left(spaces, need)
        if at == len(spaces):
            row, space = len(bins), capacity
            bins.append([])
        else:
            space = spaces[at]
            row = by_space[space].popleft()
            if not by_space[space]:
                del by_space[space]
                del spaces[at]
        bins[row].append(i)
        left = space - need
        if left:
            if left not in by_space:
                by_space[left] = deque()
                insort(spaces, left)
            by_space[left].append(row)
    return tuple(tuple(row) for row in bins)


def windows(documents: Documents, length: int) -> Packed:
    """Rows for scoring: each document in windows of ``length`` tokens without overlap, one a row.

    The first token of a window has nothing before it and is not scored. Raises RecipeError E0778.
    """
    return pack(documents, length, packing=False, overflow="windows")
