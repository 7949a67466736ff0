"""Every merge on every backend's arrays: the host's masks, its numbers within a stated bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import recipelang_jax.weights
import recipelang_torch.weights
from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.weights.arrays import HOST, Arrays, HostArrays
from recipelang.weights.engine import run_region
from recipelang.weights.kernel import Kth
from recipelang.weights.kernels.thinning import kept, row_ranks
from recipelang.weights.kernels.uniform_bits import half_words, keys
from recipelang.weights.numbers import FLOATS, compute_dtype, narrow, numpy_dtype, widen
from recipelang.weights.proving import WrongNumbers
from recipelang.weights.region import make_step
from recipelang.weights.report import Watcher
from recipelang.weights.whole_statistics import kth_magnitude
from recipelang.weights.writer import ModelWriter
from tests.conformance import float64_table
from tests.conformance.merge_cases import DTYPES, cases, difference, family, merge_verbs
from tests.conformance.places import ARRAYS, LIBRARIES
from tests.weights.models import Memory, bits, compute, near, random_model


def brought(arrays: Arrays, values: Any, dtype: str) -> Any:
    """Stored numbers as an array of the library."""
    flat = values.reshape(-1)
    return arrays.load(lambda start, stop: flat[start:stop], dtype, 0, flat.size)


def host(arrays: Arrays, stored: Any, dtype: str) -> Any:
    """The numbers of a stored array, copied."""
    return np.concatenate([part.copy() for part in arrays.unload(stored, dtype)])


@LIBRARIES
@pytest.mark.parametrize("verb", merge_verbs())
def test_merges_agree_with_the_host_and_with_float64(
    verb: str, library: str, tmp_path: Path
) -> None:
    """Every setting of every merge, in each dtype; and as the page of float64 has it. What numpy is
    compared with there is the host's engine itself."""
    page = float64_table.recorded()
    for dtype in DTYPES:
        for number, case in enumerate(cases(verb, dtype)):
            place = tmp_path / dtype / str(number)
            expected, _ = compute(case.step, place / "host", arrays=HOST)
            got, _ = compute(case.step, place / "device", arrays=ARRAYS[library])
            found = difference(case, expected, got)
            assert all(share <= 1 for _, share in found.values()), (dtype, case.setting, found)
            if dtype in float64_table.DTYPES:
                column = (dtype, "engine" if library == "numpy" else library)
                cell = page[case.verb, case.setting][column]
                exact = float64_table.of_case(case, expected if library == "numpy" else got)
                assert float64_table.in_step(exact, cell), (column, case.setting, exact, cell)


class Spied(HostArrays):
    """The host's arrays under another name, which count the tensors that are brought to them."""

    loads = 0

    def load(self, read: Any, dtype: str, start: int, stop: int) -> Any:
        """Count."""
        Spied.loads += 1
        return super().load(read, dtype, start, stop)


def test_tensors_are_computed_where_it_was_asked_and_fit(tmp_path: Path) -> None:
    """A budget that no tensor fits leaves them to the host, block by block, with its bits."""
    (case, *_) = cases("ties-merge", "BF16")
    expected, _ = compute(case.step, tmp_path / "host")
    Spied.loads = 0
    got, _ = compute(case.step, tmp_path / "small", arrays=Spied(whole=True), budget_bytes=1)
    assert Spied.loads == 0
    assert {n: bits(a) for n, a in got.items()} == {n: bits(a) for n, a in expected.items()}
    compute(case.step, tmp_path / "fits", arrays=Spied(whole=True))
    assert Spied.loads == 4 * len(case.step.tensors)


@LIBRARIES
def test_half_words_are_equal(library: str) -> None:
    """Masks are integers: the same words on both sides of the 2^32nd, from odd starts too."""
    arrays, key = ARRAYS[library], keys("draws", "name")
    for start, stop in ((0, 9), (5, 12), (2**33 - 3, 2**33 + 4)):
        with arrays.computing():
            words = half_words(arrays.xp, key, start, stop).tolist()
        assert words == half_words(np, key, start, stop).tolist()


@LIBRARIES
@pytest.mark.parametrize("dtype", ["F32", "F64"])
def test_kth_magnitudes_keep_exactly_k_lowest_index_first(library: str, dtype: str) -> None:
    """Against sorting, with equal magnitudes, zeros, subnormals' neighbours and infinities."""
    values = np.array([3, -1, 2, -3, 0, 3, 1e-30, -2, 0, np.inf, 2], numpy_dtype(dtype))
    arrays = ARRAYS[library]
    order = sorted(range(values.size), key=lambda i: (-abs(values[i]), i))
    with arrays.computing():
        wide = arrays.widen(brought(arrays, values, dtype), compute_dtype(dtype))
        for k in range(1, values.size + 1):
            found = kth_magnitude(arrays.xp, wide, k)
            mask = kept(arrays.xp, wide, 0, found).tolist()
            assert [i for i, keep in enumerate(mask) if keep] == sorted(order[:k]), (k, found)


@LIBRARIES
def test_a_nan_has_no_kth_magnitude(library: str) -> None:
    """It compares with nothing, so nothing is kept; the merge that reads it says so."""
    arrays = ARRAYS[library]
    with arrays.computing():
        wide = brought(arrays, np.array([1, np.nan, 2], np.float32), "F32")
        found = kth_magnitude(arrays.xp, wide, 3)
        assert isinstance(found, Kth)
        assert not any(kept(arrays.xp, wide, 0, found).tolist())


@LIBRARIES
def test_ranks_within_rows_are_equal(library: str) -> None:
    """Lowest index first among equals, and rows of one."""
    values = np.array([[3, -1, -1, 0], [0, 0, 2, -2]], np.float32).reshape(-1)
    arrays = ARRAYS[library]
    with arrays.computing():
        wide = brought(arrays, values, "F32")
        for row in (4, 1):
            found = row_ranks(arrays.xp, wide, row)
            assert found.tolist() == row_ranks(np, values, row).tolist()


@LIBRARIES
@pytest.mark.parametrize("dtype", sorted(FLOATS))
@pytest.mark.parametrize("wide", [np.float32, np.float64])
def test_numbers_are_rounded_once_as_on_the_host(library: str, dtype: str, wide: type) -> None:
    """Halfway cases, what is just beside them in float64 only, overflow, infinities, NaN."""
    rng = np.random.default_rng(0)
    values = np.concatenate([
        rng.standard_normal(2000), rng.standard_normal(200) * 1e30, rng.standard_normal(50) * 1e-3,
        np.array([1, -1]).repeat(3) * (1 + 2.0**-8 + np.array([0, 2.0**-40, -(2.0**-40)] * 2)),
        np.array([1, -1]).repeat(3) * (1 + 2.0**-11 + np.array([0, 2.0**-40, -(2.0**-40)] * 2)),
        [65519.99, 65520, 3.4e38, 0.0, -0.0, np.inf, -np.inf, np.nan],
    ]).astype(wide)  # fmt: skip
    arrays, name = ARRAYS[library], "F64" if wide is np.float64 else "F32"
    with arrays.computing():
        there = arrays.widen(brought(arrays, values, name), np.dtype(wide))
        got = host(arrays, arrays.narrow(there, dtype), dtype)
        back = arrays.widen(brought(arrays, got, dtype), np.dtype(wide))
        wide_back = host(arrays, arrays.narrow(back, name), name)
    expected = narrow(values, dtype)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got.astype(np.float64), expected.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(got[:-1]), np.signbit(expected[:-1]))
    np.testing.assert_array_equal(wide_back, widen(expected, np.dtype(wide)))


@LIBRARIES
def test_a_fused_chain_has_the_bits_of_the_unfused_one(library: str, tmp_path: Path) -> None:
    """Each operation rounds to its dtype on the device too."""
    base, *tuned = family("BF16")
    ties, slerp = lookup("ties-merge"), lookup("slerp-merge")
    assert ties is not None
    assert slerp is not None
    arrays = ARRAYS[library]
    inner = make_step(ties, {"inputs": tuned, "base": (base,)}, {"density": 0.5})
    fused, _ = compute(
        make_step(slerp, {"inputs": (inner, base)}, {"t": 0.3}), tmp_path / "f", arrays=arrays
    )
    between, _ = compute(inner, tmp_path / "i", arrays=arrays)
    outer = make_step(slerp, {"inputs": (Memory(between), base)}, {"t": 0.3})
    unfused, _ = compute(outer, tmp_path / "u", arrays=arrays)
    assert {n: bits(a) for n, a in fused.items()} == {n: bits(a) for n, a in unfused.items()}


@LIBRARIES
def test_a_low_rank_change_is_applied(library: str, tmp_path: Path) -> None:
    """The factors are brought whole; products are full float32, not a device's shorter one."""
    model = random_model(1, {"model.layers.0.self_attn.q_proj.weight": (24, 16)}, "F32", 1.0)
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    adapter = random_model(
        2, {f"{at}.lora_A.weight": (4, 16), f"{at}.lora_B.weight": (24, 4)}, "F32", 1.0
    )
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
    apply = lookup("apply")
    assert apply is not None
    step = make_step(apply, {"adapter": (Memory(adapter.arrays, config),), "model": (model,)}, {})
    expected, _ = compute(step, tmp_path / "host")
    got, _ = compute(step, tmp_path / "device", arrays=ARRAYS[library])
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=0, atol=4e-6)


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_jax_counts_what_is_moved(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that arrives as another one, on the way there and on the way back."""
    arrays = ARRAYS["jax"]
    monkeypatch.setattr(recipelang_jax.weights, "pieces", _small_pieces)
    (values,) = random_model(1, {"a": (25_001,)}, dtype).arrays.values()
    with arrays.computing():
        there = brought(arrays, values, dtype)
        assert bits(host(arrays, there, dtype)) == bits(values)
        put = jax.device_put
        monkeypatch.setattr(jax, "device_put", lambda piece, device: put(piece * 0, device))
        with pytest.raises(WrongNumbers, match="on their way to the device"):
            brought(arrays, values, dtype)
        cut = jax.lax.dynamic_slice_in_dim
        monkeypatch.setattr(
            jax.lax, "dynamic_slice_in_dim", lambda all, at, size: cut(all, max(0, at - 1), size)
        )
        with pytest.raises(WrongNumbers, match="on their way from the device"):
            host(arrays, there, dtype)


@LIBRARIES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(library: str, bad: float, tmp_path: Path) -> None:
    """E0620 names the tensor, and the merge stops."""
    base, first, second, _ = family("BF16")
    first.arrays["model.layers.2.a"][1] = bad
    linear = lookup("linear-merge")
    assert linear is not None
    step = make_step(linear, {"inputs": (base, first, second)}, {})
    with pytest.raises(RecipeError) as caught:
        compute(step, tmp_path, arrays=ARRAYS[library])
    assert caught.value.diagnostics[0].code == "E0620"
    assert "model.layers.2.a" in caught.value.diagnostics[0].message


@LIBRARIES
def test_a_report_of_a_merge_sees_the_same_blocks(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of a transfer end in the middle of blocks; the watcher sees the host's."""
    for module in (recipelang_torch.weights, recipelang_jax.weights):
        monkeypatch.setattr(module, "pieces", _small_pieces)
    shapes = {"model.layers.0.a": (700, 300), "model.norm.weight": (5,)}
    base = random_model(1, shapes)
    ties = lookup("ties-merge")
    assert ties is not None
    step = make_step(ties, {"inputs": (near(base, 2), near(base, 3)), "base": (base,)}, {})
    sums: dict[str, Any] = {}
    for place, arrays in (("host", HostArrays()), ("device", ARRAYS[library])):
        writer = ModelWriter(tmp_path / place, step.tensors)
        watcher = Watcher(step, tmp_path / f"{place}.jsonl")
        run_region([(step, writer)], watchers={writer: watcher}, arrays=arrays)
        sums[place] = writer.finish().shards[0].digest, watcher.sums
    assert sums["device"] == sums["host"]


def _small_pieces(start: int, stop: int, itemsize: int) -> Any:
    """Pieces of 10,000 elements."""
    step = 10_000 if itemsize > 1 else 20_000
    return ((first, min(first + step, stop)) for first in range(start, stop, step))
