"""Singular value decompositions by Gram matrices and by random sketches, against LAPACK's."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from recipelang.weights.kernels import svd as svd_module
from recipelang.weights.kernels.svd import (
    NEGLIGIBLE,
    Matrix,
    of_array,
    orthogonalise,
    randomised_svd,
    svd,
    svd_bytes,
)

SHAPES = [(60, 9), (9, 60), (20, 20), (1, 7), (7, 1)]


def matrix_of(spectrum: Any, shape: tuple[int, int], seed: int = 0) -> Any:
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    count = len(spectrum)
    left, right = (np.linalg.qr(rng.standard_normal((side, count)))[0] for side in shape)
    return (left * spectrum) @ right.T


def in_ranges(array: Any, step: int) -> Matrix:
    """The matrix, read a few rows at a time into arrays of their own."""
    ranges = tuple((i, min(i + step, len(array))) for i in range(0, len(array), step))
    return Matrix(array.shape, array.dtype, lambda first, last: array[first:last].copy(), ranges)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [1, 4, 100])
def test_triplets_are_lapack_s(shape: tuple[int, int], step: int) -> None:
    """Values, vectors up to their sign, energy, and the product, in float64 and in float32."""
    array = np.random.default_rng(1).standard_normal(shape)
    u, s, vt = np.linalg.svd(array, full_matrices=False)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-6)):
        found = svd(np, in_ranges(array.astype(dtype), step), 5)
        count = min(5, *shape)
        assert (found.u.dtype, found.v.dtype) == (dtype, dtype)
        assert (found.u.shape, found.v.shape) == ((shape[0], count), (shape[1], count))
        np.testing.assert_allclose(found.s, s[:count], rtol=tolerance)
        np.testing.assert_allclose(np.abs((found.u * u[:, :count]).sum(0)), 1, rtol=tolerance)
        product, cut = (found.u * found.s) @ found.v.T, (u[:, :count] * s[:count]) @ vt[:count]
        np.testing.assert_allclose(product, cut, atol=10 * tolerance)
        np.testing.assert_allclose(found.energy, (s**2).sum(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(200, 40), (40, 200)])
def test_small_singular_values_have_the_stated_error(shape: tuple[int, int]) -> None:
    """The relative error of s is within 2^-52 (s_1 / s)^2 times a small number, and its vectors are
    orthonormal to it, over six orders of magnitude; what is smaller is left out."""
    spectrum = 10.0 ** -np.linspace(0, 8, 40)
    array = matrix_of(spectrum, shape)
    found = svd(np, of_array(array), 40)
    kept = spectrum[spectrum > NEGLIGIBLE]
    assert len(found.s) == len(kept)
    bound = 20 * 2.0**-52 * (kept[0] / kept) ** 2 + 1e-13
    assert (np.abs(found.s / kept - 1) <= bound).all()
    for vectors in (found.u, found.v):
        wrong = np.abs(vectors.T @ vectors - np.eye(len(kept)))
        assert (wrong <= 50 * 2.0**-52 * np.outer(1 / kept, 1 / kept) + 1e-13).all()


def test_float32_loses_less_than_its_own_rounding() -> None:
    """On float32 data the error in every singular value is below that of LAPACK in float32."""
    exact = matrix_of(10.0 ** -np.linspace(0, 5, 30), (300, 30), seed=2).astype(np.float32)
    true = np.linalg.svd(exact.astype(np.float64))[1]
    mine = np.abs(svd(np, of_array(exact), 30).s - true)
    theirs = np.abs(np.linalg.svd(exact)[1] - true)
    assert mine.max() < theirs.max()


@pytest.mark.parametrize("shape", [(20_000, 64), (64, 20_000)])
def test_memory_is_what_is_stated(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays at the peak are within the stated bytes; a tall matrix is never whole."""
    monkeypatch.setattr(svd_module, "RANGE_ELEMENTS", 1 << 16)
    array = np.random.default_rng(0).standard_normal(shape, np.float32)
    matrix = in_ranges(array, max(1, (1 << 16) // shape[1]))
    tracemalloc.start()
    try:
        svd(np, matrix, 8)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < svd_bytes(shape, 8, 4)
    assert (svd_bytes(shape, 8, 4) < array.nbytes) == (shape[0] > 64)


def test_what_is_zero_has_no_triplets() -> None:
    """Zeros give none; a matrix of rank 2 gives two."""
    nothing = svd(np, of_array(np.zeros((6, 4), np.float32)), 3)
    assert (nothing.u.shape, nothing.s.shape, nothing.v.shape) == ((6, 0), (0,), (4, 0))
    assert nothing.energy == 0
    low = matrix_of([3.0, 1.0], (30, 12)).astype(np.float32)
    assert len(svd(np, of_array(low), 12).s) == 2
    assert len(randomised_svd(np, of_array(low), 12, "k", "w").s) == 2
    assert len(randomised_svd(np, of_array(low * 0), 12, "k", "w").s) == 0


@pytest.mark.parametrize("shape", [(300, 80), (80, 300)])
@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_a_random_sketch_is_nearly_optimal(shape: tuple[int, int], decay: float) -> None:
    """With singular values k^-decay, slow as those of fine-tunes, the error of rank 8 is within 2 %
    of the least possible, for every one of ten sketches."""
    spectrum = np.arange(1, 81) ** -decay
    array = matrix_of(spectrum, shape)
    least = np.sqrt((spectrum[8:] ** 2).sum())
    for draws in range(10):
        found = randomised_svd(np, in_ranges(array, 37), 8, f"{draws}", "w")
        error = np.linalg.norm(array - (found.u * found.s) @ found.v.T)
        assert least * (1 - 1e-9) <= error <= 1.02 * least
        np.testing.assert_allclose(found.energy, (spectrum**2).sum(), rtol=1e-9)
        np.testing.assert_allclose(found.u.T @ found.u, np.eye(8), atol=1e-12)
        np.testing.assert_allclose(found.v.T @ found.v, np.eye(8), atol=1e-12)


def test_a_sketch_is_keyed_by_draws_and_name() -> None:
    """Equal keys give equal bits, other keys other sketches."""
    array = matrix_of(np.arange(1, 41) ** -0.2, (60, 40))
    bits = {
        key: randomised_svd(np, of_array(array), 4, *key).u.tobytes()
        for key in (("a", "w"), ("b", "w"), ("a", "v"))
    }
    assert len(set(bits.values())) == 3
    assert randomised_svd(np, of_array(array), 4, "a", "w").u.tobytes() == bits["a", "w"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_orthogonalise_is_procrustes(shape: tuple[int, int], dtype: Any) -> None:
    """P Q^T of LAPACK's P S Q^T."""
    array = np.random.default_rng(3).standard_normal(shape)
    p, _, qt = np.linalg.svd(array, full_matrices=False)
    got = orthogonalise(np, array.astype(dtype))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, p @ qt, atol=1e-13 if dtype == np.float64 else 1e-6)


def test_orthogonalise_leaves_null_directions_out() -> None:
    """A column twice is one direction, its two shares equal; zeros and nothing stay what they
    are."""
    column = np.array([[3.0], [4.0], [0.0]])
    got = orthogonalise(np, np.hstack([column, column]))
    np.testing.assert_allclose(got, np.hstack([column, column]) / 5 / np.sqrt(2), atol=1e-15)
    assert not orthogonalise(np, np.zeros((3, 2))).any()
    assert orthogonalise(np, np.zeros((3, 0))).shape == (3, 0)
