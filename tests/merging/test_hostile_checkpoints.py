"""Merges that name a damaged or hostile checkpoint: one error that says which file, where in the
recipe and what to do, no traceback, nothing run, and the exit code of unreadable files.

The number in front of a case is its row in the table of hostile inputs of the checkpoint format:
headers (1 to 5), names (6, 7), sizes (8), indexes and links (9 to 11), pickles (12, 13),
configurations (14, 15), numbers (19), adapters (27), ties (28).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from recipelang.cli.main import main
from recipelang.run import merging
from tests.merging.projects import (
    CONFIG,
    SHAPES,
    arrays_of,
    check,
    load_folder,
    models,
    published,
    run,
    tuned,
    write_model,
)
from tests.weights.test_safetensors import HOSTILE, framed, row

INDEX = "model.safetensors.index.json"
MERGE = models("b", "a") + 'm = linear-merge b with a\npublish m to "out"\n'
Build = Callable[[Path], object]


def bytes_of(data: bytes) -> Build:
    """The weights are these bytes."""
    return lambda folder: (folder / "model.safetensors").write_bytes(data)


def known(case: str) -> Build:
    """The weights are a file that the header's own tests refuse."""
    return bytes_of(HOSTILE[case][0])


def named(name: str) -> Build:
    """A tensor of this name."""
    return bytes_of(framed({name: row("U8", [1], [0, 1])}, b"x"))


def shards(**table: str) -> Build:
    """Shards ``one`` (tensor x) and ``two`` (tensor y), and an index that says this."""

    def build(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for shard, tensor in (("one", "x"), ("two", "y")):
            save_file({tensor: np.zeros(2, np.float32)}, folder / f"{shard}.safetensors")
        (folder / INDEX).write_text(json.dumps({"weight_map": table}))

    return build


def total(size: object) -> Build:
    """A true index that says how large the weights are."""

    def build(folder: Path) -> None:
        shards()(folder)
        table = {"x": "one.safetensors", "y": "two.safetensors"}
        index = {"metadata": {"total_size": size}, "weight_map": table}
        (folder / INDEX).write_text(json.dumps(index))

    return build


def twice(folder: Path) -> None:
    """One tensor in two shards."""
    shards(x="one.safetensors", y="two.safetensors")(folder)
    save_file({"x": np.zeros(2, np.float32)}, folder / "two.safetensors")


def link(target: str) -> Build:
    """The weights are a link."""

    def build(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors").symlink_to(target)

    return build


def other_kind(make: Callable[[Path], object]) -> Build:
    """The weights are no regular file."""

    def build(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        make(folder / "model.safetensors")

    return build


def hard_link(folder: Path) -> None:
    """The weights are a file that is no model's, under a second name."""
    (folder.parent / "secret").write_text("token = swordfish, and more")
    (folder / "model.safetensors").unlink()
    os.link(folder.parent / "secret", folder / "model.safetensors")


def pickled(folder: Path) -> None:
    """A pickle that makes a folder when it is loaded."""
    (folder / "model.safetensors").unlink()
    canary = str(folder.parent / "canary")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nmkdir\n(V" + canary.encode() + b"\ntR.")


def config(text: str, encoding: str = "utf-8") -> Build:
    """This config.json."""
    return lambda folder: (folder / "config.json").write_text(text, encoding=encoding)


def setting(key: str, value: object) -> Build:
    """A key of config.json."""
    return config(json.dumps({**CONFIG, key: value}))


REFUSED: dict[str, tuple[Build, str, str]] = {
    "1-header-of-200-MB": (known("200 MB header"), "E0724", "the limit is 100000000"),
    "2-header-past-the-end": (known("header past the end"), "E0724", "the header ends at 5008"),
    "3-overlap": (known("overlap"), "E0724", "`a` and `b` overlap at byte"),
    "3-aliased": (known("aliased"), "E0724", "`a` and `b` overlap at byte"),
    "3-hole": (known("hole"), "E0724", "belong to no tensor"),
    "3-trailing-bytes": (known("trailing bytes"), "E0724", "belong to no tensor"),
    "4-overflow": (known("shape overflow"), "E0724", "needs"),
    "4-larger-than-its-range": (known("huge shape"), "E0724", "its offsets hold 4"),
    "5-twice-in-a-header": (known("duplicate name"), "E0724", "`a` is defined twice"),
    "5-twice-in-shards": (twice, "E0726", "`x` is defined twice"),
    "6-NUL": (named("a\0"), "E0724", 'the tensor name "a\\x00" is not allowed'),
    "6-newline": (named("a\n"), "E0724", 'the tensor name "a\\n" is not allowed'),
    "6-escape": (named("\x1b[2J"), "E0724", 'the tensor name "\\x1b[2J" is not allowed'),
    "6-step-upwards": (named("../x"), "E0724", 'the tensor name "../x" is not allowed'),
    "6-empty": (named(""), "E0724", 'the tensor name "" is not allowed'),
    "6-long": (named("a" * 1100), "E0724", "is not allowed"),
    "7-one-text-twice": (known("look-alike names"), "E0724", "look the same"),
    "8-half-a-million-tensors": (known("too many tensors"), "E0724", "the limit of 500000"),
    "9-shard-upwards": (shards(x="../x.safetensors"), "E0725", '"../x.safetensors"'),
    "9-shard-absolute": (shards(x="/etc/passwd"), "E0725", '"/etc/passwd"'),
    "9-shard-on-a-drive": (shards(x="C:\\x"), "E0725", '"C:\\x"'),
    "9-shard-in-a-folder": (shards(x="a/b"), "E0725", 'the shard name "a/b" must be a plain'),
    "9-link-out": (link("../b/model.safetensors"), "E0725", "a link that leaves its folder"),
    "9-link-to-a-device": (link("/dev/zero"), "E0725", "a link that leaves its folder"),
    "9-FIFO": (other_kind(os.mkfifo), "E0724", "is not a regular file"),
    "9-folder": (other_kind(os.mkdir), "E0724", "is not a regular file"),
    "10-missing-shard": (
        shards(x="one.safetensors", y="three.safetensors"), "E0726",
        "three.safetensors` is missing",
    ),
    "10-tensor-not-in-the-index": (
        shards(x="one.safetensors", z="two.safetensors"), "E0726", "the index lacks it",
    ),
    "10-total-size": (total(5), "E0726", "5 bytes, the shards hold 16"),
    "11-loop-of-links": (link("model.safetensors"), "E0720", "holds no weights"),
    "11-hard-link-to-a-secret": (hard_link, "E0724", "is damaged or unsafe"),
    "12-pickle-only": (pickled, "E0727", "only pickle weights"),
    "13-pickle-renamed": (known("pickle"), "E0724", "looks like a pickle"),
    "13-zip-renamed": (known("zip"), "E0724", "looks like a zip archive"),
    "13-7z-renamed": (bytes_of(b"7z\xbc\xaf" + bytes(20)), "E0724", "looks like a 7z archive"),
    "13-gguf-renamed": (known("gguf"), "E0724", "looks like a GGUF"),
    "15-1e9-layers": (setting("num_hidden_layers", 10**9), "E0728", "`num_hidden_layers` is 10"),
    "15-negative": (setting("hidden_size", -4), "E0728", "`hidden_size` is -4"),
    "15-NaN": (config('{"hidden_size": NaN}'), "E0728", "`NaN` is not a number"),
    "15-text": (setting("vocab_size", "6"), "E0728", "`vocab_size` is '6'"),
    "15-deep": (config('{"a":' + "[" * 10**5 + "]" * 10**5 + "}"), "E0728", "nested too deeply"),
    "15-twice": (config('{"a": 1, "a": 2}'), "E0728", "the key `a` is defined twice"),
    "15-BOM": (config("\ufeff{}"), "E0728", "is not JSON"),
    "15-UTF-16": (config("{}", "utf-16"), "E0728", "is not UTF-8"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sound models, ``a`` and ``b``."""
    base = arrays_of(0)
    write_model(tmp_path / "b", base)
    write_model(tmp_path / "a", tuned(base, 1))
    return tmp_path


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_checkpoint_is_one_error(
    case: str, command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With file, place in the recipe and remedy; nothing is written or run."""
    build, code, words = REFUSED[case]
    build(folder / "a")
    recipe = folder / "m.recipe"
    recipe.write_text(MERGE)
    assert main([command, str(recipe)]) == 2
    told = capsys.readouterr().err
    (head,) = (line for line in told.splitlines() if line.startswith(("error", "warning")))
    assert head.startswith(f"error[{code}]: ")
    assert words in head
    assert str(folder / "a") in head
    assert f"--> {recipe}:2:11" in told
    assert "= help: " in told
    assert "Traceback" not in told
    assert "swordfish" not in told
    assert told.replace("\n", "").isprintable()
    assert not (folder / "out").exists()
    assert not (folder / "canary").exists()


def told(folder: Path, text: str) -> list[tuple[str, str, str]]:
    """Code, severity and message of what a check says."""
    return [(d.code, d.severity, d.message) for d in check(folder, text)]


def test_7_letters_of_two_alphabets_are_a_warning(folder: Path) -> None:
    """A Cyrillic letter in a Latin name is told; the merge is carried out."""
    for name in ("a", "b"):
        write_model(folder / name, {"model.n\u043erm.weight": np.ones(4, np.float32)})
    found = told(folder, MERGE)
    assert [(code, severity) for code, severity, _ in found] == [("W0724", "warning")] * 2
    assert published(folder, MERGE.rpartition("publish")[0])["model.n\u043erm.weight"].all()


@pytest.mark.parametrize(
    "key", ["auto_map", "model_file", "_attn_implementation_internal", "trust_remote_code"]
)
def test_14_code_named_by_a_configuration_is_never_run(key: str, folder: Path) -> None:
    """It is a warning; the merge is carried out, and its configuration names no code."""
    value = {"AutoModel": "code.Model"} if key == "auto_map" else True
    base = arrays_of(0)
    write_model(folder / "b", base, **{key: value})
    (folder / "b" / "code.py").write_text("raise SystemExit('this was run')")
    (found,) = told(folder, MERGE)
    assert found[:2] == ("W0729", "warning")
    assert f"`{key}`" in found[2]
    published(folder, MERGE.rpartition("publish")[0])
    assert key not in json.loads((folder / "out" / "config.json").read_text())
    assert not (folder / "out" / "code.py").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_19_numbers_that_are_none_stop_the_merge(
    bad: float, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the first such tensor, by name, with exit code 4, unless the recipe allows them."""
    arrays = arrays_of(1)
    arrays["model.layers.1.mlp.up_proj.weight"][0, 0] = bad
    write_model(folder / "a", arrays)
    recipe = folder / "m.recipe"
    recipe.write_text(MERGE)
    assert main(["check", str(recipe)]) == 0
    assert main(["run", str(recipe)]) == 4
    told = capsys.readouterr().err
    assert told.count("error[") == 1
    assert "error[E0620]" in told
    assert "`model.layers.1.mlp.up_proj.weight`" in told
    assert "nonfinite = allow" in told
    assert "Traceback" not in told
    assert not (folder / "out").exists()
    text = models("b", "a") + "m = linear-merge b with a { nonfinite = allow }\n"
    got = published(folder, text)["model.layers.1.mlp.up_proj.weight"]
    assert not np.isfinite(got[0, 0])
    assert np.isfinite(got.reshape(-1)[1:]).all()


def test_19_denormal_numbers_are_numbers(folder: Path) -> None:
    """The smallest ones are merged like others."""
    tiny = {name: np.full(shape, 1e-42, np.float32) for name, shape in SHAPES.items()}
    for name in ("a", "b"):
        write_model(folder / name, tiny)
    got = published(folder, MERGE.rpartition("publish")[0])
    assert all(np.array_equal(got[name], array) for name, array in tiny.items())


@pytest.mark.parametrize("same_size", [True, False])
def test_11_a_file_swapped_while_it_is_read(
    same_size: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge of other bytes than those that were hashed is not kept, and the next run makes the
    merge of what is there then."""
    swapped = arrays_of(7) if same_size else {"x": np.zeros(3, np.float32)}
    write_model(folder / "other", swapped)
    original = merging.run_region

    def swap_first(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(merging, "run_region", original)
        shutil.copy(folder / "a" / "model.safetensors", folder / "kept")
        os.replace(folder / "other" / "model.safetensors", folder / "a" / "model.safetensors")
        return original(*arguments, **options)

    monkeypatch.setattr(merging, "run_region", swap_first)
    outcome = run(folder, MERGE)
    assert outcome.exit_code == 4
    (found,) = (d for d in outcome.diagnostics if d.severity == "error")
    assert found.code == "E0735"
    assert "a/model.safetensors" in found.message
    assert found.help
    assert not (folder / "out").exists()
    os.replace(folder / "kept", folder / "a" / "model.safetensors")
    got = published(folder, MERGE.rpartition("publish")[0])
    mean = (arrays_of(0)["model.norm.weight"] + tuned(arrays_of(0), 1)["model.norm.weight"]) / 2
    np.testing.assert_allclose(got["model.norm.weight"], mean, rtol=1e-6)


def adapter(folder: Path, *, target: str = "model.layers.0.mlp.up_proj", text: str = "") -> None:
    """An adapter of rank 2; ``text`` is the end of its configuration."""
    folder.mkdir()
    prefix = f"base_model.model.{target}.lora_"
    tensors = {f"{prefix}A.weight": np.ones((2, 4)), f"{prefix}B.weight": np.ones((8, 2))}
    save_file(
        {n: a.astype(np.float32) for n, a in tensors.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "target_modules": ["up_proj"]' + text + "}"
    )


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("target", "text", "code", "words"),
    [
        ("up_proj", ', "r": 1000000000, "lora_alpha": 4', "E0733", "the rank `r` is 1000000000"),
        ("up_proj", ', "r": 2, "lora_alpha": NaN', "E0733", "`NaN` is not a number of JSON"),
        ("up_proj", ', "r": 2, "lora_alpha": "NaN"', "E0733", "`lora_alpha` is 'NaN'"),
        ("gone_proj", ', "r": 2, "lora_alpha": 4', "E0610", "gone_proj"),
    ],
    ids=["27-rank", "27-NaN", "27-alpha", "27-target-outside-the-model"],
)
def test_27_a_hostile_adapter_is_one_error(
    target: str, text: str, code: str, words: str, command: str, folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """As an input of a merge: named, with a remedy."""
    adapter(folder / "lora", target=f"model.layers.0.mlp.{target}", text=text)
    recipe = folder / "m.recipe"
    recipe.write_text(
        models("b", "a") + 'lora = adapter "lora" from b\nm = linear-merge a with lora\n'
    )
    assert main([command, str(recipe)]) == (2 if code.startswith("E07") else 1)
    told = capsys.readouterr().err
    assert told.count("error[") == 1
    assert f"error[{code}]" in told
    assert words in told
    assert f"--> {recipe}:3:" in told
    assert "= help: " in told
    assert "Traceback" not in told


def test_28_heads_tied_in_one_model_and_apart_in_the_other(folder: Path) -> None:
    """It is told, and the head of the tied model is its embedding."""
    apart, tied = arrays_of(0), arrays_of(1)
    del tied["lm_head.weight"]
    write_model(folder / "a", tied, tie_word_embeddings=True)
    (found,) = told(folder, MERGE)
    assert found[:2] == ("W0680", "note")
    assert "`a` uses its embedding as output head" in found[2]
    got = published(folder, MERGE.rpartition("publish")[0])
    mean = (apart["lm_head.weight"] + tied["model.embed_tokens.weight"]) / 2
    np.testing.assert_allclose(got["lm_head.weight"], mean, rtol=1e-6, atol=1e-7)
    assert json.loads((folder / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert set(load_folder(folder / "out")) == set(apart)
