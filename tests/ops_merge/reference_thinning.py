"""Thinnings of a task vector in plain numpy and Python integers, written from the papers and from
the definition of the words, not from the product's code."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np

WORD = 0xFFFFFFFF


def _mix(x: int) -> int:
    """lowbias32 (Wellons 2018)."""
    x ^= x >> 16
    x = x * 0x7FEB352D & WORD
    x ^= x >> 15
    x = x * 0x846CA68B & WORD
    return x ^ x >> 16


def half_words(drawn: str, tensor: str, count: int) -> Any:
    """The half words of the first elements of a tensor, one Python integer at a time."""
    digest = hashlib.blake2b(f"{drawn}\0{tensor}".encode(), digest_size=8).digest()
    first = int.from_bytes(digest[:4], "little")
    second = int.from_bytes(digest[4:], "little")
    words = [_mix(_mix((i // 2) ^ first) ^ second) for i in range(count)]
    return np.array([w >> 16 if i % 2 else w & 0xFFFF for i, w in enumerate(words)])


def order(delta: Any) -> Any:
    """Flat indices from the largest magnitude down, lowest index first among equals."""
    flat = np.abs(delta.reshape(-1))
    return np.lexsort((np.arange(flat.size), -flat))


def without_extremes(delta: Any, top: int, k: int) -> Any:
    """Breadcrumbs: neither the ``top`` largest nor what is below the ``k`` next."""
    flat = np.zeros(delta.size)
    places = order(delta)[top : top + k]
    flat[places] = delta.reshape(-1)[places]
    return flat.reshape(delta.shape)


def dropped(delta: Any, drawn: str, tensor: str, p: float, inverse: bool) -> Any:
    """DARE with p rounded to a multiple of 2^-16."""
    limit = round(p * 65536)
    keep = half_words(drawn, tensor, delta.size).reshape(delta.shape) < limit
    return delta * keep / (limit / 65536 if inverse else 1.0)


def magpruned(
    delta: Any, drawn: str, tensor: str, p: float, epsilon: float, inverse: bool
) -> Any:  # fmt: skip
    """DELLA: ranks in rows of the last axis."""
    rows = delta.reshape(-1, delta.shape[-1] if delta.ndim else 1)
    width = rows.shape[1]
    share = np.empty(rows.shape)
    for row, target in zip(rows, share, strict=True):
        for rank, place in enumerate(order(row)[::-1]):
            target[place] = rank / (width - 1) if width > 1 else 0.5
    share = (p - epsilon + 2 * epsilon * share).reshape(delta.shape)
    keep = half_words(drawn, tensor, delta.size).reshape(delta.shape) < share * 65536
    return delta * keep / (share if inverse else 1.0)


def l1(delta: Any, thinned: Any) -> Any:
    """The thinned vector with the L1 norm of the whole."""
    left = np.abs(thinned).sum()
    return thinned * (np.abs(delta).sum() / left if left else 1.0)


def count(share: float, elements: int, *, mergekit: bool = False) -> int:
    """That share of so many entries, rounded down: of the decimal, in mergekit of the float."""
    return int(share * elements) if mergekit else floor(Fraction(str(share)) * elements)


def thinned(
    verb: str, delta: Any, drawn: str, tensor: str, p: float, *, rescale: str,
    epsilon: float = 0.0, gamma: float = 0.0, mergekit: bool = False,
) -> Any:  # fmt: skip
    """One task vector thinned as a merge of that name does it, and scaled up again."""
    inverse = rescale == "inverse"
    if p == 1:
        return delta
    if verb.startswith("dare"):
        found = dropped(delta, drawn, tensor, p, inverse)
    elif verb.startswith("della"):
        found = magpruned(delta, drawn, tensor, p, epsilon, inverse)
    else:
        k = max(1, count(p, delta.size, mergekit=mergekit))
        top = min(count(gamma, delta.size, mergekit=mergekit), delta.size - k)
        found = without_extremes(delta, top, k) * (delta.size / k if inverse else 1.0)
    return l1(delta, found) if rescale == "l1" else found


def merged(
    base: Any, vectors: Any, shares: Any, scale: float, *, elect: bool, divide: bool,
    signed: bool = False,
) -> Any:  # fmt: skip
    """The thinned, weighted vectors added to the base, element by element. Where signs are elected
    what agrees is divided by |w_i|, and if ``signed`` by w_i, as in mergekit."""
    stacked = np.stack([v.reshape(-1) for v in vectors])
    result = base.astype(np.float64).reshape(-1).copy()
    for e in range(result.size):
        column = stacked[:, e]
        chosen = list(range(len(column)))
        if elect:
            sign = 1.0 if column.sum() >= 0 else -1.0
            chosen = [i for i in chosen if column[i] * sign > 0]
        total = sum(column[i] for i in chosen)
        share = sum(abs(shares[i]) if elect and not signed else shares[i] for i in chosen)
        result[e] += scale * (total / share if divide and share else total)
    return result.reshape(base.shape)
