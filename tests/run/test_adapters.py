"""Adapters in recipes: as inputs of merges they are their baked models, bit for bit, and nothing of
them is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from recipelang.run.results import Outcome
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from tests.weights.models import bits

FILES = Path(__file__).parents[1] / "weights" / "peft_files"
KINDS = ("rslora", "dora", "embedding", "dora-embedding", "modules-to-save")
BASE = 'base = model "llama"\n'
MERGES = {
    "ties": "ties-merge with {a}(weight = 0.4) and {b} from base {{ density = 60% }}",
    "linear": "{a} -> linear-merge with {b}(weight = 2)",
    "slerp": "slerp-merge {a} with {b} {{ t = 0.3 }}",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiny models and adapters of them."""
    shutil.copytree(FILES, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, name: str, text: str) -> Outcome:
    """Run a recipe of that name."""
    recipe = folder / f"{name}.recipe"
    recipe.write_text(text)
    outcome = run_recipe(recipe, RunOptions())
    assert [d for d in outcome.diagnostics if d.severity == "error"] == []
    return outcome


def weights(folder: Path) -> dict[str, Any]:
    """The tensors of a published model."""
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("merge", MERGES)
def test_an_adapter_input_is_its_baked_model(project: Path, merge: str, kind: str) -> None:
    """A merge of adapters, of steps `apply`, and of published models with the adapters in them have
    the same bits; the first writes nothing but its result."""
    head = f'{BASE}one = adapter "{kind}" from base\ntwo = adapter "lora" from base\n'
    form = MERGES[merge]
    run(
        project, "inputs",
        head + f'merged = {form.format(a="one", b="two")}\npublish merged to "out/inputs"\n',
    )  # fmt: skip
    assert len(Store.open_for(project / "inputs.recipe").artifacts()) == 1
    run(
        project, "bake",
        head + 'publish (apply one to base) to "out/one"\npublish (apply two to base) to "out/two"',
    )  # fmt: skip
    baked = f'{BASE}a = model "out/one" from base\nb = model "out/two" from base\n'
    run(
        project, "baked", baked + f'merged = {form.format(a="a", b="b")}\n'
        'publish merged to "out/baked"\n',
    )  # fmt: skip
    inputs, published = weights(project / "out/inputs"), weights(project / "out/baked")
    assert inputs.keys() == published.keys()
    assert all(bits(inputs[name]) == bits(published[name]) for name in inputs)
    base = weights(project / "llama")
    assert any(bits(inputs[name]) != bits(base[name]) for name in base)


def test_added_tokens_bring_their_tokenizer(project: Path) -> None:
    """An adapter that resizes the vocabulary brings the tokenizer of its folder; any other leaves
    the base's."""
    for name, text in (("llama", "{}"), ("resized", '{"a": 1}'), ("lora", '{"b": 1}')):
        (project / name / "tokenizer.json").write_text(text)
    run(project, "more", f'{BASE}publish (apply (adapter "resized") to base) to "out/more"')
    run(project, "same", f'{BASE}publish (apply (adapter "lora") to base) to "out/same"')
    assert (project / "out/more/tokenizer.json").read_text() == '{"a": 1}'
    assert (project / "out/same/tokenizer.json").read_text() == "{}"
    config = json.loads((project / "out/more/config.json").read_text())
    assert config["vocab_size"] == len(weights(project / "out/more")["lm_head.weight"]) == 23


def test_an_untied_head_is_published(project: Path) -> None:
    """A tied model whose embedding alone is adapted loads with the head that it was trained
    with."""
    import torch
    from transformers import AutoModelForCausalLM

    text = 'base = model "tied"\npublish (apply (adapter "tied-embedding") to base) to "out/apart"'
    run(project, "apart", text)
    model = AutoModelForCausalLM.from_pretrained(project / "out/apart")
    head = torch.from_numpy(weights(project / "tied")["model.embed_tokens.weight"])
    assert torch.equal(model.lm_head.weight, head)
    assert not torch.equal(model.model.embed_tokens.weight, head)


def test_adapters_of_a_tied_model_are_merged_with_it(project: Path) -> None:
    """Where an adapter gives the head of its own that a tied base lacks, the merge has one."""
    text = (
        'base = model "tied"\none = adapter "tied-embedding" from base\n'
        'two = adapter "tied-head" from base\nm = linear-merge one with two and base\n'
        'publish m to "out/m"'
    )
    run(project, "heads", text)
    merged, base = weights(project / "out/m"), weights(project / "tied")
    old = base["model.embed_tokens.weight"]
    head = load_file(project / "tied-head/expected.safetensors")["lm_head.weight"]
    expected = (2 * old.astype(np.float64) + head) / 3
    np.testing.assert_allclose(merged["lm_head.weight"], expected, rtol=1e-6, atol=1e-6)
    config = json.loads((project / "out/m/config.json").read_text())
    assert config["tie_word_embeddings"] is False
