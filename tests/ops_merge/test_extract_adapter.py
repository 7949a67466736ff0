"""extract-adapter: Eckart and Young's bound, the way back, PEFT's layout, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from recipelang.diagnostics import RecipeError
from recipelang.ops.edit import extract_adapter as module
from recipelang.ops.registry import lookup
from recipelang.weights.adapter import AdapterFolder
from recipelang.weights.engine import run_region
from recipelang.weights.region import Operand, Step, make_step
from recipelang.weights.writer import ModelWriter
from tests.ops_merge import decompositions as reference
from tests.weights.models import Memory, bits, compute, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (50, 12),
    "model.layers.0.mlp.down_proj.weight": (12, 30),
    "model.layers.0.mlp.up_proj.weight": (30, 12),
    "model.layers.0.norm.weight": (12,),
    "model.layers.1.mlp.down_proj.weight": (12, 30),
    "model.layers.1.mlp.up_proj.weight": (30, 12),
    "lm_head.weight": (50, 12),
}
LINEAR = [name for name in SHAPES if "_proj" in name]


def step(model: Operand, base: Operand, **fields: Any) -> Step:
    """The extraction of what the model changed."""
    found = lookup("extract-adapter")
    assert found is not None
    return make_step(found, {"model": (model,), "base": (base,)}, fields)


def applied(adapter: Memory, model: Memory, folder: Path) -> dict[str, Any]:
    """The arrays of `apply ADAPTER to MODEL`."""
    found = lookup("apply")
    assert found is not None
    return compute(make_step(found, {"adapter": (adapter,), "model": (model,)}, {}), folder)[0]


def extracted(made: Step, folder: Path) -> Memory:
    """The adapter, computed."""
    return Memory(compute(made, folder)[0], made.config)


def changed_by(base: Memory, rank: int, names: list[str], seed: int = 7) -> Memory:
    """The base with changes of a rank in these weights."""
    rng = np.random.default_rng(seed)
    arrays = dict(base.arrays)
    for name in names:
        out, into = arrays[name].shape
        change = rng.standard_normal((out, rank)) @ rng.standard_normal((rank, into)) * 1e-3
        arrays[name] = (arrays[name] + change).astype(arrays[name].dtype)
    return Memory(arrays, base.config)


def product(adapter: Memory, weight: str) -> Any:
    """B A of a linear layer, in float64."""
    stem = f"base_model.model.{weight.removesuffix('.weight')}.lora_"
    a, b = (adapter.arrays[f"{stem}{side}.weight"].astype(np.float64) for side in "AB")
    return b @ a


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
@pytest.mark.parametrize("rank", [1, 4, 12])
def test_the_closest_matrix_of_that_rank(dtype: str, rank: int, tmp_path: Path) -> None:
    """B A is the truncated decomposition, and A and B share the singular values equally."""
    base = random_model(0, SHAPES, dtype)
    model = near(base, 1)
    adapter = extracted(step(model, base, rank=rank), tmp_path)
    assert {a.dtype for a in adapter.arrays.values()} == {np.dtype(np.float32)}
    for name in LINEAR:
        change = model.arrays[name].astype(np.float64) - base.arrays[name].astype(np.float64)
        np.testing.assert_allclose(
            product(adapter, name), reference.truncated(change, rank), atol=1e-8
        )
        _, s, _ = reference.triplets(change, rank)
        a = adapter.arrays[f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"]
        np.testing.assert_allclose(np.square(a.astype(np.float64)).sum(1), s, rtol=1e-5)


def test_a_change_of_low_rank_comes_back(tmp_path: Path) -> None:
    """Where the fine-tune is of that rank, `apply` gives it back up to rounding; weights that did
    not change stay to the bit."""
    base = random_model(0, SHAPES, "F32")
    up = [name for name in LINEAR if "up_proj" in name]
    model = changed_by(base, 3, up)
    adapter = extracted(step(model, base, rank=5), tmp_path / "a")
    got = applied(adapter, base, tmp_path / "b")
    for name in SHAPES:
        if name in up:
            np.testing.assert_allclose(got[name], model.arrays[name], rtol=1e-6, atol=1e-8)
        else:
            assert bits(got[name]) == bits(base.arrays[name])


def test_what_is_lost_is_the_discarded_singular_values(tmp_path: Path) -> None:
    """||M - (B + s B A)||^2 is the sum of the squares of what was cut off (Eckart and Young)."""
    base = random_model(0, SHAPES, "F32")
    model = near(base, 1)
    adapter = extracted(step(model, base, rank=4), tmp_path / "a")
    got = applied(adapter, base, tmp_path / "b")
    for name in LINEAR:
        change = model.arrays[name].astype(np.float64) - base.arrays[name]
        lost = np.square(np.linalg.svd(change)[1][4:]).sum()
        error = np.square(model.arrays[name].astype(np.float64) - got[name]).sum()
        np.testing.assert_allclose(error, lost, rtol=1e-4)


def test_alpha_changes_the_files_and_not_the_model(tmp_path: Path) -> None:
    """PEFT scales by alpha / r; the factors make up for it."""
    base = random_model(0, SHAPES, "F32")
    model = near(base, 1)
    plain, scaled = (
        extracted(step(model, base, rank=4, alpha=alpha), tmp_path / f"{alpha}")
        for alpha in (None, 32.0)
    )
    assert (plain.config["lora_alpha"], scaled.config["lora_alpha"]) == (4, 32)
    for name in LINEAR:
        np.testing.assert_allclose(8 * product(scaled, name), product(plain, name), atol=1e-8)
    ones, others = (applied(a, base, tmp_path / f"{i}") for i, a in enumerate((plain, scaled)))
    np.testing.assert_allclose(ones[LINEAR[0]], others[LINEAR[0]], rtol=1e-6, atol=1e-8)


def test_a_rank_above_the_matrix_is_filled_with_zeros(tmp_path: Path) -> None:
    """All of the change is kept, and the factors have the rank that was asked for."""
    base = random_model(0, SHAPES, "F32")
    model = near(base, 1)
    adapter = extracted(step(model, base, rank=20), tmp_path / "a")
    got = applied(adapter, base, tmp_path / "b")
    for name in LINEAR:
        a = adapter.arrays[f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"]
        assert a.shape == (20, SHAPES[name][1])
        assert a[:12].any(axis=1).all()
        assert not a[12:].any()
        np.testing.assert_allclose(got[name], model.arrays[name], rtol=1e-6, atol=1e-8)


def test_nothing_changed_gives_an_adapter_of_zeros(tmp_path: Path) -> None:
    """Which applied gives the base's bits."""
    base = random_model(0, SHAPES, "BF16")
    adapter = extracted(step(base, base, rank=2), tmp_path / "a")
    assert not any(array.any() for array in adapter.arrays.values())
    got = applied(adapter, base, tmp_path / "b")
    assert all(bits(got[name]) == bits(base.arrays[name]) for name in SHAPES)


@pytest.mark.parametrize(
    ("fields", "names", "modules"),
    [
        ({}, LINEAR, ["down_proj", "up_proj"]),
        ({"targets": ("up_proj",)}, [n for n in LINEAR if "up" in n], ["up_proj"]),
        (
            {"targets": ("layers.0",)}, [n for n in LINEAR if ".0." in n],
            ["model.layers.0.mlp.down_proj", "model.layers.0.mlp.up_proj"],
        ),
        (
            {"targets": ("all-linear", "lm_head"), "exclude": ("*.1.mlp.down_proj",)},
            ["lm_head.weight", *(n for n in LINEAR if "1.mlp.down" not in n)],
            ["lm_head", "up_proj", "model.layers.0.mlp.down_proj"],
        ),
    ],
)  # fmt: skip
def test_targets_choose(fields: dict[str, Any], names: list[str], modules: list[str]) -> None:
    """Names, parts and globs; PEFT is given last names where all modules of that name are
    adapted, else whole ones."""
    base = random_model(0, SHAPES)
    made = step(near(base, 1), base, rank=2, **fields)
    expected = {
        f"base_model.model.{n.removesuffix('.weight')}.lora_{side}.weight"
        for n in names for side in "AB"
    }  # fmt: skip
    assert set(made.tensors) == expected
    assert made.config["target_modules"] == modules
    assert (made.config["r"], made.config["peft_type"]) == (2, "LORA")


@pytest.mark.parametrize(
    ("config", "shapes", "targets"),
    [
        ({"model_type": "llama"}, SHAPES, ("all-linear", "embed_tokens", "lm_head")),
        (
            {"model_type": "llama", "tie_word_embeddings": True},
            {n: s for n, s in SHAPES.items() if "head" not in n},
            ("all-linear", "embed_tokens"),
        ),
        (
            {"model_type": "gpt2", "tie_word_embeddings": True},
            {
                "transformer.wte.weight": (20, 8),
                "transformer.h.0.attn.c_attn.weight": (8, 24),
                "transformer.h.0.attn.c_proj.weight": (8, 8),
                "transformer.h.0.ln_1.weight": (8,),
            },
            ("all-linear", "wte"),
        ),
    ],
)
def test_every_layout_comes_back(
    config: dict[str, object], shapes: dict[str, tuple[int, ...]], targets: tuple[str, ...],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Embeddings, tied ones, and layers stored (in, out): `apply` reads what was written, and a
    tied model stays tied."""
    base = random_model(0, shapes, "F32")
    base.config = {"num_hidden_layers": 2, **config}
    model = changed_by(base, 2, [n for n, s in shapes.items() if len(s) == 2])
    adapter = extracted(step(model, base, rank=2, targets=targets), tmp_path / "a")
    got = applied(adapter, base, tmp_path / "b")
    assert set(got) == set(shapes)
    for name in shapes:
        np.testing.assert_allclose(got[name], model.arrays[name], rtol=1e-6, atol=1e-8)


def test_embeddings_where_they_are_asked_for(tmp_path: Path) -> None:
    """PEFT's layout of an embedding: (B A)^T is added to the table."""
    base = random_model(0, SHAPES, "F32")
    name = "model.embed_tokens.weight"
    model = changed_by(base, 2, [name])
    made = step(model, base, rank=3, targets=("embed_tokens",))
    adapter = extracted(made, tmp_path)
    a = adapter.arrays["base_model.model.model.embed_tokens.lora_embedding_A"]
    b = adapter.arrays["base_model.model.model.embed_tokens.lora_embedding_B"]
    assert (a.shape, b.shape) == ((3, 50), (12, 3))
    change = model.arrays[name].astype(np.float64) - base.arrays[name]
    np.testing.assert_allclose((b @ a).T, change, atol=1e-8)
    assert "ensure_weight_tying" not in made.config
    tied = Memory({n: x for n, x in base.arrays.items() if "head" not in n}, base.config)
    assert step(tied, tied, rank=3, targets=("embed_tokens",)).config["ensure_weight_tying"] is True


def test_weights_that_are_stored_the_other_way_round(tmp_path: Path) -> None:
    """A GPT-2 layer keeps (in, out): A has a column an input, and PEFT is told."""
    name = "transformer.h.0.mlp.c_fc.weight"
    base = random_model(0, {name: (8, 20)}, "F32")
    base.config = {"num_hidden_layers": 1, "model_type": "gpt2"}  # type: ignore[assignment]
    model = changed_by(base, 2, [name])
    made = step(model, base, rank=2)
    adapter = extracted(made, tmp_path)
    stem = "base_model.model.transformer.h.0.mlp.c_fc.lora_"
    a, b = (adapter.arrays[f"{stem}{side}.weight"] for side in "AB")
    assert (a.shape, b.shape) == ((2, 8), (20, 2))
    change = model.arrays[name].astype(np.float64) - base.arrays[name]
    np.testing.assert_allclose((b @ a).T, change, atol=1e-8)
    assert made.config["fan_in_fan_out"] is True


def test_large_matrices_are_sketched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default from a size on, by the field otherwise; equal draws give equal bits, and a change
    of low rank comes back either way."""
    base = random_model(0, SHAPES, "F32")
    model = changed_by(base, 3, LINEAR)
    made = {
        key: extracted(
            step(model, base, rank=3, randomised=key[0], seed=key[1]), tmp_path / f"{key}"
        )
        for key in ((None, 0), (False, 0), (True, 0))
    }
    monkeypatch.setattr(module, "EXACT_UP_TO", 11)
    sketched = extracted(step(model, base, rank=3), tmp_path / "x")
    for name, array in sketched.arrays.items():
        assert bits(made[None, 0].arrays[name]) == bits(made[False, 0].arrays[name])
        assert bits(made[True, 0].arrays[name]) == bits(array)
    for name in LINEAR:
        np.testing.assert_allclose(
            product(sketched, name), product(made[False, 0], name), atol=1e-8
        )
    found = lookup("extract-adapter")
    assert found is not None
    roles = {"model": (model,), "base": (base,)}
    other = make_step(found, roles, {"rank": 1, "randomised": True}, ("another key",))
    same = make_step(found, roles, {"rank": 1, "randomised": True}, ("0",))
    arrays = [extracted(s, tmp_path / f"{i}").arrays for i, s in enumerate((other, same))]
    assert any(bits(arrays[0][n]) != bits(arrays[1][n]) for n in arrays[0])


def test_both_factors_come_from_one_decomposition(tmp_path: Path) -> None:
    """Each weight is read once; a killed extraction goes on with the factor that is missing, and
    the facts tell what is kept."""
    base = random_model(0, SHAPES, "F32")
    model = near(base, 1)
    made = step(model, base, rank=4)
    model.counts.clear()
    writer = ModelWriter(tmp_path / "a", made.tensors, identity="x")
    stats = run_region([(made, writer)])
    assert model.counts == {name: model.arrays[name].size for name in LINEAR}
    for name in LINEAR:
        told = stats.facts[f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"]
        s = np.linalg.svd(model.arrays[name].astype(np.float64) - base.arrays[name])[1]
        np.testing.assert_allclose(told["energy"], np.square(s).sum(), rtol=1e-6)
        np.testing.assert_allclose(told["kept"], np.square(s[:4]).sum(), rtol=1e-6)
    assert len(stats.facts) == len(LINEAR)
    expected = writer.finish()
    half = ModelWriter(tmp_path / "b", made.tensors, identity="x")
    arrays = load_file(expected.shards[0].path)
    for name in [n for n in made.tensors if "lora_A" in n]:
        half.write(name, 0, arrays[name])
    run_region([(made, half)])
    assert half.finish().shards[0].digest == expected.shards[0].digest


def test_a_merge_of_extracted_adapters(tmp_path: Path) -> None:
    """An adapter is a difference of models: `a + 0.5 * b` of the arithmetic takes it."""
    base = random_model(0, SHAPES, "F32")
    model = changed_by(base, 2, LINEAR)
    adapter = extracted(step(model, base, rank=2), tmp_path / "a")
    found = lookup("add-delta")
    assert found is not None
    half = make_step(found, {"model": (base,), "delta": (adapter,)}, {"scale": 0.5})
    got, _ = compute(half, tmp_path / "b")
    for name in LINEAR:
        middle = (model.arrays[name].astype(np.float64) + base.arrays[name]) / 2
        np.testing.assert_allclose(got[name], middle, rtol=1e-6, atol=1e-8)


def test_the_files_open_as_peft_s(tmp_path: Path) -> None:
    """adapter_config.json and adapter_model.safetensors, which `adapter "…"` opens."""
    base = random_model(0, SHAPES, "F32")
    made = step(changed_by(base, 2, LINEAR), base, rank=2)
    writer = ModelWriter(tmp_path, made.tensors)
    run_region([(made, writer)])
    (shard,) = writer.finish().shards
    shard.path.rename(tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(dict(made.config)))
    opened = AdapterFolder.open(tmp_path)
    assert opened.tensors == made.tensors
    assert opened.config["lora_alpha"] == opened.config["r"] == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"targets": ("q_proj",)}, "`q_proj`"),
        ({"targets": ("norm",)}, "`norm`"),
        ({"exclude": ("k_proj",)}, "`k_proj`"),
        ({"targets": ("up_proj",), "exclude": ("mlp",)}, "no weight is left"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(fields: dict[str, Any], words: str) -> None:
    """E0555 names the pattern, and what the model has."""
    base = random_model(0, SHAPES)
    with pytest.raises(RecipeError, match="E0555") as caught:
        step(base, base, rank=2, **fields)
    assert words in caught.value.diagnostics[0].message


def test_models_that_do_not_fit_are_refused() -> None:
    """Another shape is E0601, a missing tensor E0603."""
    base = random_model(0, SHAPES)
    wide = random_model(0, {**SHAPES, "model.layers.0.mlp.up_proj.weight": (31, 12)})
    fewer = random_model(0, {n: s for n, s in SHAPES.items() if "1.mlp.up" not in n})
    for other, code in ((wide, "E0601"), (fewer, "E0603")):
        with pytest.raises(RecipeError, match=code):
            step(other, base, rank=2)
