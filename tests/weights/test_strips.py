"""Lazy arrays give numpy's bits: conversions, operations, masks, sums, brackets, ranks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from recipelang.native import library
from recipelang.types import TensorInfo
from recipelang.weights.arrays import HOST
from recipelang.weights.blocks import blocks_of
from recipelang.weights.kernel import Block, ColumnSums, Inputs, KthMagnitude, SumOf, SumsOf
from recipelang.weights.kernels.thinning import row_ranks
from recipelang.weights.kernels.uniform_bits import half_words, keys
from recipelang.weights.looks import Look, take_level
from recipelang.weights.statistics import KthAccumulator, SumAccumulator
from recipelang.weights.strips.arrays import STRIPS
from recipelang.weights.strips.lazy import XP, Lazy, checked, concrete, convert, of
from recipelang.weights.strips.statistics import add
from recipelang.weights.sums import STRIP, added

pytestmark = pytest.mark.skipif(library() is None, reason="the compiled part was not built")
BF16 = np.dtype(ml_dtypes.bfloat16)
F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
ODD = (-0.0, 0.0, 1.0, -2.5, 1e-45, 3e38, np.inf, -np.inf, np.nan)


def draws(size: int, dtype: Any = F4, seed: int = 0) -> NDArray[Any]:
    """Normal draws, among them zeros, equals, subnormals, infinities and NaN."""
    found = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    places = np.random.default_rng(seed + 1).integers(0, max(1, size), min(size, 3 * len(ODD)))
    found[places] = np.resize(np.array(ODD, dtype), places.size)
    return found


def same(a: Any, b: Any) -> None:
    """The same bits, any NaN for any NaN."""
    a, b = concrete(a), np.asarray(b)
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    if a.dtype.kind == "f" or a.dtype == BF16:
        nan = np.isnan(a)
        np.testing.assert_array_equal(nan, np.isnan(b))
        a, b = a[~nan], b[~nan]
    assert a.tobytes() == b.tobytes()


STEPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "x + y": lambda xp, x, y: x + y, "y - x": lambda xp, x, y: y - x,
    "x * y": lambda xp, x, y: x * y, "x / y": lambda xp, x, y: x / y,
    "x + 0.1": lambda xp, x, y: x + 0.1, "1.5 - x": lambda xp, x, y: 1.5 - x,
    "3 * x": lambda xp, x, y: 3 * x, "1 / x": lambda xp, x, y: 1 / x,
    "x / 3": lambda xp, x, y: x / 3,
    "x - 2": lambda xp, x, y: x - 2, "x ** 2": lambda xp, x, y: x**2, "-x": lambda xp, x, y: -x,
    "abs": lambda xp, x, y: xp.abs(x), "sqrt": lambda xp, x, y: xp.sqrt(xp.abs(x)),
    "square": lambda xp, x, y: xp.square(x), "mask": lambda xp, x, y: x * (x > y),
    "where": lambda xp, x, y: xp.where(x >= y, x, 0.25), "sign": lambda xp, x, y: xp.copysign(x, y),
    "or": lambda xp, x, y: y * ((x > 0) | (y <= 1)), "not": lambda xp, x, y: x * ~(x < 0.5),
    "xor": lambda xp, x, y: y + ((x == y) ^ (x != 2.0)),
    "counts": lambda xp, x, y: x * xp.astype(
        0 + xp.astype(x > 0, xp.uint8) + (y < 0) * xp.astype(y < x, xp.uint8), x.dtype
    ),
    "at least": lambda xp, x, y: y / xp.astype(xp.maximum(xp.astype(x > 1, xp.uint8), 1), y.dtype),
    "wide": lambda xp, x, y: xp.astype(xp.astype(x, xp.float64) * 3, x.dtype),
    "sort": lambda xp, x, y: xp.sort(x) + y,
}  # fmt: skip
"""Functions of two arrays that a kernel might hold."""


@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=12),
    st.sampled_from([1, 3, STRIP - 1, STRIP, 2 * STRIP + 17]),
    st.sampled_from([F4, F8]),
)
def test_programs_have_numpys_bits(names: list[str], size: int, dtype: np.dtype[Any]) -> None:
    """Whatever follows on whatever; with assignments in place, which never change what was read."""
    first, second = draws(size, dtype), draws(size, dtype, seed=7)
    x, y, lazy, other = first.copy(), second.copy(), of(first), of(second)
    with np.errstate(all="ignore"):
        for name in names:
            x, y = STEPS[name](np, x, y), x
            lazy, other = STEPS[name](XP, lazy, other), lazy
        y = y * 1
        y += x
    other += lazy
    same(lazy, x)
    same(other, y)
    assert first.tobytes() == draws(size, dtype).tobytes()


@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float16)], ids=str)
def test_every_16_bit_number_is_converted_as_numpy_does(dtype: np.dtype[Any]) -> None:
    """To float32 and float64, and back from what lies on, beside and between them."""
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        same(convert(every, F4), every.astype(F4))
        same(convert(every, F8), every.astype(F8))
        bits = every.astype(F4).view(np.uint32)
    beside = np.concatenate([bits + np.uint32(d) for d in (0, 1, 0xFFF, 0x1000, 0x1001, 0x8000)])
    values = np.concatenate([beside, np.random.default_rng(0).integers(0, 1 << 32, 1 << 18)])
    wide = values.astype(np.uint32).view(F4)
    with np.errstate(all="ignore"):
        assert concrete(convert(wide, dtype)).tobytes() == wide.astype(dtype).tobytes()


@pytest.mark.parametrize("stored", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("wide", [F4, F8], ids=str)
def test_numbers_are_rounded_once(stored: str, wide: np.dtype[Any]) -> None:
    """From float64 to 16 bits too."""
    values = np.concatenate([draws(3000, wide), np.ldexp(draws(3000, wide), -20)])
    with np.errstate(all="ignore"):
        if not (stored == "F64" and wide == F4):
            same(STRIPS.narrow(of(values), stored), HOST.narrow(values, stored))
        same(STRIPS.narrow(of(values) * 1.0, stored if wide == F8 else "BF16"),
             HOST.narrow(values * wide.type(1), stored if wide == F8 else "BF16"))  # fmt: skip


@pytest.mark.parametrize("start", [0, 1, 2**33 - 5000, 3 * 2**33 - 4001])
def test_half_words(start: int) -> None:
    """From odd starts, and where the low word of an index wraps."""
    key = keys("draws", "name")
    same(half_words(XP, key, start, start + 10_001), half_words(np, key, start, start + 10_001))
    limit = 1 << 16
    assert concrete(half_words(XP, key, start, start + 99) < limit).all()


@given(st.integers(0, 3 * STRIP), st.sampled_from([F4, F8]), st.integers(1, 5))
def test_sums_have_one_order(size: int, dtype: np.dtype[Any], pieces: int) -> None:
    """The written one, piece by piece."""
    values = np.random.default_rng(size).standard_normal(size).astype(dtype)
    ends = [size * i // pieces for i in range(pieces + 1)]
    cut = list(pairwise(ends))
    expected = 0.5
    for first, last in cut:
        expected = added(expected, values[first:last] * 2)
    one = SumAccumulator(SumOf(lambda xp, inputs, block: inputs["x"][0] * 2))
    two = SumAccumulator(SumsOf(lambda xp, inputs, block: iter((inputs["x"][0] * 2, values > 0))))
    one.totals, two.totals = [0.5], [0.5, 0.0]
    add([one, two], {"x": (of(values),)}, Block(0, size, (size,)), cut)
    assert one.totals == [expected]
    assert two.totals == [expected, float(np.count_nonzero(values > 0))]


def test_sums_of_columns_have_one_order() -> None:
    """Block by block of numpy's, however many are computed at once."""
    info = TensorInfo("F32", (1500, 300))
    values = draws(info.elements, seed=3)
    values[~np.isfinite(values) | (abs(values) > 9)] = 1
    statistic = ColumnSums(lambda xp, inputs, block: inputs["x"][0] * inputs["x"][0])
    found: list[Any] = []
    for arrays in (HOST, STRIPS):

        def inputs(block: Block) -> Inputs:
            return {"x": (of(values[block.start : block.stop]),)}

        def few(block: Block) -> Inputs:
            return {"x": (values[block.start : block.stop],)}

        blocks = tuple(blocks_of(info, at_once=arrays.blocks_at_once))
        look = Look(info, arrays, blocks, few if arrays is HOST else inputs, few)
        found += take_level(look, (statistic,))
    same(found[1], found[0])


def test_a_sum_is_close_to_the_exact_one() -> None:
    """Folding loses no more than pairwise addition does."""
    from fractions import Fraction
    from math import fsum

    values = np.random.default_rng(0).standard_normal(100_000)
    assert abs(added(0.0, values) - fsum(values)) < 1e-11
    assert added(0.0, values[:2]) == float(Fraction(values[0]) + Fraction(values[1]))
    assert added(2.5, values[:0]) == 2.5


@given(st.sampled_from([1, 15, 16, 17, 5000]), st.sampled_from([F4, F8]), st.integers(0, 9))
def test_brackets_keep_what_numpy_keeps(size: int, dtype: np.dtype[Any], seed: int) -> None:
    """How many magnitudes are above, and those inside in order; NaN is neither."""
    values = draws(size, dtype, seed)
    value = KthMagnitude(lambda xp, inputs, block: inputs["x"][0], max(1, size // 3))
    ours, theirs = (KthAccumulator(value, size, None) for _ in range(2))
    for one in (ours, theirs):
        one._low, one._high = 0.5, 1.5
    add([ours], {"x": (of(values),)}, Block(0, size, (size,)), [(0, size)])
    theirs.add(0, values)
    assert ours._above == theirs._above
    assert np.concatenate(ours._inside).tobytes() == np.concatenate(theirs._inside).tobytes()


@pytest.mark.parametrize("row", [1, 2, 255, 256, 2048, 5000])
@pytest.mark.parametrize("kind", ["distinct", "equals", "zeros", "float64"])
def test_ranks(row: int, kind: str) -> None:
    """Lowest index first among equals, in rows of any length."""
    values = np.random.default_rng(row).standard_normal(3 * row)
    if kind == "equals":
        values = np.round(values * 4)
    if kind == "zeros":
        values *= 0
    values = values.astype(F8 if kind == "float64" else F4)
    same(row_ranks(XP, of(values), row), row_ranks(np, values.copy(), row))


def test_what_is_not_finite_is_found_when_it_is_computed() -> None:
    """The first that was checked speaks, whichever of its elements it is."""
    good, bad = np.ones(5000, F4), np.ones(5000, F4)
    bad[4321] = np.inf
    first = checked(of(bad.astype(BF16)), lambda: ValueError("first"))
    second = checked(of(bad), lambda: ValueError("second"))
    fine = checked(of(good), lambda: ValueError("never"))
    with pytest.raises(ValueError, match="first"):
        concrete(convert(first, F4) + second + fine)
    with pytest.raises(ValueError, match="second"):
        concrete(fine + second)
    same(fine + 1, good + 1)


def test_a_part_is_computed_alone() -> None:
    """The same elements, masks included."""
    values = draws(3000)
    node = of(values) * (half_words(XP, keys("a"), 7, 3007) < 30_000) * (XP.arange(3000) < 1500)
    part = STRIPS.fetch(node, "F32", 1201, 1999)
    assert isinstance(node, Lazy)
    same(part, concrete(node)[1201:1999])


def test_an_array_of_numpys_takes_a_lazy_one_in_place() -> None:
    """``array += lazy`` goes on as a lazy array; the array that was read stays."""
    array = np.ones(4, F4)
    total = array * 2
    total += of(array)
    assert isinstance(total, Lazy)
    same(total, np.full(4, 3, F4))
    same(np.float32(2) * of(array), np.full(4, 2, F4))
    assert array.tolist() == [1, 1, 1, 1]


def test_an_assignment_keeps_the_dtype() -> None:
    """As numpy's does: what is wider is rounded, what is of another kind is refused."""
    values = draws(3000)
    x, lazy = values.copy(), of(values)
    with np.errstate(all="ignore"):
        x *= np.float64(0.1)
        x += draws(3000, F8, seed=5)
    lazy *= np.float64(0.1)
    lazy += of(draws(3000, F8, seed=5))
    same(lazy, x)
    array = np.ones(3000, F4)
    array -= of(np.full(3000, 1e-9))
    same(array, np.ones(3000, F4))
    counts = of(np.ones(3, np.uint8))
    with pytest.raises(TypeError, match="float32"):
        counts *= of(np.ones(3, F4))


def test_a_lazy_array_is_as_true_as_numpys() -> None:
    """The truth of its element, of several there is none."""
    assert not (of(np.ones(1, F4)) > 1)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(of(np.zeros(2, F4)))


def test_powers_of_other_arrays() -> None:
    """Squares are products, other powers are numpy's."""
    x = np.array([1, 2, 3], F4)
    same(of(x) ** of(x), x**x)
    same(of(x) ** np.float64(2), x ** np.float64(2))
    same(of(x.astype(np.uint8)) ** 2.0, x.astype(np.uint8) ** 2.0)


def test_a_copy_is_one() -> None:
    """A node never changes with an array that was made of it."""
    node = of(np.ones(3, F4)) * 2
    copy = np.array(node)
    copy += 1
    same(node, np.full(3, 2, F4))


def test_arrays_stand_in_memory_as_the_library_reads_them() -> None:
    """At addresses of their dtype, one element behind the other."""
    odd = np.empty(4 * 5000 + 1, np.uint8)[1:].view(F4)
    odd[:] = draws(5000)
    node = of(odd)
    assert node.value is not None
    assert node.value.flags.aligned
    apart = np.repeat(draws(600), 2)[::2]
    same(XP.row_ranks(apart, 300), row_ranks(np, apart.copy(), 300))
