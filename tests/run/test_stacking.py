"""Stacks and merges of layers, from the recipe to the folder that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.cli.main import main
from recipelang.diagnostics import RecipeError
from recipelang.run.results import Outcome
from recipelang.run.running import RunOptions, run_recipe
from recipelang.run.sampling import find_model
from recipelang.store import Store
from recipelang.weights.folder import Folder
from tests.conformance.tiny import checkpoint, write
from tests.run.project import write_project

MERGES = """\
base = model "base"
a = model "a" from base
b = model "b" from base
middle =
    a.layers(1, 3)(weight = 0.7)
    -> ties-merge with b.layers(1, 3) { density = 50% }
deep = stack a.layers(0, 2) with middle and b.layers(1, 3)(
    scale = per { "o_proj" = 0, "*" = 1 }
)
whole = stack a.layers(0, 1) with a.layers(1, 3)
publish deep to "out/deep"
publish whole to "out/whole"
"""
TRAINED = """\
language 1

defaults {
    steps = 1
    batch = 2
}

words = tokenizer "a-data/tokenizer"
blank = init "llama" with words {
    hidden = 16
    layers = 3
    heads = 2
    context = 64
}
proverbs = dataset "a-data/proverbs.txt" { length = 48 }
wise = finetune blank on proverbs
middle = linear-merge wise.layers(0, 2) with blank.layers(1, 3)
deep = stack wise with middle
deeper = finetune deep on proverbs { lr = 1e-3 }
deepest = stack deeper.layers(0, 5) with middle and wise.layers(2, 3)
scores = evaluate [wise, deepest] on proverbs { metrics = [bits-per-byte] }
"""


def _write(folder: Path, name: str, seed: int, architecture: str = "llama") -> Path:
    return write(checkpoint(architecture, seed=seed, tie_word_embeddings=False), folder / name)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three models, the recipe over them, and what it published."""
    folder = tmp_path_factory.mktemp("stacks")
    for seed, name in enumerate(("base", "a", "b")):
        _write(folder, name, seed)
    (folder / "m.recipe").write_text(MERGES)
    outcome = run_recipe(folder / "m.recipe", RunOptions())
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    return folder


def _results(outcome: Outcome) -> dict[str, str]:
    assert outcome.record is not None
    return {step.place: step.result for step in outcome.record.steps}


def _tensors(folder: Path) -> dict[str, Any]:
    opened = Folder.open(folder)
    return {n: opened.read(n).reshape(i.shape) for n, i in opened.tensors.items()}


def test_a_stack_is_published_layer_by_layer(merged: Path) -> None:
    """Each layer is where the recipe puts it, and the configuration counts them."""
    a, b, deep = (_tensors(merged / name) for name in ("a", "b", "out/deep"))
    config = json.loads((merged / "out/deep/config.json").read_text())
    assert config["num_hidden_layers"] == 6
    for layer, (of, there) in {0: (a, 0), 1: (a, 1), 4: (b, 1), 5: (b, 2)}.items():
        for name in (n for n in of if n.startswith(f"model.layers.{there}.")):
            got = deep[name.replace(f".{there}.", f".{layer}.", 1)]
            zero = layer > 3 and "o_proj" in name
            np.testing.assert_array_equal(got, of[name] * 0 if zero else of[name])
    np.testing.assert_array_equal(deep["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    np.testing.assert_array_equal(deep["lm_head.weight"], b["lm_head.weight"])


def test_a_stack_of_all_layers_is_published_as_the_model(merged: Path) -> None:
    """Cut and stacked again, a model has its tensors and its configuration."""
    whole, a = _tensors(merged / "out/whole"), _tensors(merged / "a")
    assert whole.keys() == a.keys()
    for name in a:
        np.testing.assert_array_equal(whole[name], a[name])
    configs = [json.loads((merged / n / "config.json").read_text()) for n in ("out/whole", "a")]
    assert configs[0] == configs[1]


def test_a_merge_of_layers_is_the_merge_of_models_cut(merged: Path) -> None:
    """The base of the layers, found by origin, is the same layers of the models' origin."""
    recipe = merged / "n.recipe"
    recipe.write_text(
        'base = model "base"\na = model "a" from base\nb = model "b" from base\n'
        "merged = a(weight = 0.7) -> ties-merge with b { density = 50% }\n"
        'publish merged to "out/merged"\n'
    )
    assert run_recipe(recipe, RunOptions()).exit_code == 0
    deep, whole = _tensors(merged / "out/deep"), _tensors(merged / "out/merged")
    for layer in (1, 2):
        for name in (n for n in whole if n.startswith(f"model.layers.{layer}.")):
            got = deep[name.replace(f".{layer}.", f".{layer + 1}.", 1)]
            np.testing.assert_array_equal(got, whole[name])


def test_nothing_runs_twice_and_layers_are_not_stored(merged: Path) -> None:
    """Ranges live in the pass that uses them, and a second run is all hits."""
    again = run_recipe(merged / "m.recipe", RunOptions())
    assert set(_results(again).values()) == {"cached"}
    store = Store.open_for(merged / "m.recipe")
    kinds = [m.kind for a in store.artifacts() if (m := store.manifest(a))]
    assert kinds
    assert set(kinds) == {"model"}


def test_layers_as_a_target(merged: Path) -> None:
    """Layers are built and stored when they are asked for, change nothing of the rest, and are no
    model."""
    recipe = merged / "m.recipe"
    before = run_recipe(recipe, RunOptions()).published
    outcome = run_recipe(recipe, RunOptions(targets=("middle", "deep")))
    assert outcome.exit_code == 0
    assert _results(outcome)["middle"] == "ran"
    assert _results(outcome)["deep"] == "cached"
    store = Store.open_for(recipe)
    artifact = outcome.built["middle"]
    found = store.manifest(artifact)
    assert found is not None
    assert found.kind == "layers"
    with pytest.raises(RecipeError, match="E0859"):
        find_model("m.recipe:middle", merged)
    assert run_recipe(recipe, RunOptions()).published == before


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_transformers_runs_a_stack_as_one_put_together_by_hand(
    architecture: str, tmp_path: Path
) -> None:
    """The published folder and modules moved by hand give equal logits."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    def load(folder: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    for seed, name in enumerate(("a", "b")):
        _write(tmp_path, name, seed, architecture)
    (tmp_path / "m.recipe").write_text(
        'a = model "a"\nb = model "b"\n'
        "deep = stack a.layers(0, 2) with b and a.layers(1, 3) and b.layers(2, 3)\n"
        'publish deep to "deep"\n'
    )
    assert run_recipe(tmp_path / "m.recipe", RunOptions()).exit_code == 0
    a, b, deep = (load(tmp_path / name) for name in ("a", "b", "deep"))
    by_hand = load(tmp_path / "deep")
    order = [*a.model.layers[:2], *b.model.layers, *a.model.layers[1:], b.model.layers[2]]
    by_hand.model.layers = torch.nn.ModuleList(order)
    by_hand.model.embed_tokens = a.model.embed_tokens
    by_hand.model.norm, by_hand.lm_head = b.model.norm, b.lm_head
    ids = torch.tensor([[1, 5, 9, 20, 3, 7]])
    with torch.no_grad():
        expected = by_hand(ids, use_cache=False).logits
        got = deep(ids, use_cache=False).logits
        other = a(ids, use_cache=False).logits
    assert len(deep.model.layers) == 8
    assert torch.equal(got, expected)
    assert not torch.allclose(got, other, atol=0.1)


def test_layers_of_several_kinds_keep_their_kinds(tmp_path: Path) -> None:
    """The list of kinds is joined, and a model cut and stacked runs as before."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    write(checkpoint("gemma3"), tmp_path / "m")
    (tmp_path / "m.recipe").write_text(
        'm = model "m"\nsame = stack m.layers(0, 3) with m.layers(3, 4)\n'
        "deep = stack m.layers(1, 3) with m.layers(2, 4)\n"
        'publish same to "same"\npublish deep to "deep"\n'
    )
    assert run_recipe(tmp_path / "m.recipe", RunOptions()).exit_code == 0
    config = json.loads((tmp_path / "deep/config.json").read_text())
    window, full = "sliding_attention", "full_attention"
    assert config["layer_types"] == [window, full, full, window]
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / n).eval() for n in ("m", "same")]
    ids = torch.arange(3, 17)[None]
    with torch.no_grad():
        one, two = (m(ids, use_cache=False).logits for m in models)
    assert torch.equal(one, two)


def test_a_stack_is_trained_cut_and_stacked_again(tmp_path: Path) -> None:
    """Layers that a pass before and one after a training need are computed in both; the result is
    a model like any other."""
    recipe = write_project(tmp_path, TRAINED)
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    assert outcome.tables["scores"].models == ("wise", "deepest")
    assert _results(outcome)["deepest"] == "ran"
    again = run_recipe(recipe, RunOptions(backend="torch"))
    assert "ran" not in _results(again).values()


def test_the_plan_shows_layers(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row tells how many layers, of what, and the base that was found."""
    recipe = merged / "shown.recipe"
    recipe.write_text(MERGES.replace("density = 50%", "density = 40%"))
    assert main(["plan", str(recipe)]) == 0
    shown = capsys.readouterr().out
    assert "2 layers llama" in shown
    assert "from base/layers by origin" in shown
    assert "inside deep, not written" in shown
