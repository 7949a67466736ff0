"""Merges that select elements against float64 references, and what happens at their
thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.weights.numbers import narrow
from tests.ops_merge import reference_selecting as reference
from tests.ops_merge.merging import DTYPES, close, merged, one
from tests.ops_merge.test_formulas import step
from tests.weights.models import Memory, bits, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.conv": (3, 4, 5),
    "model.layers.1.column": (4, 1),
    "model.layers.2.bias": (9,),
    "model.norm.scale": (1,),
}


def sparse(start: Memory, seed: int, dtype: str) -> Memory:
    """A fine-tune that changed about half of the weights."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, array in start.arrays.items():
        change = rng.standard_normal(array.shape) * 0.01 * rng.integers(0, 2, array.shape)
        wide = array.astype(np.float64) + change
        arrays[name] = narrow(wide if dtype == "F64" else wide.astype(np.float32), dtype)
    return Memory(arrays, start.config)


def family(dtype: str, count: int = 3) -> tuple[Memory, list[Memory]]:
    """A base and sparse fine-tunes of it."""
    start = random_model(0, SHAPES, dtype)
    return start, [sparse(start, i + 1, dtype) for i in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("t", [1e-4, 0.003])
def test_nearswap(dtype: str, t: float, tmp_path: Path) -> None:
    """A step of at most t."""
    a = random_model(0, SHAPES, dtype)
    b = near(a, 1)
    got = merged(tmp_path, "nearswap-merge", (a, b), t=t)
    for name in SHAPES:
        close(got[name], reference.nearswap(a.arrays[name], b.arrays[name], t), dtype)


def test_nearswap_at_its_ends(tmp_path: Path) -> None:
    """t = 0 gives the subject without reading the other, a large t the other's bits; between them
    each number is the float32 nearest to the exact one."""
    a = random_model(0, SHAPES, "F32")
    b = near(a, 1)
    got = merged(tmp_path / "far", "nearswap-merge", (a, b), t=1.0)
    assert all(bits(got[name]) == bits(b.arrays[name]) for name in SHAPES)
    b.counts.clear()
    got = merged(tmp_path / "near", "nearswap-merge", (a, b), t=0.0)
    assert all(bits(got[name]) == bits(a.arrays[name]) for name in SHAPES)
    assert not b.counts
    t = float(np.float32(0.001))
    got = merged(tmp_path / "mid", "nearswap-merge", (a, b), t=t)
    for name in SHAPES:
        exact = reference.nearswap(a.arrays[name], b.arrays[name], t)
        assert bits(got[name]) == bits(exact.astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fusion(dtype: str, tmp_path: Path) -> None:
    """The outliers of importance; rows of length one have no divergence, so none is less important
    than another."""
    a, b = random_model(0, SHAPES, dtype), random_model(1, SHAPES, dtype)
    got = merged(tmp_path, "fusion-merge", (a, b))
    for name in SHAPES:
        close(got[name], reference.fusion(a.arrays[name], b.arrays[name]), dtype)
    wide = got["model.embed_tokens.weight"]
    taken = int((wide == b.arrays["model.embed_tokens.weight"]).sum())
    assert 0 < taken < wide.size // 2


def test_fusion_tells_light_fine_tunes_apart(tmp_path: Path) -> None:
    """Changes of 1e-6, whose divergences of 1e-12 are far below float32's resolution around 1."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((12, 40)) * 0.02
    y = x + rng.standard_normal((12, 40)) * 1e-6
    got = merged(tmp_path, "fusion-merge", (one(x), one(y)))["w"]
    expected = reference.fusion(x, y)
    assert np.array_equal(got == y, expected == y)
    assert 0 < int((got == y).sum()) < x.size


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("epsilon", [1e-5, 0.004])
def test_ram(dtype: str, scale: float, epsilon: float, tmp_path: Path) -> None:
    """Shared changes are averaged, own ones kept; with ram+ they grow."""
    start, models = family(dtype)
    got = merged(tmp_path / "ram", "ram-merge", models, start, epsilon=epsilon, scale=scale)
    grown = {"r": 0.5, "alpha": 0.9, "epsilon": epsilon, "scale": scale}
    plus = merged(tmp_path / "ramplus", "ramplus-merge", models, start, **grown)
    for name in SHAPES:
        origin, arrays = start.arrays[name], [m.arrays[name] for m in models]
        close(got[name], reference.ram(origin, arrays, epsilon, scale), dtype)
        close(plus[name], reference.ramplus(origin, arrays, **grown), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_magmax(dtype: str, scale: float, tmp_path: Path) -> None:
    """The largest change of each weight."""
    start, models = family(dtype)
    got = merged(tmp_path, "magmax-merge", models, start, scale=scale)
    for name in SHAPES:
        arrays = [m.arrays[name] for m in models]
        close(got[name], reference.magmax(start.arrays[name], arrays, scale), dtype)


def test_magmax_of_opposite_changes_is_the_positive_one(tmp_path: Path) -> None:
    """In any order."""
    up, down = one([1.0, -2.0, 0.0]), one([-1.0, 2.0, 0.0])
    for models in ((up, down), (down, up)):
        got = merged(tmp_path, "magmax-merge", models, one([0.0, 0.0, 0.0]))
        assert got["w"].tolist() == [1.0, 2.0, 0.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("select", [1.0, 0.4, 0.05])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_sce(dtype: str, select: float, scale: float, tmp_path: Path) -> None:
    """Select, calculate, erase."""
    start, models = family(dtype)
    got = merged(tmp_path, "sce-merge", models, start, select=select, scale=scale)
    for name in SHAPES:
        arrays = [m.arrays[name] for m in models]
        close(got[name], reference.sce(start.arrays[name], arrays, select, scale), dtype)


def test_sce_keeps_the_lowest_indices_among_equals(tmp_path: Path) -> None:
    """Ten entries of one variance, of which half stay; an entry that does not vary never does."""
    base, a = np.zeros(11), np.array([0.0] + [1.0, -1.0] * 5)
    for dtype in DTYPES:
        models = (one(a, dtype), one(3 * a, dtype))
        got = merged(tmp_path / dtype, "sce-merge", models, one(base, dtype), select=0.5)["w"]
        assert np.flatnonzero(got).tolist() == [1, 2, 3, 4, 5]
    equal = (one(1 + a), one(1 + a))
    got = merged(tmp_path, "sce-merge", equal, one(base), select=0.5)["w"]
    assert got.tolist() == base.tolist()


def test_sce_weighs_light_fine_tunes_as_heavy_ones(tmp_path: Path) -> None:
    """Shares do not depend on the size of the changes; with mergekit's rule they are equal below a
    mean square of 1e-6."""
    base, a, b = np.zeros(4), np.array([1.0, 1, 1, 0]), np.array([3.0, 3, 0, 1])
    for size in (1.0, 1e-6):
        models = (one(size * a, "F32"), one(size * b, "F32"))
        got = merged(tmp_path, "sce-merge", models, one(base, "F32"))["w"]
        shares = np.array([3, 19]) / 22
        np.testing.assert_allclose(got[:2], size * (shares @ [1, 3]), rtol=1e-6)
        got = merged(tmp_path, "sce-merge", models, one(base, "F32"), compat="mergekit")["w"]
        expected = size * (shares @ [1, 3]) if size == 1.0 else size * 2
        np.testing.assert_allclose(got[:2], expected, rtol=1e-6)


def test_one_task_vector(tmp_path: Path) -> None:
    """With a base that is written a merge may have one model: its changes, scaled."""
    base, x = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 2.0])
    for verb in ("sce-merge", "ram-merge", "magmax-merge"):
        got = merged(tmp_path / verb, verb, [one(x)], one(base), scale=0.5)["w"]
        np.testing.assert_allclose(got, base + 0.5 * (x - base))
    for verb, fields in (("model-stock-merge", {}), ("sce-merge", {"select": 0.5})):
        with pytest.raises(RecipeError, match="E0542"):
            step(verb, {"inputs": (one(x),), "base": (one(base),)}, **fields)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    numbers=st.lists(st.tuples(*[st.integers(-3, 3)] * 4), min_size=1, max_size=12),
    select=st.sampled_from([0.1, 0.5, 0.75, 1.0]),
    column=st.booleans(),
)
def test_ties_everywhere(
    numbers: list[tuple[int, ...]], select: float, column: bool, tmp_path: Path
) -> None:
    """Small whole numbers tie at every threshold: as the references say, element by element."""
    table = np.array(numbers, np.float64).T
    base, *arrays = table[:, :, None] if column else table
    models, start = [one(x) for x in arrays], one(base)
    got = merged(tmp_path, "magmax-merge", models, start)["w"]
    np.testing.assert_allclose(got, reference.magmax(base, arrays), atol=1e-12)
    got = merged(tmp_path, "ramplus-merge", models, start, epsilon=1.0, r=1.0, alpha=3.0)["w"]
    np.testing.assert_allclose(got, reference.ramplus(base, arrays, 1.0, 3.0, 1.0), atol=1e-12)
    got = merged(tmp_path, "nearswap-merge", models[:2], t=2.0)["w"]
    np.testing.assert_allclose(got, reference.nearswap(*arrays[:2], 2.0), atol=1e-12)
    two = merged(tmp_path, "sce-merge", models[:2], start, select=select)["w"]
    np.testing.assert_allclose(two, reference.sce(base, arrays[:2], select), atol=1e-12)
