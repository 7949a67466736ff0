"""Three small models in folders, and a recipe that merges two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recipelang.run.results import Outcome
from tests.weights.models import near, random_model, write_folder

SHAPES = {
    "model.embed_tokens.weight": (40, 16),
    **{
        f"model.layers.{i}.{name}": shape
        for i in range(3)
        for name, shape in (("mlp.up.weight", (24, 16)), ("norm.weight", (16,)))
    },
    "model.norm.weight": (16,),
}
CONFIG = {"model_type": "toy", "num_hidden_layers": 3, "hidden_size": 16, "vocab_size": 40}
TEXT = """\
language 1

base = model "base"
chat = model "chat"
code = model "code"
both = chat -> ties-merge with code from base { density = 60% }

publish both to "out/both"
"""


def project(folder: Path, text: str = TEXT, spoil: Any = None) -> Path:
    """Three small models and a recipe that merges them; ``spoil`` may change the second."""
    base = random_model(0, SHAPES)
    models = {"base": base, "chat": near(base, 1), "code": near(base, 2)}
    if spoil is not None:
        spoil(models["code"])
    for name, model in models.items():
        write_folder(folder / name, model, CONFIG)
    recipe = folder / "a.recipe"
    recipe.write_text(text)
    return recipe


def codes(outcome: Outcome) -> list[str]:
    """The codes of the warnings about what was merged."""
    return [d.code for d in outcome.diagnostics if d.code.startswith("W065")]
