"""All random draws of the host: Philox keyed by (draw key, purpose, index), the same on every
machine.

Philox-4x64 (Salmon et al. 2011) is a counter-based generator whose raw output numpy keeps stable;
everything is derived here from those raw 64-bit words, because numpy may change the methods of its
``Generator`` between releases.

Example:
    >>> permutation("00", "order", 0, 5).tolist() == permutation("00", "order", 0, 5).tolist()
    True
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["bits", "integers", "permutation", "uniform"]


def bits(draws: str, purpose: str, index: int, count: int) -> NDArray[np.uint64]:
    """``count`` uniform 64-bit words.

    ``draws`` is the step's draw key (hex), ``purpose`` says what for (``order``, ``split``, a
    tensor's name), ``index`` counts (an epoch, a step). Different triples give independent streams.
    """
    import numpy as np

    key = hashlib.sha256(f"{draws}\n{purpose}\n{index}".encode()).digest()[:16]
    raw = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(count)
    return np.asarray(raw, np.uint64).reshape(count)


def uniform(draws: str, purpose: str, index: int, count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1), multiples of 2**-53."""
    import numpy as np

    return (bits(draws, purpose, index, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(draws: str, purpose: str, index: int, count: int, below: int) -> NDArray[np.int64]:
    """``count`` integers in [0, ``below``), ``below`` < 2**32; the bias is under 2**-21."""
    import numpy as np

    return (uniform(draws, purpose, index, count) * below).astype(np.int64)


def permutation(draws: str, purpose: str, index: int, count: int) -> NDArray[np.int64]:
    """A permutation of ``range(count)``: the order of as many drawn words."""
    import numpy as np

    return np.argsort(bits(draws, purpose, index, count), kind="stable").astype(np.int64)
