"""Looks at the operands of a kernel to take one level of its statistics.

Example: ``take_level(look, (SumOf(square),))`` gives a tuple of one float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipelang.types import TensorInfo
from recipelang.weights.arrays import Arrays
from recipelang.weights.blocks import blocks_of
from recipelang.weights.kernel import Block, Inputs, KthMagnitude, Result, Statistic, Value
from recipelang.weights.statistics import KEEP_ALL, Accumulator, accumulator
from recipelang.weights.strips.arrays import STRIPS
from recipelang.weights.strips.statistics import add
from recipelang.weights.whole_statistics import take

__all__ = ["Look", "take_level"]

SAMPLES = 96
SAMPLE_ELEMENTS = 1024
"""A k-th magnitude is bracketed by so many pieces of at least so many elements, in whole rows."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at: the result's tensor, the blocks it is cut into where it is computed, and
    the operands' blocks there (``inputs``) and on numpy (``few``)."""

    info: TensorInfo
    arrays: Arrays
    blocks: Sequence[Block]
    inputs: Callable[[Block], Inputs]
    few: Callable[[Block], Inputs]


def take_level(look: Look, statistics: Sequence[Statistic]) -> tuple[Result, ...]:
    """The answers to statistics that do not wait for one another. Most take one pass."""
    if look.arrays.whole:
        (whole,) = look.blocks
        xp, inputs = look.arrays.xp, look.inputs(whole)
        return tuple(take(xp, s, s.value(xp, inputs, whole), look.info.shape) for s in statistics)
    samples = _samples(look, [s for s in statistics if isinstance(s, KthMagnitude)])
    found = [accumulator(s, look.info.shape, samples.get(id(s))) for s in statistics]
    while any(one.result is None for one in found):
        unanswered = [one for one in found if one.result is None]
        for block in look.blocks:
            _add(look, unanswered, block)
        for one in unanswered:
            one.end_pass(_again(look, one.value))
    return tuple(one.result for one in found if one.result is not None)


def _add(look: Look, accumulators: Sequence[Accumulator], block: Block) -> None:
    """Have each take a block."""
    inputs = look.inputs(block)
    if look.arrays is STRIPS:
        cut = blocks_of(look.info, block.start, block.stop)
        pieces = [(piece.start - block.start, piece.stop - block.start) for piece in cut]
        add(accumulators, inputs, block, pieces)
        return
    for one in accumulators:
        one.add(block.start, one.value(look.arrays.xp, inputs, block))


def _again(look: Look, value: Value) -> Callable[[int], NDArray[Any]]:
    """Gives the values of the i-th block once more."""

    def values(i: int) -> NDArray[Any]:
        block = look.blocks[i]
        return np.asarray(value(look.arrays.xp, look.inputs(block), block))

    return values


def _samples(look: Look, statistics: Sequence[KthMagnitude]) -> dict[int, NDArray[Any]]:
    """Magnitudes from evenly spaced places, to bracket a k-th magnitude with."""
    elements, shape = look.info.elements, look.info.shape
    if not statistics or elements <= KEEP_ALL:
        return {}
    parts: dict[int, list[NDArray[Any]]] = {id(s): [] for s in statistics}
    row = max(1, shape[-1])
    rows, taken = elements // row, -(-SAMPLE_ELEMENTS // row)
    for i in range(min(SAMPLES, rows // taken)):
        start = i * (rows - taken) // (SAMPLES - 1) * row
        block = Block(start, start + taken * row, shape)
        inputs = look.few(block)
        for s in statistics:
            parts[id(s)].append(np.abs(s.value(np, inputs, block)))
    return {key: np.concatenate(values) for key, values in parts.items()}
