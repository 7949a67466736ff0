"""Adapters as PEFT saves them, against PEFT's own arithmetic (fixtures of PEFT 0.21.2) and an
independent reference in float64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from recipelang.ops.registry import lookup
from recipelang.weights.adapted import Adapted
from recipelang.weights.adapter import AdapterFolder
from recipelang.weights.folder import Folder
from recipelang.weights.region import Step, make_step
from tests.weights.models import Memory, bits, compute

FILES = Path(__file__).parent / "peft_files"
CASES = sorted(folder.parent.name for folder in FILES.glob("*/adapter_config.json"))
PREFIX = "base_model.model."


def opened(case: str) -> tuple[Memory, AdapterFolder]:
    """Base and adapter of a case."""
    adapter = AdapterFolder.open(FILES / case)
    name = str(adapter.config["base_model_name_or_path"]).removeprefix("tiny/")
    base = Folder.open(FILES / name)
    arrays = {n: base.read(n).reshape(info.shape) for n, info in base.tensors.items()}
    return Memory(arrays, base.config), adapter


def applied(base: Any, adapter: Any) -> Step:
    """The step ``apply``."""
    operation = lookup("apply")
    assert operation is not None
    return make_step(operation, {"adapter": (adapter,), "model": (base,)}, {})


def reference(base: Memory, adapter: AdapterFolder) -> dict[str, Any]:
    """The formulas once more, on whole matrices in float64, module by module."""
    config = adapter.config
    stored = {
        name: adapter.read(name).reshape(info.shape).astype(np.float64)
        for name, info in adapter.tensors.items()
    }
    made = {name: array.astype(np.float64) for name, array in base.arrays.items()}
    tied = "lm_head.weight" not in made
    if tied:
        embedding = next(n for n in made if "embed_tokens" in n or "wte" in n)
        made["lm_head.weight"] = made[embedding]
    for name, array in stored.items():
        if ".lora_" not in name:
            made[name.removeprefix(PREFIX).replace(".base_layer", "")] = array
    if tied and f"{PREFIX}{embedding.replace('.weight', '.base_layer.weight')}" in stored:
        made["lm_head.weight"] = made[embedding]
    for name in [n for n in stored if "lora_A" in n or "lora_embedding_A" in n]:
        module = name.removeprefix(PREFIX).split(".lora_")[0]
        a = stored[name]
        b = stored[name.replace("lora_A", "lora_B").replace("embedding_A", "embedding_B")]
        rank, alpha = a.shape[0], config["lora_alpha"]
        for key, value in (config.get("alpha_pattern") or {}).items():
            if re.search(rf"(^|\.)({key})$", module):
                alpha = value
        scale = alpha / np.sqrt(rank) if config["use_rslora"] else alpha / rank
        weight = made[f"{module}.weight"]
        turned = "embedding" in name or module.rpartition(".")[2] in ("c_attn", "c_proj", "c_fc")
        total = (weight.T if turned else weight) + scale * b @ a
        magnitude = stored.get(f"{PREFIX}{module}.lora_magnitude_vector")
        if magnitude is not None:
            total = total / np.linalg.norm(total, axis=1, keepdims=True) * magnitude[:, None]
        made[f"{module}.weight"] = total.T if turned else total
        shift = stored.get(f"{PREFIX}{module}.lora_B.bias")
        if shift is not None:
            made[f"{module}.bias"] = made[f"{module}.bias"] + scale * shift
    if tied and np.array_equal(made["lm_head.weight"], made[embedding]):
        del made["lm_head.weight"]
    if config.get("ensure_weight_tying"):
        made.pop("lm_head.weight", None)
    return made


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_pefts(case: str, tmp_path: Path) -> None:
    """Every tensor that PEFT's merge changes has its numbers, to a few roundings; all others are
    the base's bit for bit."""
    base, adapter = opened(case)
    expected = load_file(FILES / case / "expected.safetensors")
    step = applied(base, adapter)
    got, _ = compute(step, tmp_path)
    assert set(got) == set(base.arrays) | set(expected)
    assert len(expected) > 0
    for name, array in got.items():
        if name in expected:
            np.testing.assert_allclose(array, expected[name], rtol=2e-6, atol=5e-7, err_msg=name)
        else:
            assert bits(array) == bits(base.arrays[name]), name
    assert step.config["vocab_size"] == (23 if case.endswith("resized") else 20)
    apart = "lm_head.weight" in got
    assert bool(step.config.get("tie_word_embeddings", not apart)) != apart


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("case", CASES)
def test_the_result_is_the_formulas(case: str, dtype: str, tmp_path: Path) -> None:
    """Against float64: float32 arithmetic and one rounding to the stored dtype."""
    base, adapter = opened(case)
    kind = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}[dtype]
    base = Memory({n: a.astype(kind) for n, a in base.arrays.items()}, base.config)
    got, _ = compute(applied(base, adapter), tmp_path)
    wanted = reference(base, adapter)
    assert set(got) == set(wanted)
    half = {"F32": 1e-6, "BF16": 2**-8, "F16": 2**-11}[dtype]
    for name, array in got.items():
        assert array.dtype == kind
        np.testing.assert_allclose(
            array.astype(np.float64), wanted[name], rtol=half, atol=1e-6, err_msg=name
        )


def test_a_stored_copy_of_a_tied_head_follows_the_configuration(tmp_path: Path) -> None:
    """A head that is stored beside the embedding that the configuration ties it to is that
    embedding: it is untied as it was, or left out where it stays tied."""
    for case in ("tied-embedding", "tied-together", "lora"):
        base, adapter = opened(case if case != "lora" else "tied-embedding")
        if case == "lora":
            adapter = AdapterFolder.open(FILES / case)
        embedding = base.arrays["model.embed_tokens.weight"]
        copied = Memory({**base.arrays, "lm_head.weight": embedding.copy()}, base.config)
        one, _ = compute(applied(base, adapter), tmp_path / case)
        two, _ = compute(applied(copied, adapter), tmp_path / f"{case}-copied")
        assert applied(base, adapter).config == applied(copied, adapter).config
        assert ("lm_head.weight" in one) == (case == "tied-embedding")
        assert ("lm_head.weight" in two) == (case != "tied-together")
        assert all(bits(one[name]) == bits(two[name]) for name in one)


@pytest.mark.parametrize("case", CASES)
def test_a_model_kept_with_its_adapter_reads_what_apply_writes(case: str, tmp_path: Path) -> None:
    """The same bits, in any pieces, before and after it is released."""
    base, adapter = opened(case)
    kept = Adapted(base, adapter)
    got, _ = compute(applied(base, adapter), tmp_path)
    assert kept.config == applied(base, adapter).config
    assert list(kept.tensors) == sorted(got)
    for name, array in got.items():
        whole = kept.read(name)
        pieces = [kept.read(name, i, min(i + 7, array.size)) for i in range(0, array.size, 7)]
        kept.release(name)
        assert bits(whole) == bits(np.concatenate(pieces)) == bits(array) == bits(kept.read(name))
