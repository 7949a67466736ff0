"""Folders: shards and indexes that point elsewhere, pickles, and configurations that name code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from recipelang.diagnostics import RecipeError
from recipelang.weights.folder import INDEX, Folder
from recipelang.weights.metadata import model_type

CONFIG = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 2}


def sharded(folder: Path, table: dict[str, str] | None = None) -> Path:
    """A folder of two shards, with this index or the right one."""
    save_file({"a": np.zeros(2, np.float32)}, folder / "one.safetensors")
    save_file({"b": np.ones(2, np.float32)}, folder / "two.safetensors")
    right = {"a": "one.safetensors", "b": "two.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": right if table is None else table}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def code_of(folder: Path) -> tuple[str, str]:
    """The code and message of the refusal."""
    with pytest.raises(RecipeError) as caught:
        Folder.open(folder)
    found = caught.value.diagnostics[0]
    assert found.message.isprintable()
    return found.code, found.message


def test_shards_are_one_model(tmp_path: Path) -> None:
    """Two shards and their index give one table; ranges are read from the right file."""
    model = Folder.open(sharded(tmp_path))
    assert list(model.tensors) == ["a", "b"]
    assert model.read("b", 1, 2).tolist() == [1.0]


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "C:\\x", "a/b", ".hidden", "", "-x", "a\0b", "x\n"]
)
def test_shard_names_are_plain_file_names(name: str, tmp_path: Path) -> None:
    """An index that points anywhere but beside itself is E0725."""
    code, message = code_of(sharded(tmp_path, {"a": name}))
    assert code == "E0725"
    assert "must be a plain file name" in message


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    """A shard that is a link to a file outside is E0725; the hub's cache layout is not."""
    outside = tmp_path / "secret.safetensors"
    save_file({"a": np.zeros(2, np.float32)}, outside)
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "config.json").write_text(json.dumps(CONFIG))
    (inside / "model.safetensors").symlink_to(outside)
    assert code_of(inside)[0] == "E0725"
    cache = tmp_path / "models--x--y"
    (cache / "blobs").mkdir(parents=True)
    outside.rename(cache / "blobs" / "abc")
    snapshot = cache / "snapshots" / "rev"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    (snapshot / "model.safetensors").symlink_to(cache / "blobs" / "abc")
    assert list(Folder.open(snapshot).tensors) == ["a"]


def test_index_and_shards_must_agree(tmp_path: Path) -> None:
    """A missing shard, a tensor the index lacks or misplaces, and a tensor in two shards are
    E0726."""
    folder = sharded(tmp_path, {"a": "one.safetensors", "b": "three.safetensors"})
    assert code_of(folder)[0] == "E0726"
    (folder / INDEX).write_text(
        json.dumps({"weight_map": {"a": "two.safetensors", "b": "one.safetensors"}})
    )
    assert "`a`" in code_of(folder)[1]
    save_file({"a": np.zeros(2, np.float32)}, folder / "two.safetensors")
    code, message = code_of(folder)
    assert code == "E0726"
    assert "defined twice" in message


def test_pickles_are_refused_with_the_command_that_converts(tmp_path: Path) -> None:
    """A folder with pickle weights alone is E0727, and the pickle is not run."""
    canary = tmp_path / "canary"
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "pytorch_model.bin").write_bytes(
        b"cos\nmkdir\n(V" + str(canary).encode() + b"\ntR."
    )
    with pytest.raises(RecipeError) as caught:
        Folder.open(tmp_path)
    assert caught.value.diagnostics[0].code == "E0727"
    assert "weights_only=True" in caught.value.diagnostics[0].help
    assert not canary.exists()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ('{"num_hidden_layers": 1000000000}', "E0728", "num_hidden_layers"),
        ('{"hidden_size": -1}', "E0728", "hidden_size"),
        ('{"hidden_size": NaN}', "E0728", "NaN"),
        ('{"hidden_size": "8"}', "E0728", "hidden_size"),
        ('{"hidden_size": 8, "hidden_size": 9}', "E0728", "defined twice"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "E0728", "nested too deeply"),
        (f'{{"a": {10**31}}}', "E0728", "too large"),
        (f'{{"a": {"9" * 10_000}}}', "E0728", "too large"),
        ("\ufeff{}", "E0728", "not JSON"),
        ("[]", "E0728", "an object"),
    ],
)
def test_hostile_configurations(text: str, code: str, words: str, tmp_path: Path) -> None:
    """A configuration that holds absurd values is refused, with the field named."""
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    found, message = code_of(tmp_path)
    assert found == code
    assert words in message


def test_a_tokenizer_without_a_longest_text(tmp_path: Path) -> None:
    """transformers writes 1e30, as a whole number, where a tokenizer has no longest text."""
    folder = sharded(tmp_path)
    settings = {"model_max_length": int(1e30), "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert model_type(str(folder), None).chat_template == "{{ messages }}"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, "auto_map"),
        ({"_attn_implementation_internal": "a/b"}, "_attn_implementation_internal"),
        ({"trust_remote_code": True, "model_file": "m.py"}, "model_file"),
        ({"text_config": {"rope": [{"custom_pipelines": "x"}]}}, "custom_pipelines"),
    ],
)
def test_what_names_code_is_left_out(
    written: dict[str, object], named: str, tmp_path: Path
) -> None:
    """At any depth, and told by name; keys that name nothing say nothing."""
    folder = sharded(tmp_path)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"auto_map": {}} | written))
    model = Folder.open(folder)
    (remark,) = model.remarks
    assert remark.code == "W0729"
    assert f"`{named}`" in remark.message
    assert named not in json.dumps(model.config)
    assert model.config["hidden_size"] == 2
    (folder / "config.json").write_text(json.dumps(CONFIG | {"auto_map": {}}))
    assert Folder.open(folder).remarks == ()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_no_file_is_a_link_out_of_the_folder(name: str, tmp_path: Path) -> None:
    """What it leads to would be published as a part of the model; a link inside is one file."""
    (tmp_path / "secret").write_text(json.dumps(CONFIG))
    folder = tmp_path / "model"
    folder.mkdir()
    sharded(folder)
    (folder / "real").write_text(json.dumps(CONFIG))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("real")
    assert list(Folder.open(folder).tensors) == ["a", "b"]
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "secret")
    assert code_of(folder)[0] == "E0725"


def test_the_size_in_an_index_is_that_of_its_shards(tmp_path: Path) -> None:
    """Where it is given."""
    folder = sharded(tmp_path)
    table = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(table | {"metadata": {"total_size": 16}}))
    assert list(Folder.open(folder).tensors) == ["a", "b"]
    (folder / INDEX).write_text(json.dumps(table | {"metadata": {"total_size": 17}}))
    assert code_of(folder) == (
        "E0726",
        f"`{folder / INDEX}` says that the weights have 17 bytes, the shards hold 16",
    )


def test_names_in_letters_of_several_alphabets_are_told(tmp_path: Path) -> None:
    """A Cyrillic letter among Latin ones is a remark, a part in one other alphabet none."""
    arrays = {"model.n\u043erm": np.zeros(1, np.float32), "\u0441.x": np.zeros(1, np.float32)}
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert [remark.code for remark in Folder.open(tmp_path).remarks] == ["W0724"]
    del arrays["model.n\u043erm"]
    save_file(arrays, tmp_path / "model.safetensors")
    assert Folder.open(tmp_path).remarks == ()


def test_tied_head_in_the_file_is_the_embedding(tmp_path: Path) -> None:
    """A stored copy of a tied head is not a tensor of its own."""
    arrays = {
        n: np.zeros((2, 2), np.float32) for n in ("model.embed_tokens.weight", "lm_head.weight")
    }
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"tie_word_embeddings": True}))
    assert list(Folder.open(tmp_path).tensors) == ["model.embed_tokens.weight"]
