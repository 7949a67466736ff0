"""The merges that thin task vectors: DARE, DELLA, breadcrumbs, against a plain reference."""

from __future__ import annotations

from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.values import Form
from recipelang.weights.kernels.uniform_bits import half_words, keys, uniform_bits
from recipelang.weights.region import Operand, Step, make_step
from tests.ops_merge import reference_thinning as reference
from tests.weights.models import Memory, bits, compute, near, random_model

SHAPES = {"model.embed_tokens.weight": (9, 7), "model.layers.0.a": (5, 4), "model.norm": (6,),
          "model.layers.1.row": (3, 1)}  # fmt: skip
WEIGHTS, DENSITIES, SCALE = (0.4, -0.3, 1.2), (0.5, 0.29, 1.0), 0.7
TOLERANCE = {"F64": 1e-13, "F32": 1e-6, "BF16": 2**-8, "F16": 2**-10}


def step(verb: str, operands: dict[str, tuple[Operand, ...]], draws: Any = (), **f: Any) -> Step:
    """A step of this verb."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, operands, f, draws)


def family(dtype: str) -> tuple[Memory, tuple[Memory, ...]]:
    """A base and three fine-tunes of it."""
    base = random_model(0, SHAPES, dtype)
    return base, tuple(near(base, i + 1, 0.01) for i in range(3))


@pytest.mark.parametrize("rescale", ["none", "inverse", "l1"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
@pytest.mark.parametrize(
    "verb",
    [f"{name}{ties}-merge" for name in ("dare", "della", "breadcrumbs") for ties in ("", "-ties")],
)
def test_thinned(verb: str, dtype: str, normalize: bool, rescale: str, tmp_path: Path) -> None:
    """Every kind, weighted, scaled, rescaled and normalised, in every dtype."""
    base, models = family(dtype)
    own = {"epsilon": 0.2} if "della" in verb else {"gamma": 0.15} if "bread" in verb else {}
    made = step(
        verb, {"inputs": models, "base": (base,)}, ("x", "y", "z"), weight=WEIGHTS,
        density=DENSITIES, scale=SCALE, normalize=normalize, rescale=rescale, **own,
    )  # fmt: skip
    got, _ = compute(made, tmp_path)
    elect = "ties" in verb
    for name in SHAPES:
        start = base.arrays[name].astype(np.float64)
        vectors = []
        for i, model in enumerate(models):
            delta = model.arrays[name].astype(np.float64) - start
            thin = reference.thinned(
                verb, delta, "xyz"[i], name, DENSITIES[i], rescale=rescale, epsilon=0.2, gamma=0.15
            )
            vectors.append(WEIGHTS[i] * thin)
        expected = reference.merged(start, vectors, WEIGHTS, SCALE, elect=elect, divide=normalize)
        tolerance = TOLERANCE[dtype] * np.abs(expected).max()
        np.testing.assert_allclose(got[name].astype(np.float64), expected, rtol=0, atol=tolerance)


def test_masks_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller blocks draw the same masks and ranks, in tensors of odd rows too."""
    base, models = family("F32")
    found = []
    for size in (1 << 16, 7):
        monkeypatch.setattr("recipelang.weights.blocks.BLOCK_ELEMENTS", size)
        made = step("della-ties-merge", {"inputs": models, "base": (base,)}, density=0.4)
        found.append(compute(made, tmp_path / str(size))[0])
    assert all(bits(found[0][n]) == bits(found[1][n]) for n in SHAPES)


def test_another_key_draws_another_mask(tmp_path: Path) -> None:
    """Masks follow the inputs' keys: the same for the same, others for others."""
    base, models = family("F32")

    def masked(*draws: str) -> bytes:
        made = step("dare-merge", {"inputs": models, "base": (base,)}, draws, density=0.5)
        return bits(compute(made, tmp_path / "".join(draws))[0]["model.embed_tokens.weight"])

    assert masked("a", "b", "c") == masked("a", "b", "c")
    assert masked("a", "b", "c") != masked("a", "b", "d")


def test_half_words_are_halves_of_words() -> None:
    """Element i takes half of word i // 2, wherever a block starts, past 2^32 too."""
    key = keys("seed", "name")
    whole = half_words(np, key, 0, 21)
    assert whole.tolist() == reference.half_words("seed", "name", 21).tolist()
    for start in range(5):
        assert half_words(np, key, start, 21).tolist() == whole[start:].tolist()
    far = 1 << 32
    around = uniform_bits(key, far - 3, far + 3)
    assert around.tolist() == [int(uniform_bits(key, i, i + 1)[0]) for i in range(far - 3, far + 3)]


def test_shares_of_kept_entries_are_those_asked_for() -> None:
    """Half words are uniform: the share below any limit is within five standard deviations."""
    halves = half_words(np, keys("a", "b"), 0, 1 << 20)
    for p in (0.001, 0.1, 0.5, 0.9):
        share = np.mean(halves < round(p * 65536))
        assert abs(share - p) < 5 * (p * (1 - p) / (1 << 20)) ** 0.5 + 2**-17
    even, odd = halves[::2].astype(float), halves[1::2].astype(float)
    assert abs(np.corrcoef(even, odd)[0, 1]) < 0.01
    assert abs(np.corrcoef(halves[:-2:2].astype(float), even[1:])[0, 1]) < 0.01


@pytest.mark.parametrize("verb", ["della-merge", "della-ties-merge"])
def test_a_spread_outside_one_is_refused(verb: str) -> None:
    """Probabilities leave (0, 1]: E0536, before anything is read."""
    base, models = family("F32")
    for density, epsilon in ((0.1, 0.1), (0.9, 0.2)):
        with pytest.raises(RecipeError, match="E0536"):
            step(verb, {"inputs": models, "base": (base,)}, density=density, epsilon=epsilon)
    step(verb, {"inputs": models, "base": (base,)}, density=1.0, epsilon=0.3)


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
@pytest.mark.parametrize("rescale", ["none", "inverse", "l1"])
def test_ties_trimmed_over_the_whole_model(dtype: str, rescale: str, tmp_path: Path) -> None:
    """`trim = model` keeps the largest of all entries, tensors in name order among equals."""
    base, models = family(dtype)
    models[1].arrays["model.norm"][:] = base.arrays["model.norm"]  # many equals: zeros
    density = (0.5, 0.95, 1.0)
    made = step(
        "ties-merge", {"inputs": models, "base": (base,)}, weight=WEIGHTS, density=density,
        scale=SCALE, rescale=rescale, trim="model",
    )  # fmt: skip
    got, _ = compute(made, tmp_path)
    names = sorted(SHAPES)
    start = np.concatenate([base.arrays[n].astype(np.float64).reshape(-1) for n in names])
    vectors = []
    for i, model in enumerate(models):
        delta = np.concatenate([model.arrays[n].astype(np.float64).reshape(-1) for n in names])
        delta -= start
        k = floor(density[i] * delta.size + 1e-9)
        thin = reference.without_extremes(delta, 0, k) * (
            1 / density[i] if rescale == "inverse" else 1
        )
        vectors.append(
            WEIGHTS[i] * (per_tensor_l1(delta, thin, names) if rescale == "l1" else thin)
        )
    expected = reference.merged(start, vectors, WEIGHTS, SCALE, elect=True, divide=True)
    flat = np.concatenate([got[n].astype(np.float64).reshape(-1) for n in names])
    tolerance = TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(flat, expected, rtol=0, atol=tolerance)


def per_tensor_l1(delta: Any, thin: Any, names: list[str]) -> Any:
    """The L1 norm is brought back tensor by tensor."""
    ends = np.cumsum([int(np.prod(SHAPES[n])) for n in names])[:-1]
    pairs = zip(np.split(delta, ends), np.split(thin, ends), strict=True)
    return np.concatenate([reference.l1(d, t) for d, t in pairs])


def test_a_chain_of_trims_over_the_model_is_step_by_step(tmp_path: Path) -> None:
    """Fused, the statistics of the inner merge come first; the bits are those of two runs."""
    base, models = family("BF16")

    def inner() -> Step:
        roles: dict[str, tuple[Operand, ...]] = {"inputs": models[:2], "base": (base,)}
        return step("ties-merge", roles, density=0.3, trim="model")

    def outer(first: Operand) -> Step:
        roles: dict[str, tuple[Operand, ...]] = {"inputs": (first, models[2]), "base": (base,)}
        return step("ties-merge", roles, density=0.6, trim="model")

    stored = Memory(compute(inner(), tmp_path / "a")[0], base.config)
    expected, _ = compute(outer(stored), tmp_path / "b", threads=1)
    got, _ = compute(outer(inner()), tmp_path / "c", threads=3)
    assert all(bits(got[n]) == bits(expected[n]) for n in SHAPES)


def test_tensors_of_weight_zero_are_left_out_of_a_trim_over_the_model(tmp_path: Path) -> None:
    """What an input gives to no tensor takes no part in its threshold."""
    base, models = family("F32")
    weights = (Form("per", (("norm", 0.0), ("*", 1.0))), 1.0)
    made = step(
        "ties-merge", {"inputs": models[:2], "base": (base,)}, density=0.4, trim="model",
        weight=weights,
    )  # fmt: skip
    got, _ = compute(made, tmp_path)
    alone = step("ties-merge", {"inputs": models[1:2], "base": (base,)}, density=0.4, trim="model")
    second, _ = compute(alone, tmp_path / "b")
    assert bits(got["model.norm"]) == bits(second["model.norm"])
    assert bits(got["model.layers.0.a"]) != bits(second["model.layers.0.a"])
