"""Checkpoints and adapters that are damaged, odd or made to do harm, by their rows in the table of
hostile inputs of the checkpoint format: how each is built, and the error that it gives if it is
refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.merging.projects import CONFIG, SHAPES, arrays_of, models, write_model
from tests.weights.test_safetensors import HOSTILE, framed, row

INDEX = "model.safetensors.index.json"
MERGE_HEAD = models("b", "a")
MERGE = MERGE_HEAD + 'm = linear-merge b with a\npublish m to "out"\n'
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


def with_adapter(target: str, text: str) -> Build:
    """Beside the model, an adapter for one of its layers."""
    return lambda folder: adapter(
        folder.parent / "lora", target=f"model.layers.0.mlp.{target}", text=text
    )


ADAPTED = MERGE_HEAD + 'lora = adapter "lora" from b\nm = linear-merge a with lora\n'
ADAPTERS: dict[str, tuple[Build, str, str]] = {
    "27-rank": (
        with_adapter("up_proj", ', "r": 1000000000, "lora_alpha": 4'), "E0733",
        "the rank `r` is 1000000000",
    ),
    "27-NaN": (
        with_adapter("up_proj", ', "r": 2, "lora_alpha": NaN'), "E0733",
        "`NaN` is not a number of JSON",
    ),
    "27-alpha": (
        with_adapter("up_proj", ', "r": 2, "lora_alpha": "NaN"'), "E0733", "`lora_alpha` is 'NaN'",
    ),
    "27-target-outside-the-model": (
        with_adapter("gone_proj", ', "r": 2, "lora_alpha": 4'), "E0610", "gone_proj",
    ),
}  # fmt: skip


def two_alphabets(folder: Path) -> None:
    """A Cyrillic letter in a Latin name, in both models."""
    for name in ("a", "b"):
        write_model(folder.parent / name, {"model.n\u043erm.weight": np.ones(4, np.float32)})


def names_code(key: str) -> Build:
    """A configuration of the first model that names code, and the code."""
    value = {"AutoModel": "code.Model"} if key == "auto_map" else True

    def build(folder: Path) -> None:
        first = folder.parent / "b"
        (first / "config.json").write_text(json.dumps({**CONFIG, key: value}))
        (first / "code.py").write_text("raise SystemExit('this was run')")

    return build


def no_number(bad: float) -> Build:
    """One element is none."""

    def build(folder: Path) -> None:
        arrays = arrays_of(1)
        arrays[NO_NUMBER][0, 0] = bad
        write_model(folder, arrays)

    return build


def denormal(folder: Path) -> None:
    """Both models hold the smallest of numbers."""
    for name in ("a", "b"):
        tiny = {tensor: np.full(shape, 1e-42, np.float32) for tensor, shape in SHAPES.items()}
        write_model(folder.parent / name, tiny)


def in_waiting(same_size: bool) -> Build:
    """Weights that take the place of the second model's while those are read."""
    arrays = arrays_of(7) if same_size else {"x": np.zeros(3, np.float32)}
    return lambda folder: write_model(folder.parent / "other", arrays)


def tied(folder: Path) -> None:
    """The second model uses its embedding as output head."""
    arrays = arrays_of(1)
    del arrays["lm_head.weight"]
    write_model(folder, arrays, tie_word_embeddings=True)


NO_NUMBER = "model.layers.1.mlp.up_proj.weight"
AGAIN = MERGE_HEAD + 'm = linear-merge b with a\npublish m to "again"\n'
ALLOWED = MERGE_HEAD + 'm = linear-merge b with a { nonfinite = allow }\npublish m to "again"\n'
CODE_KEYS = ("auto_map", "model_file", "_attn_implementation_internal", "trust_remote_code")
ODD: dict[str, tuple[Build, str]] = {
    "7-two-alphabets": (two_alphabets, ""),
    "11-swapped-for-the-same-size": (in_waiting(True), AGAIN),
    "11-swapped-for-another-size": (in_waiting(False), AGAIN),
    **{f"14-{key}": (names_code(key), "") for key in CODE_KEYS},
    "19-NaN": (no_number(np.nan), ALLOWED),
    "19-infinite": (no_number(np.inf), ALLOWED),
    "19-denormal": (denormal, ""),
    "28-tied-and-apart": (tied, ""),
}
"""Checkpoints that pass the check: how each is built, and a recipe that is run after ``MERGE``."""
