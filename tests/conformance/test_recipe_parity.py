"""One recipe, run on both backends in float64: the same losses, step by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipelang.run.running import RunOptions, run_recipe
from tests.run.project import write_project

STEPS = 20
TEXT = """\
language 1

defaults {
    precision = f64
    steps = 20
    batch = 4
    micro_batch = 3
    lr = 1e-2
    weight_decay = 0.1
}

words = tokenizer "a-data/tokenizer"
blank = init "llama" with words {
    hidden = 16
    layers = 2
    heads = 2
    kv_heads = 1
    context = 64
    dtype = f64
}
proverbs = dataset "a-data/proverbs.txt" { length = 48 }
riddles = dataset "a-data/riddles.jsonl" { length = 48 }

whole = finetune blank on riddles
adapted = finetune blank on proverbs { adapter = lora(rank = 2, alpha = 4) }
small = shrink blank { layers = 1 }
taught = distill whole into small on proverbs {
    objective = 0.5 * forward_kl + 0.3 * reverse_kl + 0.2 * cross_entropy
    temperature = 2.0
}
"""
TARGETS = ("whole", "adapted", "taught")


def losses(recipe: Path, backend: str) -> dict[str, list[float]]:
    """The losses of every training of the recipe on a backend."""
    outcome = run_recipe(recipe, RunOptions(TARGETS, backend))
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    assert outcome.folder is not None
    found: dict[str, list[float]] = {}
    for name in TARGETS:
        lines = (outcome.folder / f"losses-{name}.jsonl").read_text().splitlines()
        found[name] = [json.loads(line)["loss"] for line in lines]
    return found


def test_a_recipe_has_the_same_losses_on_both_backends(tmp_path: Path) -> None:
    """Every trained operation, whole and with an adapter, packed and accumulated in uneven
    micro-batches: twenty losses equal to 1e-8."""
    recipe = write_project(tmp_path / "jax", TEXT)
    on_jax = losses(recipe, "jax")
    on_torch = losses(write_project(tmp_path / "torch", TEXT), "torch")
    for name in TARGETS:
        assert len(on_jax[name]) == STEPS
        assert on_jax[name][-1] < on_jax[name][0]
        assert on_jax[name] == pytest.approx(on_torch[name], rel=1e-8)
