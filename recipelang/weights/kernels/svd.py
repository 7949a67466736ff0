"""Singular value decompositions of matrices that are read row by row, and what merges make of them.

``svd`` takes the eigenvectors of the smaller Gram matrix (D^T D of a tall D) in float64, so that of
a tall matrix only a square of its smaller side is in memory beside the singular vectors asked for.
An eigenvalue has the error of float64 relative to the largest, so a singular value s has a relative
error of about 2**-52 (s_1 / s)^2, where s_1 is the largest: for float32 data this is below what
their own rounding leaves undecided. What is not above ``NEGLIGIBLE`` times s_1 counts as zero and
is left out, with its singular vectors, which are arbitrary.

Example:
    >>> import numpy as np
    >>> found = svd(np, of_array(np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])), rank=2)
    >>> found.s.tolist(), found.energy
    ([4.0, 3.0], 25.0)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi
from typing import Any

from recipelang.weights.kernel import Array, Ranges, Rows

__all__ = [
    "NEGLIGIBLE",
    "Matrix",
    "Svd",
    "of_array",
    "orthogonalise",
    "randomised_svd",
    "svd",
    "svd_bytes",
    "svd_flops",
]

NEGLIGIBLE = 2.0**-20
"""Singular values up to this share of the largest count as zero: float32 does not resolve them."""
POWER_ITERATIONS = 2
OVERSAMPLING = 8
RANGE_ELEMENTS = 1 << 20
"""Matrices in memory are worked through in ranges of about so many elements."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of ``shape`` (rows, columns) that is read in row ranges, as float32 or float64."""

    shape: tuple[int, int]
    dtype: Any
    rows: Rows
    ranges: Ranges

    def parts(self) -> Iterator[tuple[int, int, Array]]:
        """First row, row behind the last, and the rows of each range."""
        for first, last in self.ranges:
            yield first, last, self.rows(first, last)


@dataclass(frozen=True, slots=True)
class Svd:
    """``u`` (rows, k), ``s`` (k,) in descending order and ``v`` (columns, k) with the matrix close
    to ``u diag(s) v^T``; ``k`` may be 0. ``energy`` is the matrix's squared Frobenius norm."""

    u: Array
    s: Array
    v: Array
    energy: float


def of_array(array: Array) -> Matrix:
    """A matrix that is in memory."""
    rows, columns = array.shape
    step = max(1, RANGE_ELEMENTS // max(1, columns))
    ranges = tuple((first, min(first + step, rows)) for first in range(0, rows, step))
    return Matrix((rows, columns), array.dtype, lambda first, last: array[first:last], ranges)


def svd(xp: Any, matrix: Matrix, rank: int) -> Svd:
    """The leading ``rank`` singular triplets, those left out that count as zero.

    Factors are in the matrix's dtype. A wide matrix is brought into memory whole, a tall one never.
    """
    if matrix.shape[0] < matrix.shape[1]:
        flat = svd(xp, of_array(_whole(xp, matrix).T), rank)
        return Svd(flat.v, flat.s, flat.u, flat.energy)
    gram = _gram(xp, matrix)
    values, vectors = xp.linalg.eigh(gram)
    s = xp.sqrt(xp.maximum(values[::-1], 0))
    kept = min(rank, _significant(xp, s))
    s, v = s[:kept], vectors[:, ::-1][:, :kept]
    u = _times(xp, matrix, v / s, matrix.dtype)
    return Svd(u, s, v.astype(matrix.dtype), float(xp.trace(gram)))


def randomised_svd(xp: Any, matrix: Matrix, rank: int, draws: str, name: str) -> Svd:
    """Nearly the leading ``rank`` triplets, from a random sketch of ``rank + OVERSAMPLING`` columns
    and ``POWER_ITERATIONS`` steps of subspace iteration (Halko, Martinsson and Tropp 2011, arXiv
    0909.4061, algorithms 4.4 and 5.1), in float64.

    The sketch is Gaussian, keyed by ``draws`` and ``name``. The matrix is read row by row,
    3 + 2 POWER_ITERATIONS times, and never in memory whole.
    """
    width = min(rank + OVERSAMPLING, *matrix.shape)
    basis = _gaussian(xp, matrix.shape[1], width, draws, name)
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(xp, _times(xp, matrix, basis, xp.float64))
        basis = _orthonormal(xp, _transposed_times(xp, matrix, basis))
    basis = _orthonormal(xp, _times(xp, matrix, basis, xp.float64))
    v, s, inner = xp.linalg.svd(_transposed_times(xp, matrix, basis), full_matrices=False)
    kept = min(rank, _significant(xp, s))
    u = (basis @ inner.T)[:, :kept]
    return Svd(
        u.astype(matrix.dtype), s[:kept], v[:, :kept].astype(matrix.dtype), _energy(xp, matrix)
    )


def orthogonalise(xp: Any, array: Array) -> Array:
    """The nearest matrix with orthonormal columns (rows, where there are fewer), the solution of
    the orthogonal Procrustes problem: P Q^T of an SVD P S Q^T. It is written over ``array``.

    Directions whose singular value counts as zero have none: they stay out, so the result is a
    partial isometry and does not depend on how vectors of a null space were chosen.
    """
    if not array.size:
        return array
    if array.shape[0] < array.shape[1]:
        return orthogonalise(xp, array.T).T
    matrix = of_array(array)
    values, vectors = xp.linalg.eigh(_gram(xp, matrix))
    kept = values > NEGLIGIBLE**2 * max(0.0, float(values[-1]))
    directions = vectors[:, kept]
    root = (directions / xp.sqrt(values[kept])) @ directions.T
    for first, last, part in matrix.parts():
        array[first:last] = part @ root
    return array


def svd_bytes(shape: tuple[int, int], rank: int, item: int) -> int:
    """About the memory that :func:`svd` needs at its peak, with numbers of ``item`` bytes."""
    longer, smaller = max(shape), min(shape)
    elements = longer * smaller
    whole = elements * item if shape[0] < shape[1] else 0
    squares, reading = 6 * 8 * smaller**2, 3 * 8 * min(elements, RANGE_ELEMENTS)
    return squares + reading + whole + longer * min(rank, smaller) * item


def svd_flops(shape: tuple[int, int]) -> float:
    """About the operations of :func:`svd`: the Gram matrix, its eigenvectors, one product."""
    longer, smaller = max(shape), min(shape)
    return 4.0 * longer * smaller**2 + 12.0 * smaller**3


def _whole(xp: Any, matrix: Matrix) -> Array:
    whole = xp.empty(matrix.shape, matrix.dtype)
    for first, last, part in matrix.parts():
        whole[first:last] = part
    return whole


def _gram(xp: Any, matrix: Matrix) -> Array:
    """D^T D, summed in float64."""
    gram = xp.zeros((matrix.shape[1], matrix.shape[1]), xp.float64)
    for _, _, part in matrix.parts():
        wide = part.astype(xp.float64)
        gram += wide.T @ wide
    return gram


def _energy(xp: Any, matrix: Matrix) -> float:
    """The squared Frobenius norm, summed in float64."""
    return sum(float((part.astype(xp.float64) ** 2).sum()) for _, _, part in matrix.parts())


def _significant(xp: Any, s: Array) -> int:
    """How many singular values (in descending order) do not count as zero."""
    return int(xp.sum(s > NEGLIGIBLE * s[0])) if s.size else 0


def _times(xp: Any, matrix: Matrix, right: Array, dtype: Any) -> Array:
    """D times a matrix, each product in float64, rounded to ``dtype``."""
    product = xp.empty((matrix.shape[0], right.shape[1]), dtype)
    for first, last, part in matrix.parts():
        product[first:last] = part.astype(xp.float64) @ right
    return product


def _transposed_times(xp: Any, matrix: Matrix, right: Array) -> Array:
    """D^T times a matrix, in float64."""
    total = xp.zeros((matrix.shape[1], right.shape[1]), xp.float64)
    for first, last, part in matrix.parts():
        total += part.astype(xp.float64).T @ right[first:last]
    return total


def _orthonormal(xp: Any, array: Array) -> Array:
    return xp.linalg.qr(array)[0]


def _gaussian(xp: Any, rows: int, columns: int, draws: str, name: str) -> Array:
    """Normal draws by Box and Muller's transform, (rows, columns) float64."""
    from recipelang.data.draws import uniform

    count = rows * columns
    first, second = (uniform(draws, f"svd {name}", i, count) for i in range(2))
    normal = xp.sqrt(-2 * xp.log(1 - xp.asarray(first))) * xp.cos(2 * pi * xp.asarray(second))
    return normal.reshape(rows, columns)
