"""Exact k-th magnitudes over all tensors of a model: what TIES trims by in its paper.

Two passes over the tensors, in parallel: the first counts the upper sixteen bits of every magnitude
(magnitudes order as their bits do), the second keeps the lower bits of those that share the k-th
one's upper bits. Among equals the first tensor in name order comes first, then the lowest index.

Example:
    >>> thresholds(nodes, read, workers=2)["model.norm.weight"]      # doctest: +SKIP
    (Kth(threshold=0.0013, last=575),)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipelang.weights.evaluate import Evaluation, ModelResults, Read
from recipelang.weights.kernel import Kernel, Kth, ModelKth
from recipelang.weights.kernels.thinning import entries
from recipelang.weights.region import Combine

__all__ = ["asks_for_model", "thresholds"]

DIGIT = 16


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """A tensor: what it asks for, and how to look at its operands."""

    node: Combine
    asked: tuple[ModelKth, ...]
    evaluation: Evaluation

    def prepare(self) -> None:
        """Take the statistics of what is below."""
        self.evaluation.prepare_operands(self.node)

    def magnitudes(self, number: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """The bits of the magnitudes block by block, with the block's first index."""
        (statistic,) = (s for s in self.asked if s.number == number)
        for block, values in self.evaluation.values(self.node, statistic.value):
            bits: NDArray[Any] = np.abs(values).view(f"u{values.dtype.itemsize}")
            yield block.start, bits


def asks_for_model(node: Combine) -> bool:
    """Whether a kernel needs a statistic over the whole model."""
    return isinstance(node.kernel, Kernel) and bool(node.kernel.model)


def thresholds(
    nodes: Mapping[str, Combine], read: Read, known: ModelResults, *, workers: int
) -> dict[str, tuple[Kth, ...]]:
    """For each tensor the answers to its kernel's ``model`` statistics, in their order. ``known``
    holds those of steps below. Every tensor is read twice."""
    tasks: dict[str, _Task] = {}
    for name, node in sorted(nodes.items()):
        assert isinstance(node.kernel, Kernel)
        evaluation = Evaluation((node,), read, hold=False, known=known)
        tasks[name] = _Task(node, node.kernel.model, evaluation)
    shares = {s.number: s.share for task in tasks.values() for s in task.asked}
    found: dict[int, dict[str, Kth]] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="statistics") as pool:
        list(pool.map(_Task.prepare, tasks.values()))
        for number, share in shares.items():
            asking = {n: t for n, t in tasks.items() if any(s.number == number for s in t.asked)}
            found[number] = _kth_of_all(asking, number, share, pool)
    return {name: tuple(found[s.number][name] for s in task.asked) for name, task in tasks.items()}


def _kth_of_all(
    tasks: Mapping[str, _Task], number: int, share: float, pool: ThreadPoolExecutor
) -> dict[str, Kth]:
    k = max(1, entries(share, sum(task.node.info.elements for task in tasks.values())))
    counts = np.zeros(1 << DIGIT, np.int64)
    for part in pool.map(partial(_upper_counts, number), tasks.values()):
        counts += part
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, k))
    need = k - int(from_top[place - 1] if place else 0)
    upper = counts.size - 1 - place
    kept = list(pool.map(partial(_lower_bits, number, upper), tasks.values()))
    values = np.concatenate([low for low, _ in kept])
    values.partition(values.size - need)
    lower = values[values.size - need]
    need -= int(np.count_nonzero(values > lower))
    threshold = _number(upper, int(lower), values.dtype)
    found: dict[str, Kth] = {}
    for (name, task), (low, places) in zip(tasks.items(), kept, strict=True):
        equal = places[low == lower]
        if need >= equal.size:
            last = task.node.info.elements - 1
        else:
            last = int(equal[need - 1]) if need > 0 else -1
        found[name] = Kth(threshold, last)
        need = max(0, need - equal.size)
    return found


def _upper_counts(number: int, task: _Task) -> NDArray[np.int64]:
    counts = np.zeros(1 << DIGIT, np.int64)
    for _, bits in task.magnitudes(number):
        upper = (bits >> (bits.dtype.itemsize * 8 - DIGIT)).astype(np.intp)
        counts += np.bincount(upper, minlength=1 << DIGIT)
    return counts


def _lower_bits(
    number: int, upper: int, task: _Task
) -> tuple[NDArray[Any], NDArray[np.int64]]:  # fmt: skip
    """The lower bits of the magnitudes with these upper bits, and their indices."""
    low: list[NDArray[Any]] = [np.zeros(0, np.uint32)]
    places: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for start, bits in task.magnitudes(number):
        shift = bits.dtype.itemsize * 8 - DIGIT
        at = np.flatnonzero(bits >> shift == upper)
        low.append(bits[at] & bits.dtype.type((1 << shift) - 1))
        places.append(at + start)
    return np.concatenate(low), np.concatenate(places)


def _number(upper: int, lower: int, dtype: np.dtype[Any]) -> float:
    """The float whose bits these are."""
    width = dtype.itemsize * 8
    bits = np.array([upper << (width - DIGIT) | lower], dtype)
    return float(bits.view(f"f{dtype.itemsize}")[0])
