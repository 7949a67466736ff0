"""What users of mergekit complain of in which models can be merged, and what happens here instead.

The numbers are threads of arcee-ai/mergekit; docs/complaints.md has the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from recipelang.ops.registry import lookup
from recipelang.weights.region import make_step
from tests.merging.family import HEAD, MLP, QUERY, of
from tests.merging.projects import (
    CONFIG,
    arrays_of,
    check,
    models,
    published,
    tuned,
    write_model,
)
from tests.weights.models import Memory, compute
from tests.weights.test_gguf import write_gguf
from tests.weights.words import write_tokenizer

# ---------------------------------------------------------------- 3: vocabularies


def worded(folder: Path, words: list[str], added: list[str], seed: int) -> dict[str, Any]:
    """A model with a row for each of these tokens."""
    rows = len(words) + len(added)
    arrays = arrays_of(seed)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        arrays[name] = arrays_of(seed + 10, {name: (rows, 4)})[name]
    write_model(folder, arrays, vocab_size=rows)
    write_tokenizer(folder, words, added)
    return arrays


def test_3_different_vocabularies_are_named_and_a_union_keeps_every_row(tmp_path: Path) -> None:
    """#47, #139, #169, #342, #614, #185: a size mismatch in the middle of the merge, or garbled
    text after a union; special tokens get lost. Here the first tokens that differ are named when
    the recipe is checked, and a union gives each token the row of the model that has it."""
    words = [chr(ord("a") + i) for i in range(8)]
    a = worded(tmp_path / "a", words, ["<end>"], 1)
    b = worded(tmp_path / "b", words[::-1], ["<|im_start|>", "<end>"], 2)
    text = models("a", "b") + "m = linear-merge a with b"
    (found,) = check(tmp_path, text)
    assert found.code == "E0602"
    assert "only `b` has `<|im_start|>` (8)" in found.message
    assert "vocabulary = union" in found.help
    got = published(tmp_path, text + " { vocabulary = union }")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        for i in range(8):
            np.testing.assert_allclose(got[name][i], (a[name][i] + b[name][7 - i]) / 2, rtol=1e-6)
        np.testing.assert_allclose(got[name][8], (a[name][8] + b[name][9]) / 2, rtol=1e-6)
        np.testing.assert_array_equal(got[name][9], b[name][8])
    added = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["added_tokens"]
    assert [(t["id"], t["content"], t["special"]) for t in added] == [
        (8, "<end>", True), (9, "<|im_start|>", True),
    ]  # fmt: skip


def test_3_a_union_of_large_vocabularies_is_not_frozen(tmp_path: Path) -> None:
    """#342: a union looks frozen: a loop over tokens and models. Here rows are taken by arrays:
    forty thousand tokens, half of them new, are a fraction of a second."""
    left = [f"t{i}" for i in range(20_000)]
    right = [f"t{i}" for i in range(10_000, 30_000)]
    a = worded(tmp_path / "a", left, [], 1)["lm_head.weight"]
    b = worded(tmp_path / "b", right, [], 2)["lm_head.weight"]
    text = models("a", "b") + "m = linear-merge a with b { vocabulary = union }\n"
    got = published(tmp_path, text)["lm_head.weight"]
    np.testing.assert_array_equal(got[:10_000], a[:10_000])
    np.testing.assert_array_equal(got[20_000:], b[10_000:])
    np.testing.assert_allclose(got[10_000:20_000], (a[10_000:] + b[:10_000]) / 2, rtol=1e-6)


# ---------------------------------------------------------------- 6: architectures


def test_6_an_architecture_that_nobody_knows_merges(tmp_path: Path) -> None:
    """#424, #398, #284, #174, #350, #615, #188, #584, #625: unsupported architectures. Here names
    and shapes say all that is asked."""
    shapes = {"trunk.stage.0.gate.kernel": (3, 5), "trunk.stage.1.gate.kernel": (3, 5),
              "stem.conv.weight": (4, 3, 2, 2), "oracle.bias": (7,)}  # fmt: skip
    a, b = arrays_of(1, shapes), arrays_of(2, shapes)
    for name, arrays in (("a", a), ("b", b)):
        write_model(tmp_path / name, arrays, {"model_type": "of-tomorrow"})
    got = published(tmp_path, models("a", "b") + "m = linear-merge a with b { normalize = true }\n")
    for name in shapes:
        np.testing.assert_allclose(got[name], (a[name] + b[name]) / 2, rtol=1e-6)


def test_6_optional_tensors_are_no_obstacle_and_missing_ones_are_named(
    tmp_path: Path, base: dict[str, Any]
) -> None:
    """#239, #409, #424: "Tensor X required but not present", while the graph runs. Here a tied head
    and buffers that some libraries store are known for what they are; a weight that one model
    lacks is an error of the check, with its name."""
    tied = {n: x for n, x in tuned(base, 1).items() if n != "lm_head.weight"}
    write_model(tmp_path / "a", tied, tie_word_embeddings=True)
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32)}
    write_model(tmp_path / "b", base | buffer)
    got = published(tmp_path, models("a", "b") + "m = linear-merge a with b\n")
    head = (tied["model.embed_tokens.weight"] + base["lm_head.weight"]) / 2
    np.testing.assert_allclose(got["lm_head.weight"], head, rtol=1e-6, atol=1e-7)
    bias = {"model.layers.0.self_attn.q_proj.bias": np.ones(4, np.float32)}
    write_model(tmp_path / "b", base | bias)
    (found,) = (d for d in check(tmp_path, models("base", "b") + "m = linear-merge base with b\n"))
    assert found.code == "E0603"
    assert "`base` has no tensor `model.layers.0.self_attn.q_proj.bias`" in found.message


# ---------------------------------------------------------------- 8: sizes


def test_8_other_sizes_are_refused_by_name_and_layers_are_stacked(
    tmp_path: Path, base: dict[str, Any]
) -> None:
    """#154, #94, #320, #100, #306, #324, #211, #401, #542, #676: merges of 7B with 70B, more and
    fewer layers. Weights of other sizes have no mean: the check says which size differs, and what
    brings a model to another depth; layers of models of one width are stacked, and the
    configuration follows."""
    deep = arrays_of(3, {n: x.shape for n, x in base.items()} | {MLP.format(2): (8, 4)})
    write_model(tmp_path / "deep", deep, num_hidden_layers=3)
    (found,) = check(tmp_path, models("base", "deep") + "m = linear-merge base with deep\n")
    assert found.code == "E0601"
    assert "`num_hidden_layers` is 2 and 3" in found.message
    assert "`shrink` or `distill`" in found.help
    got = published(tmp_path, HEAD + "m = stack a.layers(0, 2) with b.layers(0, 2)\n")
    for i, (name, layer) in enumerate((("a", 0), ("a", 1), ("b", 0), ("b", 1))):
        array = of(tmp_path, name)[QUERY.format(layer)]
        np.testing.assert_array_equal(got[QUERY.format(i)], array)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_hidden_layers"] == 4


# ---------------------------------------------------------------- 9, 10: other models


def test_9_the_language_part_of_a_vision_model_is_merged_alone(tmp_path: Path) -> None:
    """#434, #423, #433, #219, #607, #576: vision-language models. Here a pattern leaves a part out;
    gradients run over the layers of each tower by itself."""
    shapes = {f"vision_tower.encoder.layers.{i}.w": (3, 4) for i in range(3)}
    shapes |= {f"language_model.model.layers.{i}.w": (5, 4) for i in range(2)}
    shapes |= {"multi_modal_projector.weight": (4, 4)}
    a = arrays_of(0, shapes)
    b = tuned(a, 1)
    for name, arrays in (("a", a), ("b", b)):
        write_model(tmp_path / name, arrays, {"model_type": "llava", "text_config": {}})
    weight = 'per { "vision_tower" = 0, "multi_modal_projector" = 0, "*" = 1 }'
    got = published(tmp_path, models("a", "b") + f"m = linear-merge a with b(weight = {weight})\n")
    for name in shapes:
        expected = (a[name] + b[name]) / 2 if name.startswith("language") else a[name]
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=1e-7)


def test_10_tensors_in_memory_and_bare_configurations_merge(tmp_path: Path) -> None:
    """#159, #376: models that are no Hugging Face models, and tensors in memory. Here a folder with
    an empty configuration merges, and so does anything that has names, shapes and reads ranges."""
    a, b = arrays_of(1, {"net.0.w": (3, 2)}), arrays_of(2, {"net.0.w": (3, 2)})
    for name, arrays in (("a", a), ("b", b)):
        write_model(tmp_path / name, arrays, {})
    stored = published(tmp_path, models("a", "b") + "m = linear-merge a with b\n")
    operation = lookup("linear-merge")
    assert operation is not None
    step = make_step(operation, {"inputs": [Memory(a, {}), Memory(b, {})]}, {})
    held, _ = compute(step, tmp_path / "memory")
    np.testing.assert_array_equal(held["net.0.w"], stored["net.0.w"])


# ---------------------------------------------------------------- 11: quantised inputs


def test_11_a_gguf_file_is_an_input_like_any_other(tmp_path: Path) -> None:
    """#494: GGUF files. Here they are read, unpacked to bf16, and merged."""
    for name in ("a", "b"):
        write_gguf(tmp_path / f"{name}.gguf", "llama", "Q8_0")
    text = 'a = model "a.gguf"\nb = model "b.gguf"\nm = linear-merge a with b\n'
    got = published(tmp_path, text)
    assert {array.dtype for array in got.values()} == {np.dtype(ml_dtypes.bfloat16)}
    alone = published(tmp_path, 'm = model "a.gguf"\n')
    assert all(np.array_equal(got[name], alone[name]) for name in alone)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8"])
def test_11_packed_weights_are_refused_before_they_are_read(
    method: str, tmp_path: Path, base: dict[str, Any]
) -> None:
    """#75: GPTQ. The mean of packed integers means nothing: the check says so, and what to take."""
    packed = {"model.layers.0.mlp.up_proj.qweight": np.ones((4, 8), np.int32)}
    write_model(tmp_path / "a", packed, quantization_config={"quant_method": method, "bits": 4})
    (found,) = check(tmp_path, models("base", "a") + "m = linear-merge base with a\n")
    assert found.code == "E0681"
    assert f"`a` are quantised (`{method}`)" in found.message
    assert "the model that it was quantised from" in found.help


# ---------------------------------------------------------------- 17: mixtures of experts


def mixture(seed: int, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A layer with a router and three experts, tied."""
    shapes = {f"model.layers.0.mlp.experts.{i}.w1.weight": (5, 4) for i in range(3)}
    shapes |= {"model.layers.0.mlp.gate.weight": (3, 4), "model.embed_tokens.weight": (6, 4)}
    return arrays_of(seed, shapes) if base is None else tuned(base, seed)


def test_17_mixtures_merge_expert_by_expert(tmp_path: Path) -> None:
    """#437, #350, #97: mixtures with tied embeddings fail, or speak nonsense. Here they merge like
    any model, expert by expert; a pattern leaves the router as it was, and the tie stays."""
    a = mixture(0)
    b = mixture(1, a)
    config = {**CONFIG, "model_type": "mixtral", "tie_word_embeddings": True}
    for name, arrays in (("a", a), ("b", b)):
        write_model(tmp_path / name, arrays, config, num_hidden_layers=1)
    weight = 'per { "mlp.gate" = 0, "*" = 1 }'
    got = published(tmp_path, models("a", "b") + f"m = linear-merge a with b(weight = {weight})\n")
    assert set(got) == set(a)
    for name in a:
        expected = a[name] if "gate" in name else (a[name] + b[name]) / 2
        np.testing.assert_allclose(got[name], expected, rtol=1e-6, atol=1e-7)
