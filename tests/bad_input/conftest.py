"""The folder that bad recipes stand in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.bad_input.lab import Lab
from tests.conformance.tiny import checkpoint, write


def tokenizer(folder: Path, count: int = 97) -> None:
    """A tokenizer of single characters: those of ASCII, and some beyond."""
    words = {chr(32 + i if i < 95 else 256 + i): i for i in range(count)}
    model = {"type": "BPE", "vocab": words, "merges": []}
    document = {"version": "1.0", "added_tokens": [], "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(document))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models: two of one shape, one wider, one with more words, one of an unknown family."""
    root = tmp_path_factory.mktemp("models")
    for name, changes in (
        ("a", {}), ("b", {}), ("wide", {"hidden_size": 64}), ("words", {"vocab_size": 120}),
    ):  # fmt: skip
        tokenizer(write(checkpoint("llama", seed=len(name), **changes), root / name))
    tokenizer(root / "words", 120)
    shutil.copytree(root / "a", root / "other")
    tokenizer(root / "other", 96)
    shutil.copytree(root / "a", root / "unknown")
    config = json.loads((root / "a" / "config.json").read_text())
    config["model_type"] = "gptj"
    (root / "unknown" / "config.json").write_text(json.dumps(config))
    return root


@pytest.fixture
def lab(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Lab:  # fmt: skip
    """A fresh folder with the models, some data, and no store."""
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("RECIPE_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    lab = Lab(tmp_path, capsys)
    lab.rows("notes.jsonl", *({"prompt": f"{i}?", "completion": str(i)} for i in range(8)))
    lab.rows("text.jsonl", {"text": "a b c"})
    return lab
