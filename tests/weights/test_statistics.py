"""Exact statistics over blocks, against a sort of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipelang.weights.kernel import ColumnSums, Kth, KthMagnitude, RowSums, SumOf, SumsOf
from recipelang.weights.statistics import KthAccumulator, accumulator


def select(
    values: Any, k: int, sample: Any, block: int, limit: int | None = None
) -> tuple[Kth, int]:
    """The answer, and how many passes it took."""
    one = KthAccumulator(KthMagnitude(lambda xp, inputs, block: inputs, k), values.size, sample)
    if limit is not None:
        one._limit = limit
    passes = 0
    while one.result is None:
        for start in range(0, values.size, block):
            one.add(start, values[start : start + block])
        one.end_pass(lambda i: values[i * block : (i + 1) * block])
        passes += 1
    assert isinstance(one.result, Kth)
    return one.result, passes


def reference(values: Any, k: int) -> set[int]:
    """The k largest magnitudes, lowest index first among equals, by a stable sort."""
    order = sorted(range(values.size), key=lambda i: (-abs(float(values[i])), i))
    return set(order[:k])


def chosen(values: Any, kth: Kth) -> set[int]:
    """The elements that the answer keeps."""
    magnitudes = np.abs(values)
    return {
        i for i in range(values.size)
        if magnitudes[i] > kth.threshold or (magnitudes[i] == kth.threshold and i <= kth.last)
    }  # fmt: skip


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=60),
    st.data(),
    st.sampled_from([np.float32, np.float64]),
)
def test_any_sample_gives_the_exact_answer(numbers: list[int], data: Any, dtype: Any) -> None:
    """Whatever the sample, the block size and the memory, exactly the k largest are kept."""
    values = np.array(numbers, dtype) / 3
    k = data.draw(st.integers(1, values.size))
    drawn = data.draw(st.lists(st.integers(-6, 6), max_size=20))
    sample = np.array(drawn, dtype) / 3 if drawn else None
    block = data.draw(st.integers(1, values.size))
    limit = data.draw(st.sampled_from([None, 0]))
    kth, _ = select(values, k, sample, block, limit)
    assert chosen(values, kth) == reference(values, k)


@pytest.mark.parametrize("share", [0.001, 0.3, 0.5, 1.0])
def test_a_good_sample_takes_one_pass(share: float) -> None:
    """With a fair sample one pass is enough, and most of the tensor is not kept."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(200_000).astype(np.float32)
    k = max(1, int(share * values.size))
    kth, passes = select(values, k, values[::50], 4096)
    assert passes == 1
    assert np.count_nonzero(np.abs(values) > kth.threshold) < k
    assert np.sort(np.abs(values))[::-1][k - 1] == np.float32(kth.threshold)


def test_a_constant_tensor_takes_one_pass() -> None:
    """A frozen tensor has a task vector of zeros: its lowest indices are kept, in one pass."""
    values = np.zeros(100_000, np.float32)
    kth, passes = select(values, 1234, values[::50], 4096)
    assert kth == Kth(0.0, 1233)
    assert passes == 1


def identity(xp: Any, inputs: Any, block: Any) -> Any:
    """A value that is not asked for here."""
    return inputs


@pytest.mark.parametrize("shape", [(), (6,), (8, 3), (2, 4, 3), (5, 1), (0, 4)])
def test_sums_of_all_of_rows_and_of_columns(shape: tuple[int, ...]) -> None:
    """Block after block of whole rows, in float64."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape).astype(np.float32)
    row = shape[-1] if shape else 1
    found = [accumulator(s(identity), shape, None) for s in (SumOf, SumsOf, RowSums, ColumnSums)]
    flat = values.reshape(-1)
    for start in range(0, values.size, 2 * row):
        part = flat[start : start + 2 * row]
        for one in found:
            one.add(start, (part, part * 2) if one is found[1] else part)
    for one in found:
        one.end_pass(lambda i: flat)
    total, totals, rows, columns = (one.result for one in found)
    wide = values.astype(np.float64)
    np.testing.assert_allclose(total, wide.sum(), atol=1e-12)
    np.testing.assert_allclose(totals, (wide.sum(), 2 * wide.sum()) if wide.size else (), atol=1e-6)
    np.testing.assert_allclose(rows, wide.reshape(-1, row).sum(axis=1), atol=1e-12)
    first = wide.reshape(-1) if not shape else wide.sum(axis=0).reshape(-1)
    np.testing.assert_allclose(columns, first, atol=1e-12)
