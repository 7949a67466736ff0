"""Stateless uniform 32-bit words: the same bits on numpy, torch and JAX, whatever the chunking.

A word is a function of two keys (from a seed and a name) and a 64-bit element index ``high:low``::

    bits = mix(mix(low ^ key0) ^ key1 ^ (high * 0x9E3779B9))        (all in 32 bits, wrapping)

``mix`` is lowbias32, an integer permutation with a low avalanche bias (Wellons 2018,
nullprogram.com/blog/2018/07/31). A mask keeps an element with probability ``1 - p`` where
``bits >= threshold(p)``: a comparison of integers, so no rounding can differ.

A merge's mask uses half a word an element, which is all that its speed allows: element i of the
flattened tensor takes the low half of word i // 2 where i is even, else the high one; it is kept
where its half is below :func:`keep_limit`, so probabilities are multiples of 2^-16. Dropout in a
training step uses ``low = token * features + feature`` and ``high`` the row in the step's whole
batch, so that neither micro-batches nor padding move a mask.

Example:
    >>> [int(word) for word in uniform_bits(keys("seed", "name"), 0, 3)]
    [2300819456, 2323858791, 2981052334]
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "GOLDEN",
    "HALF",
    "MIX",
    "dropout_keys",
    "half_words",
    "keep_limit",
    "keys",
    "threshold",
    "uniform_bits",
]

MIX = (16, 0x7FEB352D, 15, 0x846CA68B, 16)
"""lowbias32: shift, multiplier, shift, multiplier, shift."""
GOLDEN = 0x9E3779B9
"""An odd constant that spreads the high word of the index."""
HALF = 1 << 16
"""How many values half a word has."""


def keys(*parts: str | int) -> tuple[int, int]:
    """The two 32-bit keys of a seed, a name and whatever else tells one use from another."""
    text = "\0".join(str(part) for part in parts).encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def dropout_keys(draws: str, name: str, step: int) -> tuple[int, int]:
    """The keys of a LoRA dropout mask: the job's ``draws``, the adapted tensor's name, the 0-based
    step."""
    return keys(draws, "dropout", name, step)


def threshold(p: float) -> int:
    """An element is dropped where its word is below this, for a drop probability ``p`` in [0,
    1)."""
    return int(p * 2**32)


def keep_limit(p: float) -> int:
    """An element is kept where its half word is below this, for a probability ``p`` in [0, 1]
    rounded to a multiple of 2^-16."""
    return round(p * HALF)


def half_words(xp: Any, key: tuple[int, int], start: int, stop: int) -> Any:
    """The half words of the elements ``[start, stop)``: (stop - start,) integers below 2^16."""
    import numpy as np

    own = getattr(xp, "half_words", None)
    if own is not None:
        return own(key, start, stop)
    first = start // 2
    if xp is np:
        halves: Any = uniform_bits(key, first, -(-stop // 2)).astype("<u4", copy=False)
        halves = halves.view("<u2")
    else:
        words = xp.uniform_bits(key, first, -(-stop // 2))
        halves = xp.stack((words & (HALF - 1), words >> 16), 1).reshape(-1)
    return halves[start - 2 * first : stop - 2 * first]


def _mix(x: NDArray[np.uint32]) -> None:
    first, multiplier, second, other, last = (x.dtype.type(number) for number in MIX)
    x ^= x >> first
    x *= multiplier
    x ^= x >> second
    x *= other
    x ^= x >> last


def uniform_bits(key: tuple[int, int], start: int, stop: int) -> NDArray[np.uint32]:
    """The words of the 64-bit indices ``[start, stop)``, (stop - start,) uint32."""
    import numpy as np

    if start >> 32 != (stop - 1) >> 32 and start < stop:
        middle = stop >> 32 << 32
        return np.concatenate([uniform_bits(key, start, middle), uniform_bits(key, middle, stop)])
    high = start >> 32
    words = np.arange(start & 0xFFFFFFFF, (start & 0xFFFFFFFF) + stop - start, dtype=np.uint32)
    words ^= np.uint32(key[0])
    _mix(words)
    words ^= np.uint32(key[1] ^ high * GOLDEN & 0xFFFFFFFF)
    _mix(words)
    return words
