"""Merges of whatever has matching names: encoders, encoder-decoders, vision-language models,
experts; the layers follow from the names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.diagnostics import RecipeError
from recipelang.values import Form
from recipelang.weights.folder import Folder
from recipelang.weights.layers import depth_of, stack_lengths
from tests.weights.models import Memory, bits, compute, near, random_model, write_folder
from tests.weights.words import step

RAMP = Form("gradient", (("0", 0.0), ("1", 1.0)))
BLOCK = {"self_attn.q_proj.weight": (4, 6), "mlp.up_proj.weight": (8, 6)}


def layers(prefix: str, count: int, block: Mapping[str, tuple[int, ...]] = BLOCK) -> Any:
    """The shapes of a stack."""
    return {f"{prefix}.{i}.{name}": s for i in range(count) for name, s in block.items()}


VISION_LANGUAGE = {
    "model.vision_tower.embeddings.patch_embedding.weight": (6, 3, 2, 2),
    "model.vision_tower.pre_layrnorm.weight": (6,),
    **layers("model.vision_tower.encoder.layers", 5),
    "model.vision_tower.post_layernorm.weight": (6,),
    "model.multi_modal_projector.linear_1.weight": (6, 6),
    "model.language_model.embed_tokens.weight": (32, 6),
    **layers("model.language_model.layers", 3),
    "model.language_model.norm.weight": (6,),
    "lm_head.weight": (32, 6),
}
BERT = {
    "bert.embeddings.word_embeddings.weight": (32, 6),
    "bert.embeddings.position_embeddings.weight": (32, 6),
    "bert.embeddings.LayerNorm.weight": (6,),
    **layers("bert.encoder.layer", 4, {"attention.self.query.weight": (6, 6), "output.bias": (6,)}),
    "bert.pooler.dense.weight": (6, 6),
    "cls.predictions.bias": (32,),
}
T5_BLOCK = {"layer.0.SelfAttention.q.weight": (6, 6), "layer.1.DenseReluDense.wi.weight": (9, 6)}
T5 = {
    "shared.weight": (32, 6),
    **layers("encoder.block", 3, T5_BLOCK),
    "encoder.final_layer_norm.weight": (6,),
    **layers("decoder.block", 5, T5_BLOCK),
    "decoder.final_layer_norm.weight": (6,),
}
EXPERTS = {
    "model.embed_tokens.weight": (32, 6),
    **{
        f"model.layers.{i}.mlp.experts.{e}.w1.weight": (9, 6)
        for i in range(3) for e in range(8)
    },
    "model.norm.weight": (6,),
}  # fmt: skip
VISION_CONFIG = {
    "model_type": "some-vlm",
    "text_config": {"model_type": "llama", "num_hidden_layers": 3, "vocab_size": 32},
    "vision_config": {"num_hidden_layers": 5, "hidden_size": 6},
}


@pytest.mark.parametrize(
    ("shapes", "config"),
    [
        (VISION_LANGUAGE, VISION_CONFIG),
        (BERT, {"model_type": "bert", "num_hidden_layers": 4, "vocab_size": 32}),
        (T5, {"model_type": "t5", "num_layers": 3, "num_decoder_layers": 5, "vocab_size": 32}),
        (EXPERTS, {"model_type": "never-heard-of", "num_local_experts": 8}),
    ],
    ids=["vision-language", "bert", "t5", "experts"],
)
def test_any_architecture_whose_names_match_merges(
    shapes: dict[str, tuple[int, ...]], config: dict[str, object], tmp_path: Path
) -> None:
    """No list of architectures is asked: every tensor is merged, and a gradient runs over each
    stack from its first to its last layer."""
    a = random_model(1, shapes, "F32")
    a = Memory(a.arrays, config)
    b = near(a, 2)
    got, _ = compute(step("slerp-merge", {"inputs": [a, b]}, t=RAMP), tmp_path / "ramp")
    counts = stack_lengths(shapes)
    for name in shapes:
        at = depth_of(name, counts)
        if at in (0.0, 1.0):
            assert bits(got[name]) == bits((b if at else a).arrays[name]), name
        else:
            plain = (1 - at) * a.arrays[name] + at * b.arrays[name].astype(np.float64)
            np.testing.assert_allclose(got[name], plain, rtol=1e-3, atol=1e-4)
            assert bits(got[name]) not in (bits(a.arrays[name]), bits(b.arrays[name]))


@pytest.mark.parametrize(
    ("shapes", "name", "depth"),
    [
        (VISION_LANGUAGE, "model.vision_tower.embeddings.patch_embedding.weight", 0.0),
        (VISION_LANGUAGE, "model.vision_tower.pre_layrnorm.weight", 0.0),
        (VISION_LANGUAGE, "model.vision_tower.encoder.layers.1.mlp.up_proj.weight", 0.25),
        (VISION_LANGUAGE, "model.vision_tower.post_layernorm.weight", 1.0),
        (VISION_LANGUAGE, "model.multi_modal_projector.linear_1.weight", 1.0),
        (VISION_LANGUAGE, "model.language_model.embed_tokens.weight", 0.0),
        (VISION_LANGUAGE, "model.language_model.layers.1.mlp.up_proj.weight", 0.5),
        (VISION_LANGUAGE, "model.language_model.norm.weight", 1.0),
        (VISION_LANGUAGE, "lm_head.weight", 1.0),
        (BERT, "bert.embeddings.LayerNorm.weight", 0.0),
        (BERT, "bert.encoder.layer.3.output.bias", 1.0),
        (BERT, "bert.pooler.dense.weight", 1.0),
        (BERT, "cls.predictions.bias", 1.0),
        (T5, "shared.weight", 0.0),
        (T5, "encoder.block.1.layer.1.DenseReluDense.wi.weight", 0.5),
        (T5, "decoder.block.1.layer.0.SelfAttention.q.weight", 0.25),
        (T5, "encoder.final_layer_norm.weight", 1.0),
        (EXPERTS, "model.layers.1.mlp.experts.7.w1.weight", 0.5),
        ({"h.0.w": (1,)}, "h.0.w", 0.0),
        ({"gpt_neox.layers.0.w": (1,)}, "embed_out.weight", 1.0),
    ],
)
def test_depth_runs_over_each_stack(
    shapes: dict[str, tuple[int, ...]], name: str, depth: float
) -> None:
    """The place of a tensor between the first layer and the last of its own stack."""
    assert depth_of(name, stack_lengths(shapes)) == depth


def test_vision_language_model_merges_without_its_vision_tower(tmp_path: Path) -> None:
    """`per { "vision_tower" = 0 }` leaves the tower of the first model to the bit, unread in the
    other, and merges all else."""
    a = random_model(1, VISION_LANGUAGE, "BF16")
    a = Memory(a.arrays, VISION_CONFIG)
    b = near(a, 2)
    only = Form("per", (("vision_tower", 0.0),))
    made = step("linear-merge", {"inputs": [a, b]}, weight=(1.0, only))
    got, _ = compute(made, tmp_path / "out")
    for name, array in got.items():
        if "vision_tower" in name:
            assert bits(array) == bits(a.arrays[name])
            assert name not in b.counts
        else:
            assert bits(array) != bits(a.arrays[name])
    assert made.config == VISION_CONFIG
    with pytest.raises(RecipeError, match=r"E0543.*vision_towr"):
        step("slerp-merge", {"inputs": [a, b]}, t=Form("per", (("vision_towr", 0.0),)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text_config": {"hidden_size": 8}}, None),
        ({"text_config": {"num_hidden_layers": 4}}, "`text_config.num_hidden_layers` is 3 and 4"),
        ({"vision_config": {"hidden_size": 7}}, "`vision_config.hidden_size` is 6 and 7"),
        ({"num_hidden_layers": 3, "text_config": None}, None),
        ({"model_type": "other-vlm"}, "`model_type` is some-vlm and other-vlm"),
    ],
)
def test_nested_configurations_are_compared_where_both_speak(
    change: dict[str, Any], words: str | None
) -> None:
    """A key of a section is compared where both have it; one that only one has says nothing."""
    a = Memory(random_model(1, VISION_LANGUAGE, "BF16").arrays, VISION_CONFIG)
    config: dict[str, Any] = dict(VISION_CONFIG)
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    b = Memory(a.arrays, config)
    if words is None:
        assert step("linear-merge", {"inputs": [a, b]}).tensors == a.tensors
    else:
        with pytest.raises(RecipeError, match=f"E0601.*{words}"):
            step("linear-merge", {"inputs": [a, b]})


def test_missing_tensors_are_counted(tmp_path: Path) -> None:
    """The first tensor that a model lacks is named, with how many more it lacks."""
    a = random_model(1, BERT, "F32")
    lacking = {n: x for n, x in a.arrays.items() if ".3." not in n and "pooler" not in n}
    with pytest.raises(RecipeError) as caught:
        step("linear-merge", {"inputs": [a, Memory(lacking)]})
    assert caught.value.diagnostics[0].code == "E0603"
    assert caught.value.diagnostics[0].message == (
        "`model 2` has no tensor `bert.encoder.layer.3.attention.self.query.weight`, which "
        "`model 1` has, and lacks 2 more of its tensors"
    )


def test_buffers_that_some_models_store_are_the_subject_s(tmp_path: Path) -> None:
    """Rotary frequencies, position ids and causal masks that not all models have: the result has
    the subject's as they are, or none; where all have them they must agree as ever."""
    plain = random_model(1, EXPERTS, "F32")
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.arange(4, dtype=np.float32),
        "model.embeddings.position_ids": np.arange(9).reshape(1, 9),
        "model.layers.1.attn.bias": np.ones((1, 1, 3, 3), np.float32),
    }
    full = Memory({**near(plain, 2).arrays, **buffers}, plain.config)
    got, _ = compute(step("linear-merge", {"inputs": [full, plain]}), tmp_path / "1")
    assert all(bits(got[name]) == bits(buffers[name]) for name in buffers)
    got, _ = compute(step("linear-merge", {"inputs": [plain, full]}), tmp_path / "2")
    assert set(got) == set(plain.arrays)
    half, _ = compute(step("linear-merge", {"inputs": [full, plain]}, dtype="f16"), tmp_path / "h")
    assert half["model.layers.0.self_attn.rotary_emb.inv_freq"].tolist() == [0, 1, 2, 3]
    for of, minus in ((full, plain), (plain, full)):
        assert set(step("delta", {"of": [of], "minus": [minus]}).tensors) == set(plain.arrays)
    shifted = Memory({**full.arrays, "model.embeddings.position_ids": np.arange(9)[None] + 1},
                     plain.config)  # fmt: skip
    with pytest.raises(RecipeError, match=r"E0621.*position_ids"):
        compute(step("linear-merge", {"inputs": [full, shifted]}), tmp_path / "3")


@pytest.mark.parametrize("verb", ["linear-merge", "task-arithmetic-merge"])
def test_buffers_that_all_models_store_are_no_weights(verb: str, tmp_path: Path) -> None:
    """GPT-NeoX in f16 stores -1e9 as an infinity, which is no fault and takes no part in sums."""
    plain = random_model(1, EXPERTS, "F32")
    mask, scores = "model.layers.0.attention.masked_bias", "model.layers.0.attention.bias"

    def stored(seed: int) -> Memory:
        buffers = {mask: np.array(-np.inf, np.float16), scores: np.full((1, 1, 2, 2), seed * 1.0)}
        return Memory({**near(plain, seed).arrays, **buffers}, plain.config)

    operands: dict[str, Any] = {"inputs": [stored(2), stored(3)]}
    if verb != "linear-merge":
        operands["base"] = [stored(4)]
    got, _ = compute(step(verb, operands), tmp_path)
    assert got[mask].tolist() == -np.inf
    assert got[scores].tolist() == np.full((1, 1, 2, 2), 2.0).tolist()
    stack = step("stack", {"inputs": operands["inputs"][:1]}, scale=(0.5,), dtype="f16")
    got, _ = compute(stack, tmp_path / "scaled")
    assert got[mask].tolist() == -np.inf
    assert got[scores].tolist() == np.full((1, 1, 2, 2), 2.0).tolist()


def tiny(kind: str) -> Any:
    """A random tiny model of a class of transformers."""
    import transformers as hf

    text = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,
            "num_hidden_layers": 3, "vocab_size": 40}  # fmt: skip
    match kind:
        case "llava":
            vision = hf.CLIPVisionConfig(
                hidden_size=12, intermediate_size=16, num_hidden_layers=4, num_attention_heads=2,
                image_size=8, patch_size=4,
            )  # fmt: skip
            llama = hf.LlamaConfig(**text, num_key_value_heads=1)
            config = hf.LlavaConfig(vision_config=vision, text_config=llama, image_token_index=39)
            return hf.LlavaForConditionalGeneration(config)
        case "t5":
            config = hf.T5Config(
                d_model=16, d_ff=24, d_kv=8, num_layers=2, num_decoder_layers=3, num_heads=2,
                vocab_size=40,
            )  # fmt: skip
            return hf.T5ForConditionalGeneration(config)
        case "bert":
            return hf.BertForMaskedLM(hf.BertConfig(**text))
        case _:
            config = hf.MixtralConfig(**text, num_key_value_heads=1, num_local_experts=4)
            return hf.MixtralForCausalLM(config)


@pytest.mark.parametrize("kind", ["llava", "t5", "bert", "mixtral"])
def test_folders_of_transformers_merge_and_load(kind: str, tmp_path: Path) -> None:
    """Two models of a class, saved by transformers and merged as folders: the result loads without
    a missing or unknown tensor, and every parameter is the mean."""
    torch = pytest.importorskip("torch")
    states: list[dict[str, Any]] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = tiny(kind)
        model.save_pretrained(tmp_path / str(seed))
        states.append(model.state_dict())
    made = step("linear-merge", {"inputs": [Folder.open(tmp_path / n) for n in ("1", "2")]})
    out = write_folder(tmp_path / "out", made, made.config)
    loaded, info = type(model).from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, value in loaded.state_dict().items():
        mean = (states[0][name].double() + states[1][name].double()) / 2
        torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-7)
