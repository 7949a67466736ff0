"""Stateless uniform 32-bit words: the same bits on numpy, torch and JAX, whatever the chunking.

A word is a function of two keys (from a seed and a name) and a 64-bit element index ``high:low``::

    bits = mix(mix(low ^ key0) ^ key1 ^ (high * 0x9E3779B9))        (all in 32 bits, wrapping)

``mix`` is lowbias32, an integer permutation with a low avalanche bias (Wellons 2018,
nullprogram.com/blog/2018/07/31). A mask keeps an element with probability ``1 - p`` where
``bits >= threshold(p)``: a comparison of integers, so no rounding can differ.

A merge's mask uses the flat index of the element in its tensor (``low`` its low, ``high`` its high
word). Dropout in a training step uses ``low = token * features + feature`` and ``high`` the row in
the step's whole batch, so that neither micro-batches nor padding move a mask.

Example:
    >>> [int(word) for word in uniform_bits(keys("seed", "name"), 0, 3)]
    [2300819456, 2323858791, 2981052334]
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GOLDEN", "MIX", "dropout_keys", "keys", "threshold", "uniform_bits"]

MIX = (16, 0x7FEB352D, 15, 0x846CA68B, 16)
"""lowbias32: shift, multiplier, shift, multiplier, shift."""
GOLDEN = 0x9E3779B9
"""An odd constant that spreads the high word of the index."""


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


def _mix(x: NDArray[np.uint32]) -> NDArray[np.uint32]:
    first, multiplier, second, other, last = (x.dtype.type(number) for number in MIX)
    x = x ^ (x >> first)
    x = x * multiplier
    x = x ^ (x >> second)
    x = x * other
    mixed: NDArray[np.uint32] = x ^ (x >> last)
    return mixed


def uniform_bits(key: tuple[int, int], start: int, stop: int) -> NDArray[np.uint32]:
    """The words of the 64-bit indices ``[start, stop)``, (stop - start,) uint32."""
    import numpy as np

    index = np.arange(start, stop, dtype=np.uint64)
    low = (index & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    high = (index >> np.uint64(32)).astype(np.uint32)
    first, second = np.uint32(key[0]), np.uint32(key[1])
    return _mix(_mix(low ^ first) ^ second ^ high * np.uint32(GOLDEN))
