"""Merges that decompose task matrices, D_i = X_i - B of a 2-D tensor, weights w_i.

- task singular vectors (Gargiulo et al. 2025, arXiv 2412.00081, TSV-M): D_i = U_i S_i V_i^T cut to
  its leading r triplets; U = [U_1 … U_n], V = [V_1 … V_n], S = diag(w_1 S_1, …, w_n S_n); U' and V'
  the nearest matrices with orthonormal columns; R = B + scale * U' S V'^T.
- isotropic (Marczak et al. 2025, arXiv 2502.04959, Iso-C): sum_i w_i D_i = U S V^T of rank k;
  R = B + scale * (sum of S / k) U V^T.

Both give the change as a product of two factors, of which the rows of the result are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipelang.types import TensorInfo
from recipelang.weights.kernel import Array, Load, MatrixKernel, Prepared, Ranges, Rows
from recipelang.weights.kernels.gram import unused
from recipelang.weights.kernels.svd import Matrix, orthogonalise, svd, svd_bytes

__all__ = ["isotropic", "isotropic_bytes", "singular_vectors", "singular_vectors_bytes"]


def singular_vectors(
    weights: Sequence[float], infos: Sequence[TensorInfo], rank: int, scale: float
) -> MatrixKernel:
    """The kernel over roles ``inputs`` and ``base``, whose tensors are ``infos``; ``rank`` triplets
    of each input are kept."""
    used = [i for i, weight in enumerate(weights) if weight]

    def prepare(xp: Any, load: Load, ranges: Ranges) -> Prepared:
        dtype, (rows, columns) = load("base", 0, 0, 1).dtype, infos[0].shape
        left = xp.empty((rows, rank * len(used)), dtype)
        right = xp.empty((columns, rank * len(used)), dtype)
        spectrum = xp.zeros(rank * len(used))

        def add(i: int, at: int) -> int:
            """Put the triplets of a task behind those before it; gives where they end."""
            change = Matrix((rows, columns), dtype, _change(xp, load, {i: 1.0}), ranges)
            found = svd(xp, change, rank)
            end = at + len(found.s)
            left[:, at:end], right[:, at:end] = found.u, found.v
            spectrum[at:end] = found.s * (weights[i] * scale)
            return end

        count = 0
        for i in used:
            count = add(i, count)
        turned = orthogonalise(xp, left[:, :count])
        turned *= spectrum[:count].astype(dtype)
        return _updated(load, turned, orthogonalise(xp, right[:, :count]).T)

    memory = singular_vectors_bytes(infos, rank, len(used))
    return MatrixKernel(prepare, memory, unused(len(weights), used))


def isotropic(weights: Sequence[float], infos: Sequence[TensorInfo], scale: float) -> MatrixKernel:
    """The kernel over roles ``inputs`` and ``base``, whose tensors are ``infos``."""
    used = {i: weight for i, weight in enumerate(weights) if weight}

    def prepare(xp: Any, load: Load, ranges: Ranges) -> Prepared:
        dtype, (rows, columns) = load("base", 0, 0, 1).dtype, infos[0].shape
        change = Matrix((rows, columns), dtype, _change(xp, load, used), ranges)
        found = svd(xp, change, min(rows, columns))
        left = found.u
        left *= scale * float(found.s.mean()) if found.s.size else 0.0
        return _updated(load, left, found.v.T)

    return MatrixKernel(prepare, isotropic_bytes(infos), unused(len(weights), list(used)))


def singular_vectors_bytes(infos: Sequence[TensorInfo], rank: int, count: int) -> int:
    """About the memory that :func:`singular_vectors` takes for ``count`` inputs."""
    (rows, columns), item = infos[0].shape, _item(infos)
    width = rank * count
    gram = 6 * 8 * min(width, max(rows, columns)) ** 2
    return width * (rows + columns) * item + max(svd_bytes((rows, columns), rank, item), gram)


def isotropic_bytes(infos: Sequence[TensorInfo]) -> int:
    """About the memory that :func:`isotropic` takes."""
    rows, columns = infos[0].shape
    return svd_bytes((rows, columns), min(rows, columns), _item(infos))


def _item(infos: Sequence[TensorInfo]) -> int:
    """The bytes of a number that is computed with."""
    return 8 if any(info.dtype == "F64" for info in infos) else 4


def _change(xp: Any, load: Load, used: Mapping[int, float]) -> Rows:
    """The rows of sum_i w_i (X_i - B)."""

    def rows(first: int, last: int) -> Array:
        base = load("base", 0, first, last)
        total = xp.zeros_like(base)
        for i, weight in used.items():
            total += (load("inputs", i, first, last) - base) * weight
        return total

    return rows


def _updated(load: Load, left: Array, right: Array) -> Prepared:
    """The rows of B + left right."""

    def rows(first: int, last: int) -> Array:
        change = left[first:last] @ right
        change += load("base", 0, first, last)
        return change

    return Prepared((rows,))
