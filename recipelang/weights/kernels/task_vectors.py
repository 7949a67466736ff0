"""Task vectors: differences to a base, scaled, trimmed to their largest entries, with or without an
elected sign. Arithmetic in float32 (float64 for F64 tensors).

Definitions (D_i = X_i - B, weights w_i, N elements):

- arithmetic (Ilharco et al. 2023, arXiv 2212.04089): R = B + scale * sum_i w_i D_i / Z, with
  Z = sum_i w_i when ``normalize``, else 1.
- ties (Yadav et al. 2023, arXiv 2306.01708): S_i keeps the max(1, floor(density_i N)) largest
  |D_i|, lowest index first among equals; V_i = w_i S_i; the elected sign of an element is that of
  sum_i V_i, plus where it is zero; M_i marks the elements where V_i has that sign; R = B + scale *
  sum_i V_i M_i / Z, with Z = sum_i |w_i| M_i (1 where it is 0) when ``normalize``, else 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Any

from recipelang.diagnostics import fault
from recipelang.weights.kernel import (
    Array,
    Block,
    Inputs,
    Kernel,
    Kth,
    KthMagnitude,
    Results,
    Value,
)

__all__ = ["arithmetic", "check_sum", "kept", "kept_count", "ties"]


def kept_count(density: float, elements: int) -> int:
    """max(1, floor(density * elements)), with the decimal that the recipe wrote: 0.29 of 100 is
    29."""
    return max(1, min(elements, floor(Fraction(repr(float(density))) * elements)))


def kept(xp: Any, values: Array, start: int, kth: Kth) -> Array:
    """Which elements of the block at ``start`` are among the k largest magnitudes, as booleans."""
    magnitude = xp.abs(values)
    within = (
        kth.last - start + 1
    )  # this many elements of the block are early enough to be kept as equals
    if within >= values.size:
        return magnitude >= kth.threshold
    mask = magnitude > kth.threshold
    if within > 0:
        mask[:within] = magnitude[:within] >= kth.threshold
    return mask


def check_sum(weights: Sequence[float], normalize: bool) -> None:
    """Raise RecipeError E0541 where the sum that the result is divided by is zero."""
    if normalize and sum(weights) == 0:
        raise fault(
            "E0541",
            "the weights of a tensor add up to zero, and the result is divided by their sum",
            help="change a weight, or write `normalize = false`",
        )


def arithmetic(weights: Sequence[float], scale: float, normalize: bool) -> Kernel:
    """The kernel over roles ``inputs`` and ``base``."""
    used = [i for i, w in enumerate(weights) if w]
    factor = scale / sum(weights) if normalize else scale

    def combine(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        base = inputs["base"][0]
        total = xp.zeros_like(base)
        for i in used:
            total += (inputs["inputs"][i] - base) * weights[i]
        total *= factor
        total += base
        return total

    return Kernel(combine, unread=_unread(weights))


def ties(
    weights: Sequence[float], counts: Sequence[int], elements: int, scale: float, normalize: bool
) -> Kernel:
    """The kernel over roles ``inputs`` and ``base``; ``counts[i]`` entries of input ``i`` are
    kept."""
    used = [i for i, w in enumerate(weights) if w]
    trimmed = [i for i in used if counts[i] < elements]

    def statistics(results: Results) -> tuple[KthMagnitude, ...]:
        return tuple(KthMagnitude(_difference(i), counts[i]) for i in trimmed)

    def combine(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        base = inputs["base"][0]
        vectors: list[Array] = []
        for i in used:
            vector = inputs["inputs"][i] - base
            if i in trimmed:
                kth = results[0][trimmed.index(i)]
                assert isinstance(kth, Kth)
                vector *= kept(
                    xp, vector, block.start, kth
                )  # a selection by mask takes thirty times as long
            if weights[i] != 1:
                vector *= weights[i]
            vectors.append(vector)
        return _elect(xp, base, vectors, [abs(weights[i]) for i in used], scale, normalize)

    return Kernel(combine, (statistics,) if trimmed else (), _unread(weights))


def _elect(
    xp: Any, base: Array, vectors: list[Array], shares: list[float], scale: float, normalize: bool
) -> Array:
    """Sum, per element, the entries that have the sign of the sum of all entries.

    The entries are turned so that the elected sign is plus; then what agrees is what is positive.
    """
    total = xp.zeros_like(base)
    for vector in vectors:
        total += vector
    sign = xp.copysign(base.dtype.type(1), total)
    total[...] = 0
    divisor = xp.zeros_like(base) if normalize else None
    for vector, share in zip(vectors, shares, strict=True):
        vector *= sign
        if divisor is not None:
            divisor += (vector > 0) * base.dtype.type(share)
        total += xp.maximum(vector, 0, out=vector)
    if divisor is not None:
        divisor += divisor == 0  # where nothing took part the total is 0
        total /= divisor
    total *= sign
    if scale != 1:
        total *= scale
    total += base
    return total


def _difference(index: int) -> Value:
    return lambda xp, inputs, block: inputs["inputs"][index] - inputs["base"][0]


def _unread(weights: Sequence[float]) -> frozenset[tuple[str, int]]:
    return frozenset(("inputs", i) for i, w in enumerate(weights) if not w)
