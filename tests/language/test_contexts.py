"""Rows that are longer than a model's context are warned of where they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipelang.language.contexts import context_of
from recipelang.types import ModelType
from tests.language.test_remarks import told
from tests.merging.projects import CONFIG, SHAPES, arrays_of, models, write_model
from tests.weights.words import write_tokenizer

YARN = {"rope_type": "yarn", "factor": 4.0}
WORDS = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models of 64 and 32 positions, and a text."""
    for name, positions in (("a", 64), ("b", 32)):
        write_model(tmp_path / name, arrays_of(0, SHAPES), max_position_embeddings=positions)
        write_tokenizer(tmp_path / name, WORDS)
    (tmp_path / "text.jsonl").write_text(json.dumps({"text": "a b c"}) + "\n")
    return tmp_path


def configure(folder: Path, **changes: object) -> None:
    """Other keys of the configuration of ``a``; None takes one out."""
    config = {**CONFIG, "max_position_embeddings": 64, **changes}
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "a" / "config.json").write_text(json.dumps(kept))


HEAD = (
    models("a", "b") + 'text = dataset "text.jsonl"\nlong = dataset "text.jsonl" { length = 65 }\n'
)


@pytest.mark.parametrize(
    ("recipe", "at", "words"),
    [
        ("t = finetune a on text { length = 65 }", "65", "rows of 65 tokens"),
        ("t = finetune a on text { length = 64 }", "", ""),
        ("t = finetune a on text", "", ""),
        ("t = finetune a on long", "long", "the context of `a`, 64 tokens"),
        ("t = finetune a on long { length = 64 }", "", ""),
        ("t = finetune a on text over long { length = 16 }", "", ""),
        ("t = finetune a on text over long", "long", "rows of 65 tokens"),
        ("t = distill a into b on text { length = 40 }", "40", "the context of `b`, 32 tokens"),
        ("t = distill b into a on text { length = 40 }", "40", "the context of `b`, 32 tokens"),
        ("s = evaluate [a, b] on text and long", "long", "the context of `b`, 32 tokens"),
        ("defaults { length = 2k }\nt = finetune a on text", "2k", "rows of 2,000 tokens"),
        ("require loss of a on long <= 2", "long", "rows of 65 tokens"),
        ("m = linear-merge a with b\nt = finetune m on long", "long", "the context of `m`"),
    ],
)
def test_rows_longer_than_the_context(recipe: str, at: str, words: str, folder: Path) -> None:
    """Those that the step or its data ask for, at the place that asks, once a step."""
    found = [one for one in told(folder, HEAD + recipe + "\n") if one[0] != "W0201"]
    assert [(code, where) for code, _, where in found] == ([("W0664", at)] if at else [])
    assert all(words in message for _, message, _ in found)


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({}, True),
        ({"rope_scaling": None}, True),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, True),
        ({"max_position_embeddings": None}, False),
        ({"max_position_embeddings": None, "n_positions": 64}, True),
        ({"rope_scaling": YARN}, False),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, False),
        ({"rope_parameters": YARN}, False),
        ({"rope_parameters": {"full_attention": YARN, "sliding_attention": {}}}, False),
    ],
)
def test_what_a_configuration_says(changes: dict[str, Any], warns: bool, folder: Path) -> None:
    """Models whose positions are stretched, or whose configuration does not count them, are left
    alone."""
    configure(folder, **changes)
    found = told(folder, HEAD + "t = finetune a on text { length = 65 }\n")
    assert ("W0664" in [code for code, _, _ in found]) == warns


def test_contexts_of_models_of_which_nothing_is_known() -> None:
    """There are none."""
    assert context_of(ModelType()) is None
    assert context_of(None) is None
    assert context_of(ModelType({"max_position_embeddings": True})) is None
