"""Every merge against a float64 reference, and the laws that its file declares."""

from __future__ import annotations

from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.values import Form
from recipelang.weights.region import Operand, Step, make_step
from tests.ops_merge import reference
from tests.weights.models import Memory, bits, compute, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.a": (5, 4),
    "model.layers.2.a": (3,),
    "model.norm.weight": (6,),
}
SLOW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def step(verb: str, operands: dict[str, tuple[Operand, ...]], **fields: Any) -> Step:
    """A step of this verb."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, operands, fields)


def family(dtype: str, count: int = 3, seed: int = 0) -> tuple[Memory, list[Memory]]:
    """A base and fine-tunes of it."""
    base = random_model(seed, SHAPES, dtype)
    return base, [near(base, seed + i + 1) for i in range(count)]


def close(got: Any, expected: Any, dtype: str) -> None:
    """Equal up to one rounding to the stored dtype and a few of float32."""
    relative = {"F64": 1e-14, "F32": 4e-7, "BF16": 2**-8, "F16": 2**-10}[dtype]
    scale = 0.1 if dtype != "F64" else 1.0
    np.testing.assert_allclose(
        got.astype(np.float64), expected, rtol=relative, atol=relative * scale * 0.1
    )


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear(dtype: str, normalize: bool, tmp_path: Path) -> None:
    """The weighted mean, or sum."""
    _, models = family(dtype)
    weights = (0.2, 1.0, 0.5)
    got, _ = compute(
        step("linear-merge", {"inputs": tuple(models)}, weight=weights, normalize=normalize),
        tmp_path,
    )
    for name in SHAPES:
        close(
            got[name], reference.linear([m.arrays[name] for m in models], weights, normalize), dtype
        )


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
@pytest.mark.parametrize("t", [0.25, 0.9])
def test_slerp(dtype: str, t: float, tmp_path: Path) -> None:
    """The arc between two tensors that are far apart."""
    a, b = random_model(1, SHAPES, dtype), random_model(2, SHAPES, dtype)
    got, _ = compute(step("slerp-merge", {"inputs": (a, b)}, t=t), tmp_path)
    for name in SHAPES:
        close(got[name], reference.slerp(a.arrays[name], b.arrays[name], t), dtype)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
def test_task_arithmetic(dtype: str, normalize: bool, tmp_path: Path) -> None:
    """Weighted task vectors on the base."""
    base, models = family(dtype)
    weights = (0.4, -0.3, 1.2)
    made = step(
        "task-arithmetic-merge",
        {"inputs": tuple(models), "base": (base,)},
        weight=weights,
        scale=0.7,
        normalize=normalize,
    )
    got, _ = compute(made, tmp_path)
    for name in SHAPES:
        expected = reference.task_arithmetic(
            base.arrays[name], [m.arrays[name] for m in models], weights, 0.7, normalize
        )
        close(got[name], expected, dtype)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.4, -0.3, 0.0)])
def test_ties(dtype: str, normalize: bool, weights: tuple[float, ...], tmp_path: Path) -> None:
    """Trim, elect, add: exactly k entries a task vector, ties to the lowest index."""
    base, models = family(dtype)
    density = (0.5, 0.29, 1.0)
    made = step(
        "ties-merge",
        {"inputs": tuple(models), "base": (base,)},
        weight=weights,
        density=density,
        scale=0.5,
        normalize=normalize,
    )
    got, _ = compute(made, tmp_path)
    for name in SHAPES:
        size = base.arrays[name].size
        counts = [max(1, floor(d * size + 1e-9)) for d in density]
        expected = reference.ties(
            base.arrays[name], [m.arrays[name] for m in models], weights, counts, 0.5, normalize
        )
        close(got[name], expected, dtype)


def test_arithmetic_on_models(tmp_path: Path) -> None:
    """a + 0.4 * (b - c), deltas in float32, the result in the dtype of a."""
    base, (b, c, _) = family("BF16")
    difference = step("delta", {"of": (b,), "minus": (c,)})
    assert {i.dtype for i in difference.tensors.values()} == {"F32"}
    twice = step("add-deltas", {"left": (difference,), "right": (difference,)}, scale=-0.5)
    part = step("scale-delta", {"delta": (twice,)}, factor=0.8)
    got, _ = compute(step("add-delta", {"model": (base,), "delta": (part,)}, scale=1.0), tmp_path)
    for name in SHAPES:
        x, y, z = reference.f64([base.arrays[name], b.arrays[name], c.arrays[name]])
        close(got[name], x + 0.4 * (y - z), "BF16")


@SLOW
@given(
    order=st.permutations(range(3)),
    verb=st.sampled_from(["linear-merge", "task-arithmetic-merge", "ties-merge"]),
)
def test_order_of_inputs_changes_rounding_only(order: list[int], verb: str, tmp_path: Path) -> None:
    """The law permutation_invariant: another order of the inputs gives the same up to float32's
    rounding."""
    base, models = family("F32")
    weights = (0.3, 1.0, 0.6)
    roles = {} if verb == "linear-merge" else {"base": (base,)}
    made = [
        compute(
            step(
                verb,
                {"inputs": tuple(models[i] for i in o), **roles},
                weight=tuple(weights[i] for i in o),
            ),
            tmp_path / "x",
        )[0]
        for o in (range(3), order)
    ]
    for name in SHAPES:
        np.testing.assert_allclose(made[0][name], made[1][name], rtol=1e-5, atol=1e-8)
    found = lookup(verb)
    assert found is not None
    assert "permutation_invariant" in found.laws


@pytest.mark.parametrize(
    "verb", ["linear-merge", "slerp-merge", "ties-merge", "task-arithmetic-merge"]
)
def test_a_model_merged_with_itself_is_itself(verb: str, tmp_path: Path) -> None:
    """Merging equal models gives the bits of the model, in bf16."""
    _, (model, *_) = family("BF16")
    fields: dict[str, Any] = {"t": 0.3} if verb == "slerp-merge" else {}
    roles: dict[str, tuple[Operand, ...]] = {"inputs": (model, model)}
    if verb in ("ties-merge", "task-arithmetic-merge"):
        roles["base"] = (model,)
    got, _ = compute(step(verb, roles, **fields), tmp_path)
    assert all(bits(got[name]) == bits(model.arrays[name]) for name in SHAPES)


def test_slerp_at_its_ends_and_where_no_arc_is(tmp_path: Path) -> None:
    """t of 0 and 1 give the inputs' bits without reading the other; opposite and zero tensors take
    the chord."""
    a, b = random_model(1, SHAPES, "BF16"), random_model(2, SHAPES, "BF16")
    for t, kept, unread in ((0.0, a, b), (1.0, b, a)):
        unread.counts.clear()
        got, _ = compute(step("slerp-merge", {"inputs": (a, b)}, t=t), tmp_path / f"{t}")
        assert all(bits(got[name]) == bits(kept.arrays[name]) for name in SHAPES)
        assert not unread.counts
    opposite = Memory({n: -x for n, x in a.arrays.items()}, a.config)
    zero = Memory({n: x * 0 for n, x in a.arrays.items()}, a.config)
    for other, factor in ((opposite, 0.5), (zero, 0.75)):
        got, _ = compute(
            step("slerp-merge", {"inputs": (a, other)}, t=0.25), tmp_path / f"{factor}"
        )
        for name in SHAPES:
            close(got[name], a.arrays[name].astype(np.float64) * factor, "BF16")


def test_weight_zero_is_not_read(tmp_path: Path) -> None:
    """An input without weight costs nothing and changes nothing."""
    base, (a, b, c) = family("BF16")
    c.counts.clear()
    three, _ = compute(
        step("ties-merge", {"inputs": (a, b, c), "base": (base,)}, weight=(1.0, 0.5, 0.0)),
        tmp_path / "3",
    )
    assert not c.counts
    two, _ = compute(
        step("ties-merge", {"inputs": (a, b), "base": (base,)}, weight=(1.0, 0.5)), tmp_path / "2"
    )
    assert all(bits(three[name]) == bits(two[name]) for name in SHAPES)


def test_values_that_vary_reach_their_tensors(tmp_path: Path) -> None:
    """A gradient on the slerp's t: the embedding is the first model, the norm the second."""
    a, b = random_model(1, SHAPES, "F32"), random_model(2, SHAPES, "F32")
    ramp = Form("gradient", (("0", 0.0), ("1", 1.0)))
    got, _ = compute(step("slerp-merge", {"inputs": (a, b)}, t=ramp), tmp_path)
    assert bits(got["model.embed_tokens.weight"]) == bits(a.arrays["model.embed_tokens.weight"])
    assert bits(got["model.norm.weight"]) == bits(b.arrays["model.norm.weight"])
    with pytest.raises(RecipeError, match=r"E0543.*mlp"):
        step("slerp-merge", {"inputs": (a, b)}, t=Form("per", (("mlp", 0.5),)))


@pytest.mark.parametrize(
    ("verb", "fields", "code"),
    [
        ("linear-merge", {"weight": (1.0, -1.0)}, "E0541"),
        ("task-arithmetic-merge", {"weight": (1.0, -1.0), "normalize": True}, "E0541"),
    ],
)
def test_weights_that_cancel_are_an_error(verb: str, fields: dict[str, Any], code: str) -> None:
    """A division by a sum of zero is refused before anything is read."""
    base, (a, b, _) = family("BF16")
    roles: dict[str, tuple[Operand, ...]] = {"inputs": (a, b)}
    if verb != "linear-merge":
        roles["base"] = (base,)
    with pytest.raises(RecipeError, match=code):
        step(verb, roles, **fields)
