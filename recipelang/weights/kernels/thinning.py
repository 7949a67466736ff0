"""Ways to thin a task vector D of N entries: which entries stay, and what they are multiplied by.

- :func:`largest`: the k largest magnitudes (TIES, Yadav et al. 2023, arXiv 2306.01708).
- :func:`between`: without the largest outliers, then the k largest of the rest (breadcrumbs, Davari
  and Belilovsky 2023, arXiv 2312.06795).
- :func:`at_random`: each entry with probability p (DARE, Yu et al. 2023, arXiv 2311.03099).
- :func:`by_rank`: each entry with a probability that grows with its rank in its row (DELLA, Deep et
  al. 2024, arXiv 2406.11617).

At a threshold the lowest index comes first among equals, so exactly as many entries stay as were
asked for. Random masks are comparisons of integer words (:mod:`.uniform_bits`), equal everywhere.

Example: ``largest(difference, k=10)`` needs one k-th magnitude and keeps ten entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import floor
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from recipelang.weights.kernel import (
    Array,
    Block,
    Inputs,
    Kth,
    KthMagnitude,
    ModelKth,
    Result,
    Statistic,
    SumsOf,
    Value,
    on_host,
)
from recipelang.weights.kernels.uniform_bits import HALF, half_words, keep_limit, keys

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Thinning",
    "at_random",
    "between",
    "by_rank",
    "entries",
    "kept",
    "largest",
    "largest_of_model",
    "rescaled",
    "row_ranks",
]

Own: TypeAlias = "tuple[tuple[Result, ...], ...]"
"""The results of a thinning's own statistics, level by level."""


@dataclass(frozen=True, slots=True)
class Thinning:
    """``levels``: how many statistics each level takes, and which, from the results of the levels
    before. ``thin(xp, vector, block, own)`` gives the thinned block and may overwrite ``vector``;
    the whole is multiplied by ``factor(own)``. ``model`` is a statistic over the whole model, whose
    answer stands before those of the levels in ``own``. ``mask`` says of a block which entries
    stay, where ``thin`` only sets the others to zero and the mask costs more than reading it."""

    levels: tuple[tuple[int, Callable[[Own], tuple[Statistic, ...]]], ...]
    thin: Callable[[Any, Array, Block, Own], Array]
    factor: Callable[[Own], float] = lambda own: 1.0
    model: ModelKth | None = None
    mask: Callable[[Any, Array, Block], Array] | None = None


def entries(share: float, elements: int, *, exact: bool = True) -> int:
    """floor(share * elements), with the decimal that the recipe wrote: 0.29 of 100 is 29.

    ``exact = False`` multiplies in floating point, as mergekit does: 28.

    >>> entries(0.29, 100), entries(0.29, 100, exact=False)
    (29, 28)
    """
    wanted = Fraction(repr(float(share))) * elements if exact else share * elements
    return max(0, min(elements, floor(wanted)))


def kept(xp: Any, values: Array, start: int, kth: Kth) -> Array:
    """Which elements of the block at ``start`` are among the k largest magnitudes, as booleans."""
    import numpy as np

    magnitude = xp.abs(values)
    early = kth.last - start + 1  # so many elements of the block are kept where they are equals
    if early >= len(values):
        return magnitude >= kth.threshold
    mask = magnitude > kth.threshold
    if xp is not np:  # a cut at `early` would be a program of its own for each place
        return mask | ((magnitude == kth.threshold) & (xp.arange(len(values)) < max(0, early)))
    if early > 0:
        mask = xp.concatenate((magnitude[:early] >= kth.threshold, mask[early:]))
    return mask


def largest(value: Value, k: int, factor: float = 1.0) -> Thinning:
    """The ``k`` largest magnitudes, ``k >= 1``, times ``factor``."""

    def thin(xp: Any, vector: Array, block: Block, own: Own) -> Array:
        vector *= kept(xp, vector, block.start, _kth(own, 0))
        return vector

    def statistics(own: Own) -> tuple[Statistic, ...]:
        return (KthMagnitude(value, k),)

    return Thinning(((1, statistics),), thin, lambda own: factor)


def largest_of_model(number: int, value: Value, share: float, factor: float = 1.0) -> Thinning:
    """The largest magnitudes of input ``number``'s whole task vector, a ``share`` of all its
    entries, times ``factor``."""

    def thin(xp: Any, vector: Array, block: Block, own: Own) -> Array:
        vector *= kept(xp, vector, block.start, _kth(own, 0))
        return vector

    return Thinning((), thin, lambda own: factor, ModelKth(number, value, share))


def between(value: Value, top: int, k: int, factor: float = 1.0) -> Thinning:
    """Without the ``top`` largest magnitudes, the ``k`` largest of the rest (``top + k`` of all at
    most), times ``factor``."""

    def statistics(own: Own) -> tuple[Statistic, ...]:
        return (KthMagnitude(value, top + k), KthMagnitude(value, top))

    def thin(xp: Any, vector: Array, block: Block, own: Own) -> Array:
        most = kept(xp, vector, block.start, _kth(own, 0))
        most ^= kept(xp, vector, block.start, _kth(own, 1))
        vector *= most
        return vector

    if not top:
        return largest(value, k, factor)
    return Thinning(((2, statistics),), thin, lambda own: factor)


def at_random(drawn: str, tensor: str, p: float, *, inverse: bool) -> Thinning:
    """Each entry with probability ``p`` in (0, 1), divided by it where ``inverse``."""
    key, limit = keys(drawn, tensor), max(1, keep_limit(p))

    def mask(xp: Any, vector: Array, block: Block) -> Array:
        return half_words(xp, key, block.start, block.stop) < limit

    def thin(xp: Any, vector: Array, block: Block, own: Own) -> Array:
        vector *= mask(xp, vector, block)
        return vector

    return Thinning((), thin, lambda own: HALF / limit if inverse else 1.0, mask=mask)


def by_rank(drawn: str, tensor: str, p: float, epsilon: float, *, inverse: bool) -> Thinning:
    """Each entry with probability p - ε + 2 ε q, where q in [0, 1] is the rank of its magnitude in
    its row of the last axis (1 is the largest, the lowest index first among equals; 1/2 in a row of
    one), divided by its probability where ``inverse``. 0 < p - ε and p + ε <= 1."""
    key = keys(drawn, tensor)

    def shares(xp: Any, vector: Array, block: Block) -> Array:
        found = row_ranks(xp, vector, block.shape[-1] if block.shape else 1)
        found *= 2 * epsilon * HALF
        found += (p - epsilon) * HALF
        return found

    def mask(xp: Any, vector: Array, block: Block) -> Array:
        return half_words(xp, key, block.start, block.stop) < shares(xp, vector, block)

    def thin(xp: Any, vector: Array, block: Block, own: Own) -> Array:
        if not inverse:
            vector *= mask(xp, vector, block)
            return vector
        share = shares(xp, vector, block)
        vector *= half_words(xp, key, block.start, block.stop) < share
        share *= 1 / HALF
        vector /= share
        return vector

    return Thinning((), thin, mask=None if inverse else mask)


def rescaled(thinning: Thinning, value: Value) -> Thinning:
    """The thinning with its L1 norm brought back to that of the whole task vector: times sum |D| /
    sum |thinned D| (1 where nothing is left). On the host a mask that the sums were taken with is
    kept, a bit an entry, for the pass that follows."""
    level = len(thinning.levels) + (thinning.model is not None)
    masks: dict[tuple[int, int], Array] = {}

    def sums(xp: Any, inputs: Inputs, block: Block, own: Own) -> Iterator[Array]:
        import numpy as np

        vector = value(xp, inputs, block)
        yield xp.abs(vector)
        if thinning.mask is None:
            vector = thinning.thin(xp, vector, block, own)
        else:
            mask = thinning.mask(xp, vector, block)
            vector *= mask
            if on_host(xp):
                masks[block.start, block.stop] = np.packbits(np.asarray(mask))
        yield xp.abs(vector)

    def statistics(own: Own) -> tuple[Statistic, ...]:
        return (SumsOf(partial(sums, own=own[:level])),)

    def thin(xp: Any, vector: Array, block: Block, own: Own) -> Array:
        import numpy as np

        bits = masks.pop((block.start, block.stop), None)
        if bits is None:
            return thinning.thin(xp, vector, block, own)
        vector *= np.unpackbits(bits, count=len(vector)).view(np.bool_)
        return vector

    def factor(own: Own) -> float:
        before, after = cast("tuple[float, float]", own[level][0])
        return before / after if after else 1.0

    levels = (*thinning.levels, (1, statistics))
    return replace(thinning, levels=levels, thin=thin, factor=factor)


def row_ranks(xp: Any, vector: Array, row: int) -> Array:
    """For each element of whole rows, the rank of its magnitude in its row as a share of the
    largest rank: 0 for the smallest, 1 for the largest, lowest index first among equals.

    >>> import numpy as np
    >>> row_ranks(np, np.array([3, -1, -1], np.float32), 3)
    array([1. , 0.5, 0. ], dtype=float32)
    """
    import numpy as np

    if row == 1:
        return vector * 0 + 0.5
    own = getattr(xp, "row_ranks", None)
    if own is not None:
        return own(vector, row)
    rows = xp.abs(vector).reshape(-1, row)
    if xp is np and rows.dtype == np.float32:
        ranks = _packed_ranks(rows)
    else:
        order = xp.argsort(-rows, axis=1, stable=True)
        ranks = (row - 1 - xp.argsort(order, axis=1)).reshape(-1)
    shares = xp.astype(ranks, vector.dtype)
    shares *= 1 / (row - 1)
    return shares


def _packed_ranks(rows: NDArray[np.float32]) -> NDArray[np.int32]:
    """The ranks by one sort of 64-bit words, magnitude above and reversed index below: a third of
    the time of two sorts of indices."""
    import numpy as np

    count, row = rows.shape
    packed = rows.view(np.uint32).astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= np.arange(row - 1, -1, -1, dtype=np.uint64)
    packed.sort(axis=1)
    places = packed.astype(np.uint32)  # the lower halves
    np.subtract(np.arange(row - 1, count * row, row, dtype=np.uint32)[:, None], places, out=places)
    ranks = np.empty(count * row, np.int32)
    ranks[places.reshape(-1)] = np.tile(np.arange(row, dtype=np.int32), count)
    return ranks


def _kth(own: Own, index: int) -> Kth:
    found = own[0][index]
    assert isinstance(found, Kth)
    return found
