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
from recipelang.types import TensorInfo
from recipelang.weights.adapted import Adapted
from recipelang.weights.adapter import AdapterFolder, adapter_config
from recipelang.weights.peft import contents
from recipelang.weights.region import Step, make_step
from tests.weights.adapters import KINDS, low_rank, model_shapes, wanted
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
    (factors,) = contents(opened.config, opened.tensors).factors.values()
    assert factors.scale == 2.0
    assert bits(opened.read(factors.a)) == bits(change.arrays[factors.a])
    document = json.loads((tmp_path / "adapter_config.json").read_text())
    assert document["target_modules"] == ["q_proj"]
    assert (document["r"], document["lora_alpha"], document["task_type"]) == (4, 8.0, "CAUSAL_LM")


MODULE = "`model.layers.0.self_attn.q_proj`"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"r": 10**9}, "the rank `r`"),
        ({"r": 0}, "the rank `r`"),
        ({"r": 3}, f"the rank of {MODULE} is 3, but `lora_A` is [4, 300]"),
        ({"rank_pattern": {"q_proj": 8}}, f"the rank of {MODULE} is 8"),
        ({"rank_pattern": {"(a+)+": 8}}, "the pattern `(a+)+`"),
        ({"alpha_pattern": {"(": 8}}, "the pattern `(`"),
        ({"lora_alpha": "x"}, "`lora_alpha`"),
        ({"use_dora": True}, f"{MODULE} lacks its `lora_magnitude_vector`"),
        ({"lora_bias": True}, f"{MODULE} lacks its `lora_B.bias`"),
        ({"peft_type": "IA3"}, "`IA3`, and only LoRA is read"),
        ({"peft_type": None}, "no `peft_type`"),
        ({"bias": "some"}, "`bias` is 'some'"),
        ({"modules_to_save": ["lm_head"]}, "`modules_to_save` has `lm_head`"),
        ({"target_parameters": ["experts"]}, "`target_parameters`"),
        ({"trainable_token_indices": [1]}, "`trainable_token_indices`"),
        ({"use_qalora": True}, "`use_qalora`"),
        ({"init_lora_weights": "pissa_niter_4"}, "`pissa_niter_4`, which changed the model"),
        ({"init_lora_weights": "loftq"}, "`loftq`, which changed the model"),
    ],
)
def test_hostile_adapters_are_refused(config: dict[str, Any], words: str) -> None:
    """Absurd sizes, kinds that are not read and parts that do not belong together are E0733, by
    name."""
    change = adapter()
    with pytest.raises(RecipeError, match="E0733") as caught:
        contents({**change.config, **config}, change.tensors)
    assert words in caught.value.diagnostics[0].message


F32 = "F32"


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({f"{Q}.lora_B.weight": None}, f"{MODULE} lacks its `lora_B`"),
        ({f"{Q}.lora_A.weight": None}, f"{MODULE} lacks its `lora_A`"),
        ({f"{Q}.lora_A.weight": TensorInfo(F32, (4, 30, 3, 3))}, "is a convolution"),
        ({f"{Q}.lora_A.weight": TensorInfo("I64", (4, 300))}, "is I64, which is no weight"),
        ({f"{Q}.lora_A.default.weight": TensorInfo(F32, (4, 300))}, "stands twice"),
        ({f"{Q}.lora_magnitude_vector": TensorInfo(F32, (1200,))}, "does not name"),
        ({f"{Q}.lora_E": TensorInfo(F32, (4, 1))}, "is not of a LoRA"),
        ({"lora_unet_q.lora_down.weight": TensorInfo(F32, (4, 300))}, "is not of a LoRA"),
        ({"model.norm.weight": TensorInfo(F32, (300,))}, "is not of a LoRA"),
        ({"base_model.model.e.token_adapter.trainable_tokens_delta": TensorInfo(F32, (1, 300))},
         "is not of a LoRA"),
    ],
)  # fmt: skip
def test_tensors_that_belong_to_no_lora_are_refused(
    tensors: dict[str, TensorInfo | None], words: str
) -> None:
    """Missing halves, tensors of other tools and twice the same are E0733, by name."""
    change = adapter()
    table = {n: i for n, i in {**change.tensors, **tensors}.items() if i is not None}
    with pytest.raises(RecipeError, match="E0733") as caught:
        contents(change.config, table)
    assert words in caught.value.diagnostics[0].message


def test_an_empty_adapter_is_refused() -> None:
    """A file without tensors is E0733."""
    with pytest.raises(RecipeError, match=r"E0733.*holds no tensor"):
        contents(adapter().config, {})


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


def test_a_quantised_weight_is_refused() -> None:
    """Numbers that are no floating-point ones take no change, and are not left out in silence."""
    name = "model.layers.0.self_attn.q_proj.weight"
    base = Memory({name: np.zeros((1200, 300), np.int64)}, {})
    with pytest.raises(RecipeError, match=r"E0610.*stores as I64"):
        step("apply", {"adapter": (adapter(),), "model": (base,)})


# ---------------------------------------------------------------- kinds, over several blocks

BIG = model_shapes(100)


def step(verb: str, roles: dict[str, Any], **fields: Any) -> Step:
    """A step of that verb."""
    operation = lookup(verb)
    assert operation is not None
    return make_step(operation, roles, fields)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_over_several_blocks(kind: str, tmp_path: Path) -> None:
    """Against float64, with the same bits under any budget and number of threads, and for a model
    that is kept with its adapter."""
    base, change = random_model(1, BIG, "F32", 0.1), low_rank(kind, size=100)
    made = step("apply", {"adapter": (change,), "model": (base,)})
    got, _ = compute(made, tmp_path / "a")
    tight, _ = compute(made, tmp_path / "b", budget_bytes=1, threads=3)
    kept = Adapted(base, change)
    for name, expected in wanted(base, change).items():
        np.testing.assert_allclose(got[name], expected, rtol=2e-6, atol=1e-6, err_msg=name)
        assert bits(got[name]) == bits(tight[name]) == bits(kept.read(name))
        part = slice(7, min(70_000, got[name].size))
        assert bits(got[name].reshape(-1)[part]) == bits(kept.read(name, part.start, part.stop))


@pytest.mark.parametrize("kind", KINDS)
def test_fused_with_a_merge_is_stored_between(kind: str, tmp_path: Path) -> None:
    """A merge over steps `apply` has the bits of the merge over what they write, in bf16 too."""
    base = random_model(1, BIG, "BF16", 0.1)
    steps = [
        step("apply", {"adapter": (low_rank(kind, s, size=100),), "model": (base,)}) for s in (5, 6)
    ]
    stored = [Memory(compute(s, tmp_path / str(i))[0], base.config) for i, s in enumerate(steps)]
    for verb, roles in (("ties-merge", {"base": (base,)}), ("linear-merge", {})):
        fused, _ = compute(
            step(verb, {"inputs": tuple(steps), **roles}, weight=(0.4, 1.0)), tmp_path / verb
        )
        apart, _ = compute(
            step(verb, {"inputs": tuple(stored), **roles}, weight=(0.4, 1.0)),
            tmp_path / f"{verb}-stored", budget_bytes=1,
        )  # fmt: skip
        assert fused.keys() == apart.keys()
        assert all(bits(fused[name]) == bits(apart[name]) for name in fused)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_an_adapter(kind: str, tmp_path: Path) -> None:
    """`M + A` is `apply A to M`, and `M + s A` is M + s (A's result - M); A's tensors that the
    model keeps are its own."""
    base, change = random_model(1, BIG, "F32", 0.1), low_rank(kind, size=100)
    whole = wanted(base, change)
    applied, _ = compute(step("apply", {"adapter": (change,), "model": (base,)}), tmp_path / "a")
    for scale in (1.0, 0.3, -1.0):
        got, _ = compute(
            step("add-delta", {"model": (base,), "delta": (change,)}, scale=scale),
            tmp_path / str(scale),
        )
        for name, array in got.items():
            before = base.arrays[name].astype(np.float64)
            expected = before + scale * (whole[name] - before)
            np.testing.assert_allclose(array, expected, rtol=4e-6, atol=2e-6, err_msg=name)
            if scale == 1:
                assert bits(array) == bits(applied[name])


def test_a_row_of_zeros_has_no_direction(tmp_path: Path) -> None:
    """DoRA leaves a row that is zero as it is, where the formula divides by its norm."""
    base = Memory({"up.weight": np.zeros((3, 4), np.float32)}, {})
    prefix = "base_model.model.up"
    change = Memory(
        {f"{prefix}.lora_A.weight": np.ones((1, 4), np.float32),
         f"{prefix}.lora_B.weight": np.array([[1], [0], [2]], np.float32),
         f"{prefix}.lora_magnitude_vector": np.array([2, 2, -2], np.float32)},
        {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "use_dora": True},
    )  # fmt: skip
    got, _ = compute(step("apply", {"adapter": (change,), "model": (base,)}), tmp_path)
    np.testing.assert_array_equal(got["up.weight"], [[1] * 4, [0] * 4, [-1] * 4])


def test_names_without_the_prefix_of_the_base_model(tmp_path: Path) -> None:
    """A model that is stored as its base model is (`h.0…` for `transformer.h.0…`) takes adapters of
    the whole."""
    base, change = random_model(1, BIG, "F32", 0.1), low_rank("lora", size=100)
    prefix = "base_model.model."
    long = {n.replace(prefix, f"{prefix}transformer."): a for n, a in change.arrays.items()}
    one, _ = compute(step("apply", {"adapter": (change,), "model": (base,)}), tmp_path / "a")
    other = Memory(long, change.config)
    two, _ = compute(step("apply", {"adapter": (other,), "model": (base,)}), tmp_path / "b")
    assert all(bits(one[name]) == bits(two[name]) for name in BIG)
