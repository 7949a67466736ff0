"""Merges that are linear in their inputs, with coefficients from the inputs' dot products.

With V_i = X_i (or X_i - B) as vectors and G_ij = <V_i, V_j>, every norm, angle and tangent of a
mean on the sphere is an expression in G alone. So one look at the inputs gives G, the rest is
arithmetic on a small float64 matrix on the host, and one linear combination is the result.

Accuracy: products are float32 (float64 for F64 tensors) and are summed in float64, so <x, y> is off
by at most 2^-24 |x| |y| and a cosine by at most 2^-23, mostly far less, since the errors of many
elements cancel. The coefficients vary as smoothly with a cosine as they do in :mod:`.sphere`, so
that is about one rounding of float32. Squares below float32's range vanish: elements below 1e-19
count as zero in a norm.

Example:
    >>> matrix((4.0, 1.0, 9.0), 2)
    [[4.0, 1.0], [1.0, 9.0]]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from typing import Any, TypeAlias

from recipelang.diagnostics import fault
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results, SumsOf

__all__ = [
    "Matrix", "cosines", "gram_kernel", "matrix", "normalised", "single", "unused", "used",
    "vectors",
]  # fmt: skip

Matrix: TypeAlias = "list[list[float]]"


def gram_kernel(
    taken: Sequence[int],
    solve: Callable[[Matrix], Sequence[float]],
    *,
    base: bool = False,
    unread: frozenset[tuple[str, int]] = frozenset(),
) -> Kernel:
    """R = sum_i c_i V_i over the inputs ``taken``, c = ``solve(G)``; with ``base`` V_i = X_i - B
    and R = B + sum_i c_i V_i."""

    def products(xp: Any, inputs: Inputs, block: Block) -> Iterable[Array]:
        found = vectors(inputs, taken, base)
        for i, left in enumerate(found):
            for right in found[: i + 1]:
                yield left * right

    def combine(xp: Any, inputs: Inputs, block: Block, coefficients: Sequence[float]) -> Array:
        first, *others = vectors(inputs, taken, base)
        total = first * coefficients[0]
        for vector, coefficient in zip(others, coefficients[1:], strict=True):
            total += vector * coefficient
        if base:
            total += inputs["base"][0]
        return total

    def coefficients(results: Results) -> tuple[float, ...]:
        found: Any = results[0][0]
        return tuple(solve(matrix(found, len(taken))))

    return Kernel(combine, (lambda results: (SumsOf(products),),), unread, solve=coefficients)


def vectors(inputs: Inputs, taken: Sequence[int], base: bool) -> list[Array]:
    """The blocks of the inputs ``taken``, with ``base`` their differences to the base."""
    found = [inputs["inputs"][i] for i in taken]
    return [x - inputs["base"][0] for x in found] if base else found


def single(index: int, count: int, *, base: bool = False) -> Kernel:
    """The kernel that gives the input ``index`` of ``count`` and reads nothing else."""
    unread = unused(count, (index,))
    if base:
        unread |= {("base", 0)}
    return Kernel(lambda xp, inputs, block, results: inputs["inputs"][index], (), unread)


def matrix(sums: Sequence[float], size: int) -> Matrix:
    """The symmetric matrix whose lower triangle these are, row by row; zeros for no sums (a tensor
    without elements)."""
    found = iter(sums) if sums else iter([0.0] * (size * (size + 1) // 2))
    rows = [[next(found) for _ in range(i + 1)] for i in range(size)]
    return [[rows[max(i, j)][min(i, j)] for j in range(size)] for i in range(size)]


def cosines(gram: Matrix) -> tuple[list[float], Matrix]:
    """The norms, and the cosines between the vectors; 0 with a zero vector, 1 on the diagonal
    else.

    >>> cosines([[4.0, 1.0], [1.0, 0.25]])
    ([2.0, 0.5], [[1.0, 1.0], [1.0, 1.0]])
    """
    norms = [sqrt(row[i]) for i, row in enumerate(gram)]

    def cosine(i: int, j: int) -> float:
        length = norms[i] * norms[j]
        if length == 0:
            return 0.0
        return 1.0 if i == j else max(-1.0, min(1.0, gram[i][j] / length))

    places = range(len(gram))
    return norms, [[cosine(i, j) for j in places] for i in places]


def used(weights: Sequence[float]) -> list[int]:
    """The inputs that carry weight; the first where none does."""
    return [i for i, weight in enumerate(weights) if weight] or [0]


def unused(count: int, taken: Sequence[int]) -> frozenset[tuple[str, int]]:
    """The inputs that are not taken, as a kernel names those it does not read."""
    return frozenset(("inputs", i) for i in range(count) if i not in taken)


def normalised(weights: Sequence[float], help: str = "change a weight") -> list[float]:
    """The weights divided by their sum. Raises RecipeError E0541 where that is zero."""
    total = sum(weights)
    if total == 0:
        raise fault(
            "E0541",
            "the weights of a tensor add up to zero, and the result is divided by their sum",
            help=help,
        )
    return [weight / total for weight in weights]
