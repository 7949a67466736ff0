"""Tied and untied output heads in one merge: the result's head is apart, and says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.diagnostics import RecipeError
from recipelang.values import Form
from tests.ops_merge import reference
from tests.weights.models import Memory, bits, compute
from tests.weights.words import aligned, model_of_words, step, tokens_of

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WORDS = [chr(ord("a") + i) for i in range(12)]


def pair(folder: Path, dtype: str = "F32", **config: object) -> tuple[Memory, Memory]:
    """A tied model and one with a head apart (and without a bias of it)."""
    tied = model_of_words(folder / "t", WORDS, seed=1, head=False, dtype=dtype, config=config)
    apart = model_of_words(folder / "u", WORDS, seed=2, dtype=dtype, config=config)
    arrays = {n: a for n, a in apart.arrays.items() if n != "lm_head.bias"}
    return tied, replace(apart, arrays=arrays)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("verb", ["linear-merge", "task-arithmetic-merge"])
def test_a_tied_head_in_one_input_is_its_embedding(
    verb: str, order: tuple[int, int], tmp_path: Path
) -> None:
    """Whichever comes first, the head of the tied model is its embedding, the result stores a
    head, and its configuration does not say that it is tied."""
    models = pair(tmp_path / "m")
    inputs = [models[i] for i in order]
    roles = {"inputs": inputs, **({"base": [models[0]]} if verb.startswith("task") else {})}
    made = step(verb, roles, weight=(0.3, 0.9))
    got, _ = compute(made, tmp_path / "out")
    assert made.config["tie_word_embeddings"] is False
    heads = [m.arrays[HEAD if m is models[1] else EMBEDDING] for m in inputs]
    if verb == "linear-merge":
        expected = reference.linear(heads, (0.3, 0.9))
    else:
        expected = reference.task_arithmetic(models[0].arrays[EMBEDDING], heads, (0.3, 0.9))
    np.testing.assert_allclose(got[HEAD], expected, rtol=1e-6, atol=1e-7)
    assert set(got) == set(models[1].arrays)


def test_all_tied_stays_tied_even_where_copies_are_stored(tmp_path: Path) -> None:
    """Two models whose configuration ties the head, one of which stores a copy of it (or what it
    takes for one): the result has no head, also where a gradient would tear the two apart."""
    tied, _ = pair(tmp_path / "m")
    stored = Memory({**tied.arrays, HEAD: tied.arrays[EMBEDDING] * 3}, tied.config, tied.files)
    ramp = Form("gradient", (("0", 0.0), ("1", 1.0)))
    for inputs in ([tied, stored], [stored, tied], [stored, stored]):
        made = step("slerp-merge", {"inputs": inputs}, t=ramp)
        got, _ = compute(made, tmp_path / "out")
        assert set(got) == set(tied.arrays)
        assert made.config["tie_word_embeddings"] is True


def test_heads_of_arithmetic_on_models(tmp_path: Path) -> None:
    """tied + 0.5 * (apart - tied) has a head apart: its embedding plus half of the way."""
    tied, apart = pair(tmp_path / "m")
    delta = step("delta", {"of": [apart], "minus": [tied]})
    made = step("add-delta", {"model": [tied], "delta": [delta]}, scale=0.5)
    got, _ = compute(made, tmp_path / "out")
    expected = (tied.arrays[EMBEDDING] + apart.arrays[HEAD]) / 2
    np.testing.assert_allclose(got[HEAD], expected, rtol=1e-5, atol=1e-7)
    assert made.config["tie_word_embeddings"] is False


def test_tied_heads_and_different_vocabularies_together(tmp_path: Path) -> None:
    """A tied subject and an untied model of other tokens: the head is aligned as the embedding
    is."""
    tied = model_of_words(tmp_path / "t", WORDS, ["<x>"], seed=1, head=False, dtype="F32")
    apart = model_of_words(tmp_path / "u", WORDS[::-1], ["<y>"], seed=2, dtype="F32")
    del apart.arrays["lm_head.bias"]  # type: ignore[attr-defined]
    made = step("linear-merge", {"inputs": [tied, apart]}, vocabulary="union")
    got, _ = compute(made, tmp_path / "out")
    tokens = tokens_of(made)
    assert tokens == [*WORDS, "<x>", "<y>"]
    as_heads = [Memory({HEAD: m.arrays.get(HEAD, m.arrays[EMBEDDING])}, {}, m.files)
                for m in (tied, apart)]  # fmt: skip
    expected = reference.linear(aligned(HEAD, tokens, 14, as_heads, None), (1.0, 1.0))
    np.testing.assert_allclose(got[HEAD], expected, rtol=1e-6)
    assert made.config == {**tied.config, "vocab_size": 14, "tie_word_embeddings": False}


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"tie_word_embeddings": False}, "E0603", "has no tensor `lm_head.weight`"),
        ({"is_encoder_decoder": True}, "E0601", "scales the two differently"),
    ],
)
def test_heads_that_are_not_what_they_seem(
    config: dict[str, Any], code: str, words: str, tmp_path: Path
) -> None:
    """A model that says that its head is apart and stores none, and a T5, which scales what goes
    into a tied head, are refused."""
    tied, apart = pair(tmp_path / "m")
    tied = replace(tied, config={**tied.config, **config})
    with pytest.raises(RecipeError, match=f"{code}.*{words}"):
        step("linear-merge", {"inputs": [apart, tied]})


def test_a_configuration_that_says_nothing_ties(tmp_path: Path) -> None:
    """Gemma's configuration leaves the key out: without a head the model is tied, and the result
    with a head says that it is not, in its section too."""
    tied, apart = pair(tmp_path / "m")
    silent = {k: v for k, v in tied.config.items() if k != "tie_word_embeddings"}
    nested = {**silent, "text_config": {"tie_word_embeddings": True, "hidden_size": 5}}
    for config in (silent, nested):
        made = step("linear-merge", {"inputs": [replace(tied, config=config), apart]})
        assert made.config["tie_word_embeddings"] is False
        inner = made.config.get("text_config", {"tie_word_embeddings": False})
        assert inner["tie_word_embeddings"] is False  # type: ignore[index]
        got, _ = compute(made, tmp_path / "out")
        assert bits(got[HEAD]) == bits(
            tied.arrays[EMBEDDING] * np.float32(0.5) + apart.arrays[HEAD] * np.float32(0.5)
        )
