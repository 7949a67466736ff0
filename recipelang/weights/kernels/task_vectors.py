"""Task vectors: differences to a base, thinned, weighted, added, with an elected sign or without.

With D_i = X_i - B, weights w_i and V_i = w_i times the thinned D_i (:mod:`.thinning`):

- summed (Ilharco et al. 2023, arXiv 2212.04089): R = B + scale * sum_i V_i / Z, with Z = sum_i w_i
  when ``normalize``, else 1.
- elected (Yadav et al. 2023, arXiv 2306.01708): the elected sign of an element is that of T = sum_i
  V_i, plus where it is zero; R = B + scale * (sum of the V_i that have it) / Z, with Z the sum of
  their |w_i| (1 where there are none) when ``normalize``, else 1.

What has the elected sign adds up to sign(T) (|T| + A) / 2 with A = sum_i |V_i|: two sums instead
of a comparison and a selection an input.

Example: ``combine(weights, thinnings, scale=1.0, normalize=True, elect=True)`` is TIES.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from recipelang.diagnostics import fault
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results, Statistic, Value
from recipelang.weights.kernels.thinning import Own, Thinning

__all__ = ["check_sum", "combine", "difference"]


def difference(index: int) -> Value:
    """The task vector of input ``index``."""
    return lambda xp, inputs, block: inputs["inputs"][index] - inputs["base"][0]


def check_sum(weights: Sequence[float], normalize: bool) -> None:
    """Raise RecipeError E0541 where the sum that the result is divided by is zero."""
    if normalize and sum(weights) == 0:
        raise fault(
            "E0541",
            "the weights of a tensor add up to zero, and the result is divided by their sum",
            help="change a weight, or write `normalize = false`",
        )


def combine(
    weights: Sequence[float], thinnings: Sequence[Thinning | None], *, scale: float,
    normalize: bool, elect: bool, signed: bool = False,
) -> Kernel:  # fmt: skip
    """The kernel over roles ``inputs`` and ``base``; a thinning of None keeps all.

    ``signed`` divides by the sum of w_i in place of |w_i|, as mergekit does, where an elected sign
    is normalised.
    """
    used = [i for i, w in enumerate(weights) if w]
    taken = [(i, t) for i in used if (t := thinnings[i]) is not None]
    depth = max((len(t.levels) for _, t in taken), default=0)

    model = tuple(t.model for _, t in taken if t.model is not None)

    def level(number: int, results: Results) -> tuple[Statistic, ...]:
        return tuple(
            statistic
            for i, t in taken if number < len(t.levels)
            for statistic in t.levels[number][1](_own(taken, i, results))
        )  # fmt: skip

    def vectors(xp: Any, inputs: Inputs, block: Block, results: Results) -> list[Array]:
        found: list[Array] = []
        for i in used:
            vector, weight, thinning = (
                inputs["inputs"][i] - inputs["base"][0],
                weights[i],
                thinnings[i],
            )
            if thinning is not None:
                own = _own(taken, i, results)
                vector = thinning.thin(xp, vector, block, own)
                weight *= thinning.factor(own)
            if weight != 1:
                vector *= weight
            found.append(vector)
        return found

    def summed(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        return _finish(_sum(xp, inputs, vectors(xp, inputs, block, results)), factor, inputs)

    def elected(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        found = vectors(xp, inputs, block, results)
        shares = [weights[i] if signed else abs(weights[i]) for i in used]
        twice = _elect(xp, _sum(xp, inputs, found), found, shares if normalize else None)
        return _finish(twice, scale / 2, inputs)

    factor = scale / sum(weights) if normalize and not elect else scale
    return Kernel(
        elected if elect else summed,
        tuple(partial(level, number) for number in range(depth)),
        frozenset(("inputs", i) for i, w in enumerate(weights) if not w),
        model=model,
    )


def _own(taken: Sequence[tuple[int, Thinning]], index: int, results: Results) -> Own:
    """The results of the statistics of one input's thinning. All thinnings ask for a statistic over
    the model, or none does."""
    own: list[tuple[Any, ...]] = []
    models = int(any(t.model is not None for _, t in taken))
    for row, found in enumerate(results):
        start, number = 0, row - models
        for i, thinning in taken:
            levels = thinning.levels
            width = 1 if number < 0 else levels[number][0] if number < len(levels) else 0
            if i == index:
                own.append(found[start : start + width])
                break
            start += width
    return tuple(own)


def _sum(xp: Any, inputs: Inputs, vectors: Sequence[Array]) -> Array:
    """Their sum in order, in an array of its own."""
    if not vectors:
        return xp.zeros_like(inputs["base"][0])
    total = vectors[0] + vectors[1] if len(vectors) > 1 else vectors[0] * 1
    for vector in vectors[2:]:
        total += vector
    return total


def _elect(
    xp: Any, total: Array, vectors: Sequence[Array], shares: Sequence[float] | None
) -> Array:
    """Twice the sum of the entries that have the sign of ``total``, divided by their shares."""
    plus = total >= 0
    sign = xp.astype(plus, total.dtype)
    sign *= 2
    sign -= 1
    sizes = xp.zeros_like(total)
    for vector in vectors:
        sizes += xp.abs(vector)
    sizes *= sign
    total += sizes
    if shares is not None:
        total /= _agreeing(xp, plus, vectors, shares, total.dtype)
    return total


def _agreeing(
    xp: Any, plus: Array, vectors: Sequence[Array], shares: Sequence[float], dtype: Any
) -> Array:
    """For each element the sum of the shares of the entries that have the elected sign, 1 where
    there are none. Inputs of one share are counted in bytes, which is much faster than adding."""
    divisor: Array = 0
    counter = xp.uint8 if len(vectors) < 256 else xp.int32
    kinds = dict.fromkeys(shares)
    for share in kinds:
        above: Array = 0
        below: Array = 0
        for vector, own in zip(vectors, shares, strict=True):
            if own == share:
                above = above + xp.astype(vector > 0, counter)
                below = below + xp.astype(vector < 0, counter)
        counts = below + plus * (above - below)
        if len(kinds) == 1:
            return xp.astype(xp.maximum(counts, 1), dtype) * share
        divisor = divisor + xp.astype(counts, dtype) * share
    return divisor + (divisor == 0)


def _finish(total: Array, factor: float, inputs: Inputs) -> Array:
    if factor != 1:
        total *= factor
    total += inputs["base"][0]
    return total
