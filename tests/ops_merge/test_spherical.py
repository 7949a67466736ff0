"""Means on the sphere against float64 references, and at the places where no direction is
defined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from tests.ops_merge import reference_spherical as reference
from tests.ops_merge.merging import DTYPES, close, merged, one
from tests.ops_merge.test_formulas import step
from tests.weights.models import Memory, bits, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.conv": (3, 4, 5),
    "model.layers.1.column": (4, 1),
    "model.layers.2.bias": (5,),
    "model.norm.scale": (1,),
}
SLOW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def apart(dtype: str, count: int, seed: int = 0) -> list[Memory]:
    """Models that have nothing in common."""
    return [random_model(seed + i, SHAPES, dtype) for i in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize(
    "axes", [{}, {"flatten": False}, {"flatten": False, "row_wise": True}], ids=str
)
def test_nuslerp(dtype: str, with_base: bool, axes: dict[str, bool], tmp_path: Path) -> None:
    """The arc between whole tensors, rows and columns, of models or of their task vectors."""
    a, b, base = apart(dtype, 3)
    got = merged(
        tmp_path, "nuslerp-merge", (a, b), base if with_base else None, weight=(0.5, 1.5), **axes
    )
    for name in SHAPES:
        origin = base.arrays[name] if with_base else None
        expected = reference.nuslerp(a.arrays[name], b.arrays[name], (0.5, 1.5), origin, **axes)
        close(got[name], expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_multislerp(dtype: str, with_base: bool, normalize: bool, tmp_path: Path) -> None:
    """The direction of the weighted sum at the weighted length: the tangent step of mergekit's
    formula, which the reference takes, is zero."""
    *models, base = apart(dtype, 4)
    weights = (0.5, 1.2, -0.3)
    got = merged(
        tmp_path, "multislerp-merge", models, base if with_base else None,
        weight=weights, normalize=normalize,
    )  # fmt: skip
    for name in SHAPES:
        origin = base.arrays[name] if with_base else None
        expected = reference.multislerp(
            [m.arrays[name] for m in models], weights, origin, normalize=normalize
        )
        close(got[name], expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("iterations", [1, 2, 10])
def test_karcher(dtype: str, iterations: int, tmp_path: Path) -> None:
    """So many steps towards the mean, on coordinates as on whole vectors."""
    models = apart(dtype, 4)
    weights = (0.5, 1.0, 0.0, 2.0)
    models[2].counts.clear()
    got = merged(tmp_path, "karcher-merge", models, weight=weights, iterations=iterations)
    assert not models[2].counts
    for name in SHAPES:
        if name != "model.norm.scale":  # a line has two directions, which may cancel
            arrays = [m.arrays[name] for m in models]
            close(got[name], reference.karcher(arrays, weights, iterations), dtype)


def test_karcher_mean_is_where_the_logarithms_cancel(tmp_path: Path) -> None:
    """The first-order condition of the least sum of squared angles."""
    models = [random_model(i, {"w": (40,)}, "F64") for i in range(3)]
    got = merged(tmp_path, "karcher-merge", models, iterations=60)["w"]
    units = [m.arrays["w"] / reference.norm(m.arrays["w"]) for m in models]
    mean = got / reference.norm(got)
    assert reference.norm(sum(reference.logarithm(mean, u) for u in units)) < 1e-8
    lengths = [reference.norm(m.arrays["w"]) for m in models]
    assert reference.norm(got) == pytest.approx(sum(lengths) / 3, rel=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_row", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_model_stock(dtype: str, by_row: bool, count: int, tmp_path: Path) -> None:
    """Fine-tunes with a direction in common, and tensors where they point apart."""
    start = random_model(9, SHAPES, dtype)
    common = near(start, 8, 0.01)
    models = [near(common, i, 0.01) for i in range(count)]
    got = merged(tmp_path, "model-stock-merge", models, start, by_row=by_row)
    for name in SHAPES:
        arrays = [m.arrays[name] for m in models]
        close(got[name], reference.model_stock(start.arrays[name], arrays, by_row=by_row), dtype)


RELATIONS = st.sampled_from(["free", "zero", "first", "opposite", "small", "huge"])


@st.composite
def tensors(draw: Any) -> list[Any]:
    """A few tensors of one shape, some zero, equal, opposite or of another size."""
    shape = draw(st.sampled_from([(), (1,), (4,), (3, 1), (1, 4), (3, 4), (2, 3, 2)]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    first = rng.standard_normal(shape)
    made = [first]
    for relation in draw(st.lists(RELATIONS, min_size=2, max_size=3)):
        free = rng.standard_normal(shape)
        known = {"zero": 0 * free, "first": first, "opposite": -2 * first,
                 "small": 1e-9 * free, "huge": 1e9 * free}  # fmt: skip
        made.append(known.get(relation, free))
    return made


@SLOW
@given(arrays=tensors(), swap=st.booleans())
def test_edges_are_defined(arrays: list[Any], swap: bool, tmp_path: Path) -> None:
    """Zero tensors, equal and opposite ones, rows of length one, scalars: as the reference says,
    with and without a base."""
    base, *rest = arrays
    if swap:
        base, rest = rest[-1], [base, *rest[:-1]]
    models, weights = [one(x) for x in rest], (0.25, 0.75, 1.0)[: len(rest)]
    largest = max(1.0, *(float(np.abs(x).max()) for x in arrays))

    def agree(got: Any, expected: Any) -> None:
        np.testing.assert_allclose(got["w"], expected, rtol=1e-9, atol=1e-9 * largest)

    got = merged(tmp_path, "karcher-merge", models, weight=weights)
    agree(got, reference.karcher(rest, weights, 10))
    for origin, known in ((None, None), (one(base), base)):
        got = merged(tmp_path, "multislerp-merge", models, origin, weight=weights)
        agree(got, reference.multislerp(rest, weights, known))
        for axes in ({}, {"flatten": False}, {"flatten": False, "row_wise": True}):
            fields = {"weight": weights[:2], **axes}
            got = merged(tmp_path, "nuslerp-merge", models[:2], origin, **fields)
            agree(got, reference.nuslerp(*rest[:2], weights[:2], known, **axes))
    for by_row in (False, True):
        got = merged(tmp_path, "model-stock-merge", models, one(base), by_row=by_row)
        agree(got, reference.model_stock(base, rest, by_row=by_row))


def test_where_directions_cancel_the_weighted_sum_is_taken(tmp_path: Path) -> None:
    """Opposite tensors, three directions at 120 degrees: the straight mean, whatever the order."""
    x = np.array([1.0, 2.0, -1.0])
    got = merged(tmp_path, "multislerp-merge", [one(x), one(-x)], weight=(1.0, 1.0))
    np.testing.assert_allclose(got["w"], 0 * x, atol=1e-12)
    got = merged(tmp_path, "karcher-merge", [one(x), one(-3 * x)])
    np.testing.assert_allclose(got["w"], -x)
    turn = [np.array([np.cos(a), np.sin(a)]) for a in (0, 2 * np.pi / 3, 4 * np.pi / 3)]
    got = merged(tmp_path, "karcher-merge", [one(v) for v in turn])
    np.testing.assert_allclose(got["w"], np.zeros(2), atol=1e-12)


def test_fine_tunes_that_point_apart_give_the_base(tmp_path: Path) -> None:
    """Orthogonal changes give t = 0, and so do opposite ones, where t would leave [0, 1]; the same
    change gives the mean."""
    base, x, y = np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    for left, right, t in ((x, y, 0.0), (x, -x, 0.0), (x, y - x, 0.0), (x, x, 1.0)):
        got = merged(tmp_path, "model-stock-merge", [one(left), one(right)], one(base))
        np.testing.assert_allclose(got["w"], t * (left + right) / 2, atol=1e-15)


def test_ends_read_one_model_only(tmp_path: Path) -> None:
    """All the weight on one model gives its bits, with a base too."""
    a, b, base = apart("BF16", 3)
    for weights, kept, other in (((2.0, 0.0), a, b), ((0.0, 1.0), b, a)):
        for origin in (None, base):
            other.counts.clear()
            base.counts.clear()
            got = merged(tmp_path, "nuslerp-merge", (a, b), origin, weight=weights, flatten=False)
            assert all(bits(got[name]) == bits(kept.arrays[name]) for name in SHAPES)
            assert not other.counts
            assert not base.counts


def test_one_model_with_weight_is_itself(tmp_path: Path) -> None:
    """A mean of one, and what its length becomes where weights are not normalised."""
    a, b = apart("BF16", 2)
    for verb in ("karcher-merge", "multislerp-merge"):
        got = merged(tmp_path, verb, (a, b), weight=(0.7, 0.0))
        assert all(bits(got[name]) == bits(a.arrays[name]) for name in SHAPES)
    fields = {"weight": (0.5, 0.0), "normalize": False}
    got = merged(tmp_path, "multislerp-merge", (a, b), **fields)
    for name in SHAPES:
        close(got[name], 0.5 * a.arrays[name].astype(np.float64), "BF16")


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("nuslerp-merge", {"weight": (1.0, -1.0)}),
        ("multislerp-merge", {"weight": (0.0, 0.0)}),
        ("karcher-merge", {"weight": (0.0, 0.0)}),
    ],
)
def test_weights_that_cancel(verb: str, fields: dict[str, Any], tmp_path: Path) -> None:
    """Refused before anything is read; half of the way where mergekit's rule is asked for."""
    a, b = apart("F32", 2)
    with pytest.raises(RecipeError, match="E0541"):
        step(verb, {"inputs": (a, b)}, **fields)
    if verb == "nuslerp-merge":
        got = merged(tmp_path, verb, (a, b), compat="mergekit", **fields)
        for name in SHAPES:
            close(got[name], reference.nuslerp(a.arrays[name], b.arrays[name], (1, 1)), "F32")


def test_fp16_overflow_is_caught(tmp_path: Path) -> None:
    """A result beyond float16 stops the merge and is not written as an infinity."""
    a, b = one([4e4, 1.0], "F16"), one([4e4, -1.0], "F16")
    with pytest.raises(RecipeError, match=r"E0620.*`w`"):
        merged(tmp_path, "multislerp-merge", (a, b), weight=(1.0, 1.0), normalize=False)


def test_small_float32_numbers_keep_their_direction(tmp_path: Path) -> None:
    """Changes of 1e-12 on weights of 0: no absolute epsilon pulls them."""
    x, y = 1e-12 * np.array([3.0, 4.0]), 1e-12 * np.array([4.0, 3.0])
    got = merged(tmp_path, "model-stock-merge", [one(x, "F32"), one(y, "F32")], one([0, 0], "F32"))
    expected = 2 * 0.96 / 1.96 * (x + y) / 2
    np.testing.assert_allclose(got["w"], expected, rtol=1e-6)
