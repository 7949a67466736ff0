"""Every example is formatted, checked, planned, and run small."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from recipelang.cli import main

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.recipe"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the examples, so that no run writes into the checkout."""
    shutil.copytree(
        ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("out", ".recipe")
    )
    return tmp_path / "recipes"


def test_there_are_examples() -> None:
    """The tests below have something to run on."""
    assert len(RECIPES) >= 4


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_example_is_formatted_and_checked(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An example is in the one style and has neither errors nor warnings."""
    assert main(["fmt", "--check", str(recipe)]) == 0
    assert main(["check", str(recipe)]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_example_declares_its_steps(recipe: Path) -> None:
    """An example can be run small: it declares ``param steps: Steps``."""
    assert re.search(r"^param steps: Steps = \d+$", recipe.read_text("utf-8"), re.M)


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_example_runs_small(
    recipe: Path, checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps a training carry every operation of the example; then all of it is in the store.

    Its gates may fail after so little training (exit code 3), nothing else may.
    """
    command = ["run", str(checkout / recipe.name), "--set", "steps=2", "--backend", "torch"]
    assert main(command) in (0, 3), capsys.readouterr().err
    assert main(command) in (0, 3)
    assert "Traceback" not in capsys.readouterr().err
