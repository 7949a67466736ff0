"""Sound steps of weight operations that are warned of: layers of several kinds, vocabularies of two
kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipelang.types import TensorInfo, TokenizerType
from recipelang.weights.vocabulary import word_mark
from tests.merging.projects import SHAPES, check, models, write_hollow
from tests.weights.words import write_tokenizer

DEPTH = 12
LAYERS = {f"model.layers.{i}.mlp.up_proj.weight": TensorInfo("BF16", (8, 4)) for i in range(DEPTH)}
OUTSIDE = {n: TensorInfo("BF16", s) for n, s in SHAPES.items() if ".layers." not in n}
WINDOWS = {"model_type": "of-tomorrow", "sliding_window_pattern": 6}


def warned(folder: Path, recipe: str, **config: Any) -> list[tuple[str, str, str]]:
    """Code, message and marked text of the warnings about a recipe over ``a`` and ``b``."""
    for name in ("a", "b"):
        write_hollow(folder / name, LAYERS | OUTSIDE, num_hidden_layers=DEPTH, **config)
    return told(folder, models("a", "b") + recipe + "\n")


def told(folder: Path, text: str) -> list[tuple[str, str, str]]:
    """Code, message and marked text of what a check says."""
    found: list[tuple[str, str, str]] = []
    for one in check(folder, text):
        assert one.primary is not None
        span = one.primary.span
        found.append((one.code, one.message, text[span.start : span.end]))
    return found


def test_a_layer_that_becomes_one_of_another_kind(tmp_path: Path) -> None:
    """It is named with its model, its numbers and the key that decides, at the slice."""
    ((code, message, at),) = warned(
        tmp_path, "m = stack a.layers(0, 8) with b.layers(4, 12)", **WINDOWS
    )
    assert (code, at) == ("W0633", "b.layers(4, 12)")
    assert message == (
        "`sliding_window_pattern` gives every 6 layers one of another kind, and layer 5 of "
        "`b.layers(4, 12)` becomes layer 9, of another kind"
    )


@pytest.mark.parametrize(
    ("recipe", "layer"),
    [
        ("m = stack a.layers(0, 6) with b.layers(0, 12)", None),
        ("m = stack a.layers(0, 12) with b.layers(6, 12)", None),
        ("m = stack a with b", None),
        ("m = stack a.layers(0, 4) with b.layers(4, 12)", None),
        ("m = stack a.layers(6, 9)", None),
        ("m = stack a.layers(1, 5) with b.layers(0, 1)", None),
        ("m = stack a.layers(1, 12)", 5),
        ("m = stack a.layers(0, 5) with b.layers(0, 6)", 0),
        ("x = linear-merge a.layers(1, 12) with b.layers(1, 12)\nm = stack x", 5),
        ("x = stack a.layers(0, 8) with b.layers(8, 12)\nm = stack x.layers(3, 12)", 5),
    ],
)
def test_what_counts_is_the_number_within_the_period(
    recipe: str, layer: int | None, tmp_path: Path
) -> None:
    """Layers may move by whole periods, and among their own kind; merges of layers and stacks have
    layers too."""
    found = warned(tmp_path, recipe, **WINDOWS)
    assert [code for code, _, _ in found] == ([] if layer is None else ["W0633"])
    if layer is not None:
        assert f"and layer {layer} of " in found[0][1]


@pytest.mark.parametrize(
    ("fields", "at", "layer"),
    [
        ("layers = 7", "7", 9),
        ("layers = 6", "", None),
        ("layers = 1", "", None),
        ("keep = [0, 1, 2, 3, 4, 5]", "", None),
        ("keep = [0, 1, 2, 3, 4, 11]", "", None),
        ("drop = [2]", "[2]", 5),
        ("drop = [0, 1, 2, 3, 4, 5]", "", None),
        ("drop = [3, 4, 6, 7, 8, 9]", "[3, 4, 6, 7, 8, 9]", 5),
        ("drop = [11]", "", None),
    ],
)
def test_what_is_left_of_a_model(fields: str, at: str, layer: int | None, tmp_path: Path) -> None:
    """Layers that move within a smaller model are told at the field that chooses them."""
    found = warned(tmp_path, f"m = shrink a {{ {fields} }}", **WINDOWS)
    assert [(code, where) for code, _, where in found] == ([] if layer is None else [("W0633", at)])
    if layer is not None:
        assert f"and layer {layer} of `a` becomes layer " in found[0][1]


def test_a_smaller_model_of_listed_kinds(tmp_path: Path) -> None:
    """The list follows the layers; nothing becomes of another kind."""
    kinds = ["full", "window"] * (DEPTH // 2)
    recipe = "m = shrink a { layers = 6 }"
    assert warned(tmp_path, recipe, **WINDOWS, layer_types=kinds) == []


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"model_type": "gemma2"}, "sliding_window_pattern"),
        ({"model_type": "cohere2"}, "sliding_window_pattern"),
        ({"full_attention_interval": 4}, "full_attention_interval"),
        ({"global_attn_every_n_layers": 3}, "global_attn_every_n_layers"),
        ({"no_rope_layer_interval": 4}, "no_rope_layer_interval"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step"),
        ({"attn_layer_period": 8, "attn_layer_offset": 4}, "attn_layer_period"),
        ({"decoder_sparse_step": 1}, ""),
        ({"sliding_window_pattern": None}, ""),
        ({"sliding_window_pattern": 2, "layer_types": ["full", "window"] * (DEPTH // 2)}, ""),
        ({"model_type": "gemma3_text", "layer_types": ["full"] * DEPTH}, ""),
        ({"model_type": "llama"}, ""),
    ],
)
def test_keys_that_tell_kinds_by_number(config: dict[str, Any], key: str, tmp_path: Path) -> None:
    """Written or usual for the type of model; lists with an element a layer take their place."""
    found = warned(tmp_path, "m = stack a.layers(0, 5) with b.layers(0, 12)", **config)
    assert [code for code, _, _ in found] == (["W0633"] if key else [])
    assert all(f"`{key}` gives" in message for _, message, _ in found)


WORDS = {
    "bytes": ["a", "b", "\u0120the", "\u0120cat", "lo"],
    "pieces": ["a", "b", "\u2581the", "\u2581cat", "lo"],
    "parts": ["a", "the", "##re", "##lo", "cat"],
    "letters": list("abcde"),
    "mostly": ["\u2581", *(f"\u0120{i}" for i in range(30)), *(f"w{i}" for i in range(40))],
}


@pytest.mark.parametrize(
    ("kind", "mark"),
    [("bytes", "\u0120"), ("pieces", "\u2581"), ("parts", "##"), ("letters", ""),
     ("mostly", "\u0120")],
)  # fmt: skip
def test_the_sign_of_a_vocabulary(kind: str, mark: str, tmp_path: Path) -> None:
    """The one that most tokens with any begin with; none where there are next to none."""
    file = write_tokenizer(tmp_path, WORDS[kind])["tokenizer.json"]
    assert word_mark(TokenizerType(kind + str(tmp_path), str(file))) == mark
    assert word_mark(TokenizerType("unknown", "")) == ""


@pytest.mark.parametrize("policy", ["union", "of-subject"])
@pytest.mark.parametrize(
    ("others", "warns"),
    [
        (("bytes", "pieces"), True),
        (("bytes", "parts"), True),
        (("letters", "pieces"), False),
        (("bytes", "mostly"), False),
    ],
)
def test_vocabularies_of_two_kinds(
    others: tuple[str, str], warns: bool, policy: str, tmp_path: Path
) -> None:
    """Words that are spelled in two ways have no row in common: at the second model."""
    for name, kind in zip(("a", "b"), others, strict=True):
        rows = {n: TensorInfo("BF16", (len(WORDS[kind]), 4)) for n in OUTSIDE if "norm" not in n}
        write_hollow(tmp_path / name, OUTSIDE | rows, vocab_size=len(WORDS[kind]))
        write_tokenizer(tmp_path / name, WORDS[kind])
    text = models("a", "b") + f"m = linear-merge a with b {{ vocabulary = {policy} }}\n"
    found = told(tmp_path, text)
    assert [(code, at) for code, _, at in found] == ([("W0641", "b")] if warns else [])
    if warns:
        assert "the tokenizers of `a` and `b` write words in different ways" in found[0][1]
