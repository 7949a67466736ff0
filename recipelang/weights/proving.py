"""Holds what a device computes to what the host computes, for devices that have not earned trust.

Per-operator kernels of a backend have been seen to give wrong numbers on some machines (JAX 0.11 on
CUDA, https://github.com/jax-ml/jax/issues/40633), and a merge with wrong numbers looks like any
other. So of every kind of tensor (its shape, dtype and operations) the first is computed on the
host too, and a device whose numbers are others is not used.

Example:
    >>> proof = Proof()
    >>> proof.asks(source), proof.asks(source)        # doctest: +SKIP
    (True, False)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipelang.weights.expression import Combine, Source
from recipelang.weights.kernel import Block
from recipelang.weights.needs import walk

__all__ = ["Proof", "WrongNumbers", "held_to"]

RELATIVE = 2.0**-14
"""What a number may be off, of its block's largest: far above rounding, far below garbage."""
ALLOWED = 1e-3
"""The share of a tensor's numbers that may be others: an entry at a threshold may be chosen here
and not there, where sums were taken in another order."""

UNITS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Between 1 and the next number."""

Blocks = Iterator[tuple[Block, NDArray[Any]]]


class WrongNumbers(Exception):
    """A device computes or moves wrong numbers; the text says what was seen."""


class Proof:
    """Which kinds of tensors a device has been asked for; of several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[object] = set()

    def asks(self, source: Source) -> bool:
        """Whether this is the first tensor of its kind."""
        steps = tuple(node.verb if isinstance(node, Combine) else "" for node in walk(source))
        kind = (source.info, steps)
        with self._lock:
            first = kind not in self._seen
            self._seen.add(kind)
        return first


def held_to(name: str, made: Blocks, expected: Blocks) -> Blocks:
    """The device's blocks of a tensor, each looked at beside the host's, which are cut alike. The
    last is given after all were looked at, so that a wrong tensor is never whole.

    Raises WrongNumbers where more than a thousandth of the numbers are wrong.
    """
    wrong = total = 0
    last: tuple[Block, NDArray[Any]] | None = None
    for (block, values), (_, host) in zip(made, expected, strict=True):
        if last is not None:
            yield last
        wrong += _wrong(values, host)
        total += values.size
        last = block, values.copy()  # it is valid until the next is asked for
    if wrong > max(1.0, ALLOWED * total):
        raise WrongNumbers(f"{wrong / total:.2%} of `{name}` are not what the host computes")
    if last is not None:
        yield last


def _wrong(values: NDArray[Any], host: NDArray[Any]) -> int:
    """How many numbers of a block are further from the host's than rounding may bring them."""
    unit, wide = UNITS[host.dtype.name], np.dtype(np.float32)
    if host.dtype == np.float64:
        wide = host.dtype
    with np.errstate(invalid="ignore", over="ignore"):
        here: NDArray[Any] = host.astype(wide)
        there: NDArray[Any] = values.astype(wide)
        size = np.abs(here)
        largest = np.max(size, where=np.isfinite(size), initial=0.0)
        near = np.abs(there - here) <= unit * size + RELATIVE * largest
        same = near & np.isfinite(here) | (here == there) | np.isnan(here) & np.isnan(there)
    return int(same.size - np.count_nonzero(same))
