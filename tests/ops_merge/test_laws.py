"""The laws that merges declare in their files, for every merge that declares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import Operation
from recipelang.weights import blocks, looks
from tests.ops_merge.merging import merged, one
from tests.weights.models import Memory, bits, random_model

SHAPES = {"model.embed_tokens.weight": (7, 6), "model.layers.0.a": (9,), "model.norm.w": (1, 4)}
PAIRS = {"slerp-merge", "nuslerp-merge", "nearswap-merge", "fusion-merge"}
REQUIRED: dict[str, dict[str, Any]] = {"slerp-merge": {"t": 0.3}, "nearswap-merge": {"t": 0.001}}
SLOW = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def operation(verb: str) -> Operation:
    """The operation of a verb."""
    found = lookup(verb)
    assert found is not None
    return found


def declaring(law: str) -> list[str]:
    """The merges with this law."""
    return [v for v in sorted(verbs()) if v.endswith("-merge") and law in operation(v).laws]


def apply(folder: Path, verb: str, models: Any, base: Memory, **fields: Any) -> dict[str, Any]:
    """A merge of as many of the models as the verb takes."""
    spec = operation(verb).operand("base")
    taken = models[:2] if verb in PAIRS else models
    origin = base if spec is not None and spec.by_origin else None
    return merged(folder, verb, taken, origin, **REQUIRED.get(verb, {}), **fields)


def scaled(model: Memory, factor: float) -> Memory:
    """The model with all weights multiplied."""
    return Memory({n: (a * factor).astype(a.dtype) for n, a in model.arrays.items()}, model.config)


def test_some_merges_declare_each_law() -> None:
    """The tests below have something to test."""
    assert len(declaring("unanimous")) >= 10
    assert len(declaring("homogeneous")) >= 7
    assert len(declaring("permutation_invariant")) >= 8
    assert declaring("endpoints") == ["slerp-merge"]
    assert len(declaring("keeps_base")) >= 15


@pytest.mark.parametrize("verb", declaring("unanimous"))
@pytest.mark.parametrize("compat", ["none", "mergekit"])
def test_equal_models_give_that_model(verb: str, compat: str, tmp_path: Path) -> None:
    """Bit for bit in bfloat16, which the rounding of float32 does not reach."""
    model = random_model(1, SHAPES, "BF16")
    equals = [Memory(model.arrays, model.config) for _ in range(3)]
    got = apply(tmp_path, verb, equals, model, compat=compat)
    assert all(bits(got[name]) == bits(model.arrays[name]) for name in SHAPES)


@pytest.mark.parametrize("verb", declaring("keeps_base"))
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("compat", ["none", "mergekit"])
def test_what_no_input_changed_stays(verb: str, dtype: str, compat: str, tmp_path: Path) -> None:
    """The base's numbers, and the same bits whether or not it is known that nothing changed, of a
    negative zero too; where it is known, they are read once."""
    base = random_model(1, SHAPES, dtype)
    base.arrays["model.layers.0.a"][3] = -0.0
    others = [Memory(base.arrays, base.config) for _ in range(3)]
    computed = apply(tmp_path / "computed", verb, others, base, compat=compat)
    base.counts.clear()
    copied = apply(tmp_path / "copied", verb, [base] * 3, base, compat=compat)
    for name, array in base.arrays.items():
        np.testing.assert_array_equal(copied[name], array)
        assert bits(copied[name]) == bits(computed[name])
        assert base.counts[name] == array.size


@pytest.mark.parametrize("verb", declaring("keeps_base"))
def test_what_is_not_finite_is_computed(verb: str, tmp_path: Path) -> None:
    """Where it is let through: an infinity less itself is not zero."""
    base = random_model(1, SHAPES, "F32")
    base.arrays["model.layers.0.a"][3] = np.inf
    others = [Memory(base.arrays, base.config) for _ in range(3)]
    results: list[Any] = []
    for i, models in enumerate((others, [base] * 3)):
        try:
            results.append(apply(tmp_path / str(i), verb, models, base, nonfinite="allow"))
        except RecipeError as error:
            results.append(error.diagnostics[0].code)
    computed, copied = results
    if isinstance(computed, str):
        assert copied == computed
    else:
        assert {n: bits(a) for n, a in copied.items()} == {n: bits(a) for n, a in computed.items()}


@pytest.mark.parametrize("verb", declaring("keeps_base"))
def test_what_is_copied_is_looked_at(verb: str, tmp_path: Path) -> None:
    """Infinities and NaN stop the merge also where nothing is computed with them."""
    base = random_model(1, SHAPES, "F32")
    base.arrays["model.layers.0.a"][3] = np.nan
    with pytest.raises(RecipeError, match=r"E0620.*`model\.layers\.0\.a`"):
        apply(tmp_path, verb, [base] * 3, base)


@pytest.mark.parametrize("verb", declaring("homogeneous"))
@SLOW
@given(power=st.integers(-30, 30), seed=st.integers(0, 100))
def test_the_size_of_the_weights_has_no_effect(
    verb: str, power: int, seed: int, tmp_path: Path
) -> None:
    """No absolute epsilon: with all weights a power of two smaller or larger, so is the result."""
    base, *models = (random_model(seed + i, SHAPES, "F32") for i in range(4))
    factor = 2.0**power
    plain = apply(tmp_path / "a", verb, models, base)
    moved = apply(tmp_path / "b", verb, [scaled(m, factor) for m in models], scaled(base, factor))
    for name in SHAPES:
        assert bits(moved[name]) == bits(plain[name] * np.float32(factor))


@pytest.mark.parametrize("verb", declaring("permutation_invariant"))
@SLOW
@given(order=st.permutations(range(3)), seed=st.integers(0, 100))
def test_the_order_of_the_models_has_no_effect(
    verb: str, order: list[int], seed: int, tmp_path: Path
) -> None:
    """Up to the rounding of sums in another order."""
    count = 2 if verb in PAIRS else 3
    order = [i for i in order if i < count]
    base, *models = (random_model(seed + i, SHAPES, "F32") for i in range(4))
    weights = (0.3, 1.0, 0.6)[:count]
    fields: list[dict[str, Any]] = [{}, {}]
    if operation(verb).field("weight"):
        fields = [{"weight": weights}, {"weight": tuple(weights[i] for i in order)}]
    plain = apply(tmp_path / "a", verb, models, base, **fields[0])
    turned = apply(tmp_path / "b", verb, [models[i] for i in order], base, **fields[1])
    for name in SHAPES:
        np.testing.assert_allclose(turned[name], plain[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("verb", declaring("ignores_zero_weight"))
def test_a_model_without_weight_is_as_if_it_were_not_there(verb: str, tmp_path: Path) -> None:
    """Nor is it read."""
    base, a, b, c = (random_model(i, SHAPES, "F32") for i in range(4))
    c.counts.clear()
    three = apply(tmp_path / "3", verb, (a, b, c), base, weight=(1.0, 0.5, 0.0))
    assert not c.counts
    two = apply(tmp_path / "2", verb, (a, b), base, weight=(1.0, 0.5))
    assert all(bits(three[name]) == bits(two[name]) for name in SHAPES)


@pytest.mark.parametrize("verb", ["slerp-merge", "nuslerp-merge", "multislerp-merge",
                                  "karcher-merge", "model-stock-merge"])  # fmt: skip
@SLOW
@given(seed=st.integers(0, 10**6), order=st.permutations(range(12)))
def test_geometry_has_no_axes(verb: str, seed: int, order: list[int], tmp_path: Path) -> None:
    """Turning all models turns the result: elements in another order and with other signs."""
    rng = np.random.default_rng(seed)
    signs = rng.integers(0, 2, 12) * 2.0 - 1
    base, *arrays = rng.standard_normal((4, 12))
    turned = [x[order] * signs for x in (base, *arrays)]
    plain = apply(tmp_path / "a", verb, [one(x) for x in arrays], one(base))["w"]
    moved = apply(tmp_path / "b", verb, [one(x) for x in turned[1:]], one(turned[0]))["w"]
    np.testing.assert_allclose(moved, plain[order] * signs, rtol=1e-9, atol=1e-10)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((verb, {}) for verb in declaring("unanimous")),
    ("multislerp-merge", {}),
    ("nuslerp-merge", {"flatten": False}),
    ("nuslerp-merge", {"flatten": False, "row_wise": True}),
    ("model-stock-merge", {"by_row": True}),
    ("sce-merge", {"select": 0.3}),
]


@pytest.mark.parametrize(("verb", "fields"), VARIANTS, ids=str)
def test_a_tensor_of_many_blocks(
    verb: str, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks change the order of sums only: statistics by element, row and column come together,
    and exact k-th magnitudes by samples are those of the whole."""
    shapes = {"a": (50, 12), "b": (7, 5, 11), "c": (301,), "d": (60, 1)}
    base, *models = (random_model(i, shapes, "F64") for i in range(4))
    whole = apply(tmp_path / "a", verb, models, base, **fields)
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 40)
    monkeypatch.setattr(looks, "KEEP_ALL", 100)
    monkeypatch.setattr(looks, "SAMPLE_ELEMENTS", 8)
    parts = apply(tmp_path / "b", verb, models, base, **fields)
    for name in shapes:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("verb", "fields"), VARIANTS, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_weights_stop_every_merge(
    verb: str, fields: dict[str, Any], bad: float, tmp_path: Path
) -> None:
    """By name, whatever its statistics make of them, and without a warning of numpy's."""
    base, *models = (random_model(i, SHAPES, "F32") for i in range(4))
    models[1].arrays["model.layers.0.a"][3] = bad
    with pytest.raises(RecipeError, match=r"E0620.*`model\.layers\.0\.a`"):
        apply(tmp_path / "a", verb, models, base, **fields)
    apply(tmp_path / "b", verb, models, base, nonfinite="allow", **fields)


@pytest.mark.parametrize("verb", ["ram-merge", "magmax-merge", "sce-merge"])
@SLOW
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.5, 1.0, 2.0]))
def test_changes_in_different_places_add_up(
    verb: str, seed: int, scale: float, tmp_path: Path
) -> None:
    """Where no two models changed the same weight, the merge is the base with all changes, linear
    in `scale`."""
    rng = np.random.default_rng(seed)
    base, change = rng.standard_normal((2, 12))
    owner = rng.integers(0, 3, 12)
    models = [one(base + change * (owner == i)) for i in range(3)]
    got = apply(tmp_path, verb, models, one(base), scale=scale)["w"]
    np.testing.assert_allclose(got, base + scale * change, rtol=1e-9, atol=1e-12)


def scaling() -> list[str]:
    """The merges with a field ``scale``."""
    return [v for v in sorted(verbs()) if v.endswith("-merge") and operation(v).field("scale")]


def test_most_merges_of_task_vectors_have_a_scale() -> None:
    """The test below has something to test."""
    assert len(scaling()) >= 13


@pytest.mark.parametrize("verb", scaling())
@SLOW
@given(scale=st.floats(-2, 2), seed=st.integers(0, 100))
def test_the_change_is_linear_in_scale(verb: str, scale: float, seed: int, tmp_path: Path) -> None:
    """What a merge adds to its base, random masks and all, is a direction times `scale`."""
    base, *models = (random_model(seed + i, SHAPES, "F64") for i in range(4))
    plain = apply(tmp_path / "a", verb, models, base)
    moved = apply(tmp_path / "b", verb, models, base, scale=scale)
    for name, array in base.arrays.items():
        expected = array + scale * (plain[name] - array)
        np.testing.assert_allclose(moved[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("verb", ["linear-merge", "task-arithmetic-merge"])
@SLOW
@given(weight=st.floats(-2, 2), seed=st.integers(0, 100))
def test_plain_sums_are_linear_in_each_model(
    verb: str, weight: float, seed: int, tmp_path: Path
) -> None:
    """Two models with the weights w and 1 - w count as w times the one plus 1 - w times the
    other."""
    base, a, b, c = (random_model(seed + i, SHAPES, "F64") for i in range(4))
    mixed = Memory({n: weight * a.arrays[n] + (1 - weight) * b.arrays[n] for n in SHAPES}, a.config)
    fields = {"normalize": False}
    apart = apply(tmp_path / "a", verb, [a, b, c], base, weight=(weight, 1 - weight, 0.5), **fields)
    joined = apply(tmp_path / "b", verb, [mixed, c], base, weight=(1.0, 0.5), **fields)
    for name in SHAPES:
        np.testing.assert_allclose(apart[name], joined[name], rtol=1e-9, atol=1e-12)
