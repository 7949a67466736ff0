"""URIs: where they lead, and those that are refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from recipelang.diagnostics import RecipeError
from recipelang.sources import locate


def code_of(uri: str, revision: str | None = None) -> str:
    """The code of the refusal."""
    with pytest.raises(RecipeError) as caught:
        locate(uri, revision)
    assert caught.value.diagnostics[0].message.isprintable()
    return caught.value.diagnostics[0].code


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    """A relative path starts at the folder that is given."""
    (tmp_path / "m").mkdir()
    found = locate("m", folder=tmp_path)
    assert found is not None
    assert found.path == tmp_path / "m"
    with pytest.raises(RecipeError, match="E0720"):
        locate("n", folder=tmp_path)


def test_packages_are_located_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's code is not run, and a path stays inside it."""
    package = tmp_path / "has_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "secret").write_text("x")
    (package / "link").symlink_to(tmp_path / "secret")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = locate("package:has_a_model/m.gguf")
    assert found is not None
    assert found.path == package / "m.gguf"
    assert "has_a_model" not in sys.modules
    assert code_of("package:has_a_model/link") == "E0721"
    assert code_of("package:has_a_model/none.gguf") == "E0722"
    assert code_of("package:no_such_package_here/x") == "E0722"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a\nb",
        "a\x1b[2J",
        "package:x/../y",
        "package:/etc/passwd",
        "package:x",
        "package:x.y/z",
        "hf:../x",
        "hf:a/b/c",
        "hf:a--b/c",
        "hf://user:pw@host/x",
        "hf:user@org/x",
        "file:///proc/self/mem",
        "s3:b/../k",
        "https://user:pw@x/y",
        "x" * 5000,
    ],
)
def test_hostile_uris_are_refused(uri: str) -> None:
    """Control characters, credentials, steps upwards and unknown schemes are E0721."""
    assert code_of(uri) == "E0721"


@pytest.mark.parametrize("revision", ["../x", "a b", "-x", ""])
def test_hostile_revisions_are_refused(revision: str) -> None:
    """A revision is a commit, a branch or a tag."""
    assert code_of("hf:a/b", revision) == "E0721"


def test_the_hub_s_cache_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot by commit or by reference; None when it was not fetched; nothing is downloaded."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert locate("hf:org/name") is None
    repository = tmp_path / "models--org--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    (repository / "snapshots" / "abc123").mkdir(parents=True)
    (repository / "snapshots" / "abc123" / "config.json").write_text("{}")
    for revision in (None, "abc123"):
        found = locate("hf:org/name", revision)
        assert found is not None
        assert found.revision == "abc123"
    assert locate("hf:org/name", "def456") is None


def test_a_snapshot_without_weights_has_a_partial_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After fetching metadata alone the configuration is known and the table is not."""
    from recipelang.weights.metadata import model_type

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc123"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 4}')
    (snapshot / "tokenizer.json").write_text("{}")
    made = model_type("hf:org/name", "abc123", dtype="bf16")
    assert (made.layers, made.tensors) == (4, None)
    assert made.tokenizer is not None
    assert model_type("hf:org/other").config is None
