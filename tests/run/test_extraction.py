"""Recipes that decompose: an adapter taken out of a fine-tune, published, applied, merged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from recipelang.checking import check
from recipelang.run.events import Event, Note
from recipelang.run.results import Outcome
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from recipelang.store.check import check_artifact
from recipelang.weights.adapter import AdapterFolder
from tests.weights.models import Memory, random_model, write_folder

TEXT = """\
language 1

base = model "base"
tuned = model "tuned" from base
other = model "other" from base

slim = extract-adapter tuned from base { rank = 3 }
back = apply slim to base
both = tsv-merge back with other from base
flat = both -> iso-merge with tuned from base
again = extract-adapter (linear-merge back with other) from base {
    rank = 2
    randomised = true
}

publish slim to "out/adapter"
publish again to "out/again"
publish back to "out/back"
publish flat to "out/flat"
"""
SHAPES = {
    "model.embed_tokens.weight": (20, 12),
    "model.layers.0.mlp.up_proj.weight": (30, 12),
    "model.layers.0.norm.weight": (12,),
    "model.norm.weight": (12,),
}
UP = "model.layers.0.mlp.up_proj.weight"
CONFIG: dict[str, object] = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 12}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Three models on disk, one with a change of rank 3, one with a change of all ranks, and the
    recipe."""
    base = random_model(0, SHAPES, "F32")
    rng = np.random.default_rng(1)
    for name, rank in (("base", 0), ("tuned", 3), ("other", 12)):
        change = rng.standard_normal((30, rank)) @ rng.standard_normal((rank, 12)) * 1e-3
        arrays = dict(base.arrays)
        arrays[UP] = (arrays[UP] + change).astype(np.float32)
        write_folder(tmp_path / name, Memory(arrays), CONFIG)
    path = tmp_path / "a.recipe"
    path.write_text(TEXT)
    return path


def run(recipe: Path) -> tuple[Outcome, list[str]]:
    """The outcome, and the notes."""
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            notes.append(event.text)

    outcome = run_recipe(recipe, RunOptions(), listen)
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    return outcome, notes


def results(outcome: Outcome) -> dict[str, str]:
    """What became of each step."""
    assert outcome.record is not None
    return {step.place: step.result for step in outcome.record.steps}


def test_an_adapter_is_taken_out_published_and_applied(recipe: Path) -> None:
    """The adapter is stored for itself, its files are PEFT's, and applied it gives the fine-tune
    back; the run tells the share of the energy that is kept."""
    outcome, notes = run(recipe)
    assert [d.code for d in outcome.diagnostics] == []
    assert {results(outcome)[name] for name in ("slim", "back", "flat", "again")} == {"ran"}
    assert any(n.startswith("slim") and "keeps 100.0% of the energy" in n for n in notes)
    assert any(n.startswith("again") and "keeps" in n for n in notes)
    folder = recipe.parent / "out"
    names = {p.name for p in (folder / "adapter").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "recipe.json"}
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 3, ["up_proj"])
    opened = AdapterFolder.open(folder / "adapter")
    stem = "base_model.model.model.layers.0.mlp.up_proj.lora_"
    assert {n: i.shape for n, i in opened.tensors.items()} == {
        f"{stem}A.weight": (3, 12), f"{stem}B.weight": (30, 3)
    }  # fmt: skip
    tuned = load_file(recipe.parent / "tuned" / "model.safetensors")
    back = load_file(folder / "back" / "model.safetensors")
    np.testing.assert_allclose(back[UP], tuned[UP], rtol=1e-6, atol=1e-8)
    store = Store.open_for(recipe)
    assert [check_artifact(store, a) for a in store.artifacts()] == [()] * len(store.artifacts())


def test_nothing_is_computed_twice(recipe: Path) -> None:
    """A second run takes everything from the store; another rank makes the adapter and what
    depends on it anew."""
    run(recipe)
    second, _ = run(recipe)
    assert "ran" not in results(second).values()
    recipe.write_text(TEXT.replace("rank = 3", "rank = 1"))
    third, notes = run(recipe)
    assert results(third)["slim"] == results(third)["flat"] == "ran"
    assert any(n.startswith("slim") and "100.0%" not in n for n in notes)


def test_what_an_adapter_leaves_out_is_warned_of(recipe: Path) -> None:
    """A norm that was tuned is no matrix: the warning names it at the extraction, whether it is
    computed or taken from the store; an extraction that leaves nothing out says nothing."""
    tuned = recipe.parent / "tuned"
    arrays = load_file(tuned / "model.safetensors")
    arrays["model.norm.weight"] = arrays["model.norm.weight"] + np.float32(1e-3)
    write_folder(tuned, Memory(arrays), CONFIG)
    for expected in ("ran", "cached"):
        outcome, _ = run(recipe)
        assert results(outcome)["slim"] == expected
        (found,) = (d for d in outcome.diagnostics if d.code == "W0655")
        assert found.severity == "warning"
        assert "`slim` leaves out what was tuned in a tensor: `model.norm.weight`" in found.message
        assert found.primary is not None
        span = found.primary.span
        assert span.source.text[span.start : span.end].startswith("extract-adapter tuned")


def test_sketches_are_keyed_by_the_seed(recipe: Path) -> None:
    """The same seed gives the same files, another seed other ones."""
    found: set[bytes] = set()
    for seed in (0, 0, 1):
        text = f"language 1\ndefaults {{\n    seed = {seed}\n}}\n"
        lines = TEXT.replace("language 1\n", text).replace("rank = 2", "rank = 1")
        recipe.write_text(lines)
        run(recipe)
        found.add((recipe.parent / "out/again/adapter_model.safetensors").read_bytes())
    assert len(found) == 2


@pytest.mark.parametrize(
    ("old", "new", "code", "shown"),
    [
        ("rank = 3", "rank = 0", "E0413", "0"),
        ("{ rank = 3 }", "", "E0503", "extract-adapter"),
        ("rank = 3", 'rank = 3, targets = ["q_proj"]', "E0555", '["q_proj"]'),
        ("rank = 3", 'rank = 3, exclude = ["mlp"]', "E0555", '["mlp"]'),
        ("from base { rank = 3 }", "{ rank = 3 }", "E0506", "extract-adapter"),
        ("other from base\n", "other from base { nonfinite = allow }\n", "E0557", "allow"),
        ("other from base\n", "other from base { rank_share = 0 }\n", "E0413", "0"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(
    old: str, new: str, code: str, shown: str, recipe: Path
) -> None:
    """Each is one error at its place."""
    assert old in TEXT
    recipe.write_text(TEXT.replace(old, new, 1))
    found = [d for d in check(recipe, {}).sink if d.severity == "error"]
    assert [d.code for d in found] == [code]
    assert found[0].primary is not None
    span = found[0].primary.span
    assert shown in span.source.text[span.start : span.end]
