"""Scores text with a model: nats, tokens and bytes of every window, from which metrics and
intervals follow.

Windows have at most ``length`` tokens and do not overlap; the first token of a window is not
scored.

Example:
    >>> import numpy as np
    >>> scores = Scores(np.array([2.0, 4.0]), np.array([1, 2]), np.array([3, 6]))
    >>> round(scores.loss, 3)
    2.0
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

from recipelang.data.batch import Batch
from recipelang.data.draws import uniform
from recipelang.data.encoder import Encoder
from recipelang.data.packing import Packed, windows
from recipelang.run.data import Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Scores", "Windows", "interval", "windows_of"]

TOKENS_AT_A_TIME = 1024
RESAMPLES = 1000
MAX_UNITS = 4096
"""More units than these are resampled in consecutive groups."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """A number a window: ``nats`` float64 (minus log-probabilities, summed), ``tokens`` scored, and
    their UTF-8 ``bytes``, all (windows,)."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    bytes: NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Nats a token."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte; infinite where the scored tokens have no bytes."""
        total = int(self.bytes.sum())
        return float(self.nats.sum() / log(2) / total) if total else float("inf")


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """A dataset cut into windows for one tokenizer."""

    packed: Packed

    def batches(self, rows: int | None = None) -> Iterator[tuple[NDArray[np.int64], Batch]]:
        """Windows by number, and as a batch: those of about one length together, the longest first.

        A batch is as wide as the power of two (at least 16) that holds its windows, or the widest
        window, so that there are few shapes.
        """
        import numpy as np

        sizes = self.packed.pieces[:, 1] - self.packed.pieces[:, 0]
        widest = self.packed.width
        widths = np.minimum(2 ** np.ceil(np.log2(np.maximum(sizes, 16))).astype(np.int64), widest)
        for width in sorted(set(widths.tolist()), reverse=True):
            members = np.flatnonzero(widths == width)
            step = rows or max(1, TOKENS_AT_A_TIME // width)
            for start in range(0, len(members), step):
                chosen = members[start : start + step]
                yield chosen, self.packed.batch(chosen, width)

    def score(
        self,
        score: Callable[[Batch], NDArray[np.floating]],
        sizes: NDArray[np.int32],
        rows: int | None = None,
    ) -> Scores:
        """Score all windows; ``score`` gives log-probabilities (rows, width), ``sizes`` the bytes
        of each token id."""
        import numpy as np

        count = self.packed.rows
        nats, tokens, held = np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64)
        for chosen, batch in self.batches(rows):
            found = np.where(batch.supervised, np.asarray(score(batch), np.float64), 0.0)
            nats[chosen] = -found.sum(axis=1)
            tokens[chosen] = batch.supervised.sum(axis=1)
            spelled = sizes[np.minimum(batch.tokens, len(sizes) - 1)]
            held[chosen] = np.where(batch.supervised, spelled, 0).sum(axis=1)
        return Scores(nats, tokens, held)


def windows_of(encoder: Encoder, data: Rows, length: int, supervise: str) -> Windows:
    """The windows of a dataset. Texts get no end token here: what is scored is the text.

    Raises RecipeError E0778 where nothing is scored.
    """
    documents = data.documents(encoder, supervise, terminate=data.format != "text")
    return Windows(windows(documents, length))


def interval(
    numerators: NDArray[np.floating], denominators: NDArray[np.integer], draws: str
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of ``sum(numerators) / sum(denominators)``.

    1,000 resamples of the units (windows, examples) with replacement, drawn by ``draws`` (Efron
    1979); more than 4,096 units are resampled in consecutive groups.
    """
    import numpy as np

    top: NDArray[Any] = np.asarray(numerators, np.float64)
    bottom: NDArray[Any] = np.asarray(denominators, np.float64)
    if len(top) > MAX_UNITS:
        group = np.arange(len(top)) * MAX_UNITS // len(top)
        top, bottom = np.bincount(group, top), np.bincount(group, bottom)
    n = len(top)
    found = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        chosen = (uniform(draws, "bootstrap", i, n) * n).astype(np.int64)
        total = bottom[chosen].sum()
        found[i] = top[chosen].sum() / total if total else np.nan
    found = found[np.isfinite(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
