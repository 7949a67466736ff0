"""The commands new, log, sample and fetch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipelang.cli import main
from recipelang.cli._results import print_results
from tests.merging.projects import arrays_of, write_model
from tests.run.project import Finished


def test_new_gives_a_sound_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The starter recipe is checked, formatted, and nothing is written over."""
    monkeypatch.chdir(tmp_path)
    assert main(["new", "greet"]) == 0
    assert main(["check", "greet.recipe"]) == 0
    assert main(["fmt", "--check", "greet.recipe"]) == 0
    assert main(["fetch", "greet.recipe"]) == 0
    before = (tmp_path / "greet.recipe").read_bytes()
    assert main(["new", "greet"]) == 1
    assert main(["new", "../x"]) == 1
    assert (tmp_path / "greet.recipe").read_bytes() == before
    assert not (tmp_path / ".recipe").exists()


def test_new_runs_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The starter recipe runs from nothing to a published model, and says what to type next."""
    monkeypatch.chdir(tmp_path)
    main(["new", "greet"])
    assert main(["run", "greet.recipe", "--backend", "torch", "--set", "steps=2"]) == 0
    said = capsys.readouterr().out
    assert "scores: bits-per-byte" in said
    assert "published  out/greet" in said
    assert 'recipe sample out/greet "' in said


def test_log_lists_runs_and_steps(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step of a run stands in the log, with its result and backend."""
    assert main(["log", str(finished.recipe)]) == 0
    text = capsys.readouterr().out
    assert "a.recipe" in text
    assert [line for line in text.splitlines() if line.split()[:3] == ["wise", "finetune", "ran"]]
    assert main(["log", str(finished.recipe), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "recipelang/log/1"
    assert found["runs"][0]["outcome"] == "done"
    assert {s["backend"] for s in found["runs"][0]["steps"] if s["op"] == "finetune"} == {"torch"}
    command = found["runs"][0]["command"]
    assert command[:3] == ["recipe", "run", str(finished.recipe)]


def test_log_tells_the_command_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it could be typed once more: targets, backend, settings and switches."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a", arrays_of(0))
    (tmp_path / "m.recipe").write_text(
        'param share: Float = 1.0\na = model "a"\nm = linear-merge a(weight = share) with a\n'
    )
    words = ["run", "m.recipe", "m", "--backend", "torch", "--set", "share=2.0", "--offline"]
    assert main(words) == 0
    capsys.readouterr()
    assert main(["log", "--format", "json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["runs"]
    assert only["command"] == ["recipe", *words]


def test_log_of_a_store_of_a_later_release_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault is a diagnostic in the object on stdout."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "format").write_text("99\n")
    monkeypatch.setenv("RECIPE_STORE", str(tmp_path / "store"))
    assert main(["log", "--format", "json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["schema"], said.err) == ("recipelang/log/1", "")
    assert [d["code"] for d in found["diagnostics"]] == ["E0850"]


def test_sample_finds_models(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, a binding, a binding by file and an artifact's id name the same model."""
    monkeypatch.chdir(finished.recipe.parent)
    said: list[str] = []
    assert finished.outcome.record is not None
    (artifact,) = {s.artifact for s in finished.outcome.record.steps if s.place == "both"}
    for name in ("out/both", "both", "a.recipe:both", artifact[:16]):
        assert main(["sample", name, "A stitch", "--tokens", "3", "--backend", "torch"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0].startswith("A stitch")
    assert len(set(said)) == 1
    assert main(["sample", "curious", "A", "--tokens", "1", "--backend", "torch"]) == 0


def test_sample_names_what_is_missing(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown model is one diagnostic."""
    monkeypatch.chdir(finished.recipe.parent)
    assert main(["sample", "nothing", "A"]) == 1
    assert "E0859" in capsys.readouterr().err
    assert main(["sample", "a.recipe:proverbs", "A"]) == 1
    capsys.readouterr()
    assert main(["sample", "out/adapter", "A"]) == 1
    assert "an adapter without its model" in capsys.readouterr().err


def test_what_is_offered_next_is_a_model(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter was published last; the model before it is what can be sampled."""
    monkeypatch.chdir(finished.recipe.parent)
    assert [path.name for path in finished.outcome.published] == ["both", "adapter"]
    print_results(finished.outcome, finished.recipe, {})
    assert 'recipe sample out/both "' in capsys.readouterr().out
