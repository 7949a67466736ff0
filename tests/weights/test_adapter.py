"""Adapters: PEFT's files and scales, applying them, and the same bits however they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.weights.adapted import Adapted
from recipelang.weights.adapter import AdapterFolder, adapter_config, pairs
from recipelang.weights.region import make_step
from tests.weights.models import Memory, bits, compute, random_model

SHAPES = {
    "model.layers.0.self_attn.q_proj.weight": (1200, 300),
    "model.layers.0.mlp.up_proj.weight": (50, 300),
    "model.norm.weight": (300,),
}
Q = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(rank: int = 4, **config: Any) -> Memory:
    """An adapter of the q projection."""
    rng = np.random.default_rng(3)
    arrays = {
        f"{Q}.lora_A.weight": rng.standard_normal((rank, 300)).astype(np.float32),
        f"{Q}.lora_B.weight": rng.standard_normal((1200, rank)).astype(np.float32) * 0.01,
    }
    return Memory(arrays, {"peft_type": "LORA", "r": rank, "lora_alpha": 8, **config})


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4.0),
        ({"alpha_pattern": {"q_proj": 12}}, 3.0),
        ({"rank_pattern": {"x.q_proj": 2}}, 2.0),
    ],
)
def test_apply_is_w_plus_scaled_b_a(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    """Against float64; alpha / r, alpha / sqrt(r) for rsLoRA, and patterns by module name."""
    base, change = random_model(0, SHAPES, "F32"), adapter(**config)
    found = lookup("apply")
    assert found is not None
    got, _ = compute(make_step(found, {"adapter": (change,), "model": (base,)}, {}), tmp_path)
    a, b = (change.arrays[f"{Q}.lora_{x}.weight"].astype(np.float64) for x in "AB")
    name = "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_allclose(got[name], base.arrays[name] + scale * (b @ a), rtol=1e-5, atol=1e-6)
    for other in set(SHAPES) - {name}:
        assert bits(got[other]) == bits(base.arrays[other])


def test_reading_and_applying_give_the_same_bits(tmp_path: Path) -> None:
    """A model that is kept with its adapter reads, in any pieces, what `apply` and `+` write."""
    base, change = random_model(0, SHAPES), adapter()
    kept = Adapted(base, change)
    made = {}
    for verb, roles in (
        ("apply", {"adapter": (change,), "model": (base,)}),
        ("add-delta", {"model": (base,), "delta": (change,)}),
        ("cast", {"model": (kept,)}),
    ):
        found = lookup(verb)
        assert found is not None
        made[verb], _ = compute(
            make_step(found, roles, {"dtype": "bf16"} if verb == "cast" else {}), tmp_path / verb
        )
    name = "model.layers.0.self_attn.q_proj.weight"
    whole = kept.read(name)
    pieces = np.concatenate(
        [kept.read(name, i, min(i + 77_777, whole.size)) for i in range(0, whole.size, 77_777)]
    )
    assert bits(pieces) == bits(whole)
    assert all(bits(arrays[name]) == bits(whole) for arrays in made.values())
    assert whole.dtype == ml_dtypes.bfloat16


def test_peft_reads_what_is_written_and_back(tmp_path: Path) -> None:
    """adapter_config.json has the fields of PEFT's, and the folder opens again with the same
    scale."""
    change = adapter()
    name = "model.layers.0.self_attn.q_proj.weight"
    (tmp_path / "adapter_config.json").write_bytes(
        adapter_config(rank=4, alpha=8.0, targets=[name])
    )
    save_file(
        dict(change.arrays), tmp_path / "adapter_model.safetensors", metadata={"format": "pt"}
    )
    opened = AdapterFolder.open(tmp_path)
    (pair,) = pairs(opened.config, opened.tensors).values()
    assert pair.scale == 2.0
    assert bits(opened.read(pair.a)) == bits(change.arrays[pair.a])
    document = json.loads((tmp_path / "adapter_config.json").read_text())
    assert document["target_modules"] == ["q_proj"]
    assert (document["r"], document["lora_alpha"], document["task_type"]) == (4, 8.0, "CAUSAL_LM")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 10**9}, "the rank"),
        ({"r": 0}, "the rank"),
        ({"lora_alpha": "x"}, "`lora_alpha`"),
        ({"use_dora": True}, "`use_dora`"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_hostile_adapters_are_refused(config: dict[str, Any], words: str) -> None:
    """Absurd ranks and kinds that are not plain LoRA are E0733, by name."""
    change = adapter()
    with pytest.raises(RecipeError, match="E0733") as caught:
        pairs({**change.config, **config}, change.tensors)
    assert words in caught.value.diagnostics[0].message


def test_an_adapter_that_does_not_fit_is_refused() -> None:
    """A weight that the model lacks, or of another shape, is E0610."""
    found = lookup("apply")
    assert found is not None
    for shapes in (
        {"model.norm.weight": (300,)},
        {"model.layers.0.self_attn.q_proj.weight": (1200, 301)},
    ):
        with pytest.raises(RecipeError, match="E0610"):
            make_step(found, {"adapter": (adapter(),), "model": (random_model(0, shapes),)}, {})
