"""A small recipe with a tokenizer of bytes, for tests that run one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from recipelang.cli.new import starter
from recipelang.run.results import Outcome

TEXT = """\
language 1

param steps: Steps = 3

defaults {
    steps = steps
    batch = 2
    lr = 1e-2
}

words = tokenizer "a-data/tokenizer"
blank = init "llama" with words {
    hidden = 16
    layers = 2
    heads = 2
    context = 64
}
proverbs = dataset "a-data/proverbs.txt" { length = 48 }
riddles = dataset "a-data/riddles.jsonl" { length = 48 }

wise = finetune blank on proverbs
curious = finetune blank on riddles { adapter = lora(rank = 2, alpha = 4) }
both =
    wise
    -> ties-merge with curious
    -> cast { dtype = bf16 }
best_one = best of [wise, curious] by perplexity over proverbs

scores = evaluate [blank, both, best_one] on proverbs and riddles {
    metrics = [bits-per-byte]
    samples = ["A stitch"]
    sample_length = 2
}

require perplexity of both on proverbs <= 100000

publish both to "out/both"
publish (adapter-of curious) to "out/adapter"
"""


def write_project(folder: Path, text: str = TEXT) -> Path:
    """A folder with the recipe and its data; returns the recipe's path."""
    for name, content in starter("a").items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    recipe = folder / "a.recipe"
    recipe.write_text(text)
    return recipe


@dataclass(frozen=True)
class Finished:
    """A run that is done, and the folder that holds all of it."""

    recipe: Path
    outcome: Outcome

    def copy(self, folder: Path) -> Path:
        """The whole folder again, store included; returns the recipe's path."""
        shutil.copytree(self.recipe.parent, folder, dirs_exist_ok=True)
        return folder / self.recipe.name


def codes_of(outcome: Outcome) -> list[str]:
    """The codes of its errors."""
    return [d.code for d in outcome.diagnostics if d.severity == "error"]


def results_of(outcome: Outcome) -> dict[str, str]:
    """What became of each step."""
    assert outcome.record is not None
    return {step.place: step.result for step in outcome.record.steps}


def ran_of(outcome: Outcome) -> list[str]:
    """The steps that were carried out."""
    return [place for place, result in results_of(outcome).items() if result == "ran"]
