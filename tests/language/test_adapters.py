"""What is said of adapters that are on this machine, before any weight is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recipelang.checking import check_text
from recipelang.diagnostics import Diagnostic

FILES = Path(__file__).parents[1] / "weights" / "peft_files"
HEAD = 'base = model "llama"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny models and adapters of them."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rewrite(folder: Path, **settings: object) -> None:
    """Change an adapter's configuration."""
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def line_of(diagnostic: Diagnostic) -> int:
    """The line of its place, from 1."""
    assert diagnostic.primary is not None
    span = diagnostic.primary.span
    return span.source.position(span.start)[0]


def told(text: str, folder: Path) -> list[tuple[str, int, str]]:
    """Code, line and words of every error and warning."""
    sink = check_text(text, folder=str(folder)).sink
    return [
        (d.code, line_of(d), d.message + " | " + d.help)
        for d in sink if d.severity != "note"
    ]  # fmt: skip


def refused(text: str, folder: Path, code: str, line: int, words: str) -> None:
    """The recipe has this one fault."""
    ((found, at, message),) = told(text, folder)
    assert (found, at) == (code, line), message
    assert words in message


def test_an_adapter_that_does_not_fit(folder: Path) -> None:
    """A tensor that the model lacks, or of another shape, is E0610: declared, applied, merged and
    added."""
    lacking = "`transformer.h.0.attn.c_attn.weight`, which the model does not have"
    for line in (
        'a = adapter "conv1d-and-head" from base',
        'm = apply (adapter "conv1d-and-head") to base',
        'm = linear-merge base with (apply (adapter "conv1d-and-head") to base)',
        'm = ties-merge with (adapter "conv1d-and-head") from base',
        'm = base + (adapter "conv1d-and-head")',
    ):
        refused(HEAD + line, folder, "E0610", 2, lacking)
    arrays = load_file(folder / "lora" / "adapter_model.safetensors")
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    arrays[name] = np.zeros((13, 2), np.float32)
    save_file(arrays, folder / "lora" / "adapter_model.safetensors")
    refused(HEAD + 'm = apply (adapter "lora") to base', folder, "E0610", 2,
            "by [13, 2] times [2, 8], but the model's is [12, 8]")  # fmt: skip


def test_what_is_replaced_has_the_models_shape(folder: Path) -> None:
    """Only embeddings and heads may have another number of rows, and both."""
    file = folder / "modules-to-save" / "adapter_model.safetensors"
    arrays = load_file(file)
    arrays["base_model.model.model.norm.weight"] = np.ones(9, np.float32)
    save_file(arrays, file)
    refused(HEAD + 'm = apply (adapter "modules-to-save") to base', folder, "E0610", 2,
            "replaces `model.norm.weight` by [9]")  # fmt: skip
    file = folder / "resized" / "adapter_model.safetensors"
    arrays = load_file(file)
    whole = arrays.pop("base_model.model.lm_head.weight")
    rewrite(folder / "resized", modules_to_save=["embed_tokens"])
    save_file(arrays, file)
    refused(HEAD + 'm = apply (adapter "resized") to base', folder, "E0614", 2,
            "`model.embed_tokens.weight` 23 rows long, but `lm_head.weight` has 20")  # fmt: skip
    arrays["base_model.model.lm_head.weight"] = whole[:22]
    save_file(arrays, file)
    refused(HEAD + 'm = apply (adapter "resized") to base', folder, "E0614", 2,
            "`lm_head.weight` 22 rows long, but `model.embed_tokens.weight` has 23")  # fmt: skip


def test_a_part_of_another_shape(folder: Path) -> None:
    """All of an adapter that resizes can be added, and no part of it."""
    assert told(HEAD + 'm = base + (adapter "resized")', folder) == []
    refused(HEAD + 'm = base + 0.5 * (adapter "resized")', folder, "E0615", 2, "`apply a to m`")
    text = 'base = model "tied"\nm = base - (adapter "tied-head")'
    refused(text, folder, "E0615", 2, "no part of that")
    text = 'base = model "llama" { dtype = bf16 }\nm = base + 0.5 * (adapter "lora")'
    assert told(text, folder) == []


def test_an_adapter_that_is_not_read(folder: Path) -> None:
    """E0733 names the setting at the place of the source, with its remedy."""
    rewrite(folder / "lora", init_lora_weights="olora")
    refused('a = adapter "lora"', folder, "E0733", 1, "path_initial_model_for_weight_conversion")
    rewrite(folder / "dora", use_dora=False)
    refused('a = adapter "dora"', folder, "E0733", 1, "has a `lora_magnitude_vector`")
    rewrite(folder / "rslora", r=5)
    refused('a = adapter "rslora"', folder, "E0733", 1, "is 5, but `lora_A` is [2, 12]")


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with the model `tiny/llama`, a copy, and one of another name."""
    cache = folder / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    for name in ("tiny--llama", "mirror--Llama", "tiny--other"):
        shutil.copytree(folder / "llama", cache / f"models--{name}" / "snapshots" / "aaaaaaa")
    shutil.copytree(folder / "lora", cache / "models--me--lora" / "snapshots" / "bbbbbbb")
    return folder


def test_an_adapter_of_another_model(hub: Path) -> None:
    """W0613 where the configuration names another repository than the base comes from: for what is
    declared, applied, and applied by a merge; not for copies, and not twice."""
    text = 'base = model "hf:tiny/{}" at "aaaaaaa"\n'
    for line in (
        'a = adapter "lora" from base',
        'a = apply (adapter "hf:me/lora" at "bbbbbbb") to base',
        'a = ties-merge with (adapter "lora") from base',
        'a = adapter "lora" from base\nb = ties-merge with a from base\nc = apply a to base',
        'a = adapter "lora" from (cast base { dtype = bf16 })',
    ):
        refused(text.format("other") + line, hub, "W0613", 2, "trained on `tiny/llama`, and")
        assert told(text.format("llama") + line, hub) == []
        assert told(text.replace("tiny", "mirror").format("Llama") + line, hub) == []
        assert told('base = model "llama"\n' + line, hub) == []


def test_the_configuration_names_the_base(hub: Path) -> None:
    """Beside its own base an adapter needs no clause: the configuration says which model it is."""
    base = 'base = model "hf:tiny/llama" at "aaaaaaa"\n'
    assert told(base + 'm = linear-merge base with (adapter "lora")', hub) == []
    other = base.replace("llama", "other")
    refused(other + 'm = linear-merge base with (adapter "lora")', hub, "E0613", 2,
            "which model `adapter` adapts")  # fmt: skip
