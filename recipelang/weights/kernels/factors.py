"""The factors of a low-rank change: A and B with scale * B A close to D = X - B0, by a truncated
singular value decomposition (Eckart and Young 1936: no matrix of that rank is closer)."""

from __future__ import annotations

from typing import Any

from recipelang.types import TensorInfo
from recipelang.weights.kernel import Array, Load, MatrixKernel, Prepared, Ranges, Rows
from recipelang.weights.kernels.svd import (
    OVERSAMPLING,
    POWER_ITERATIONS,
    Matrix,
    randomised_svd,
    svd,
    svd_bytes,
    svd_flops,
)

__all__ = ["factors", "factors_bytes", "factors_flops"]


def factors(
    info: TensorInfo, rank: int, scale: float, *, transposed: bool, sketch: tuple[str, str] | None
) -> MatrixKernel:
    """The kernel over roles ``model`` and ``base`` that gives A and B of a weight.

    With U S V^T the leading ``rank`` triplets of D (of its transpose where the weight is
    ``transposed``): A = (S / scale)^(1/2) V^T and B = U (S / scale)^(1/2); where D has fewer, the
    rest is zeros. ``sketch`` (draws and name) asks for the randomised decomposition. Facts: the
    squared Frobenius norm of D (``energy``) and of what is kept of it (``kept``).
    """
    rows, columns = info.shape

    def change(load: Load, ranges: Ranges) -> Matrix:
        def difference(first: int, last: int) -> Array:
            return load("model", 0, first, last) - load("base", 0, first, last)

        dtype = load("base", 0, 0, 1).dtype
        return Matrix((rows, columns), dtype, difference, ranges)

    def prepare(xp: Any, load: Load, ranges: Ranges) -> Prepared:
        matrix = change(load, ranges)
        if sketch is None:
            found = svd(xp, matrix, rank)
        else:
            found = randomised_svd(xp, matrix, rank, *sketch)
        u, v = (found.v, found.u) if transposed else (found.u, found.v)
        root = xp.sqrt(found.s / scale).astype(matrix.dtype)
        a, b = _padded(xp, v * root, rank).T, _padded(xp, u * root, rank)
        facts = {"energy": found.energy, "kept": float((found.s**2).sum())}
        return Prepared((_rows(a), _rows(b)), facts)

    return MatrixKernel(prepare, factors_bytes(info, rank, randomised=sketch is not None))


def factors_bytes(info: TensorInfo, rank: int, *, randomised: bool) -> int:
    """About the memory that :func:`factors` takes."""
    rows, columns = info.shape
    if randomised:
        return 3 * 8 * (rank + OVERSAMPLING) * (rows + columns)
    return svd_bytes((rows, columns), rank, 8 if info.dtype == "F64" else 4)


def factors_flops(info: TensorInfo, rank: int, *, randomised: bool) -> float:
    """About the operations that it takes."""
    rows, columns = info.shape
    if randomised:
        return 4.0 * (1 + POWER_ITERATIONS) * info.elements * (rank + OVERSAMPLING)
    return svd_flops((rows, columns))


def _rows(array: Array) -> Rows:
    return lambda first, last: array[first:last]


def _padded(xp: Any, array: Array, width: int) -> Array:
    """The array with columns of zeros up to ``width``."""
    padded = xp.zeros((array.shape[0], width), array.dtype)
    padded[:, : array.shape[1]] = array
    return padded
