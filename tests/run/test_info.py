"""`recipe info`: what a model is, what it was made of, and how a merge changed it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipelang.cli import main
from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.run.running import RunOptions, run_recipe
from tests.run.merges import TEXT, project


def test_info_by_every_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A binding, a recipe and a name, a published folder and the start of an id: one model, with
    what it is, what it was made of and how the merge changed it."""
    recipe = project(tmp_path)
    assert run_recipe(recipe, RunOptions()).exit_code == 0
    monkeypatch.chdir(tmp_path)
    artifact = read_lock(lock_path(recipe)).steps["both"].out
    seen: list[str] = []
    for words in (["both"], ["a.recipe", "both"], ["a.recipe:both"], ["out/both"], [artifact[:12]]):
        assert main(["info", *words]) == 0
        first, rest = capsys.readouterr().out.split("\n", 1)
        assert first == ":".join(words)
        seen.append(rest)
    assert len(set(seen)) == 1
    facts = [" ".join(line.split()) for line in seen[0].splitlines()[:7]]
    assert facts == [
        "architecture toy: layers 3, hidden 16, vocabulary 40",
        "parameters 1,856 in 8 tensors, 3.6 KiB, BF16",
        "tokenizer none",
        f"artifact {artifact}",
        "made by a.recipe",
        "both = ties-merge(base: base; inputs: chat, code) { density = 0.6 }",
        "",
    ]
    assert seen[0].splitlines()[7] == "ties-merge of chat and code from base"


def test_inner_steps_have_the_names_of_what_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An input without a binding is called as what it changes; parts of one model by their places;
    the steps of a binding are told one by one."""
    text = TEXT.replace(
        "both = chat ->",
        "tall = stack chat.layers(0, 2) with chat.layers(1, 3)\n"
        "both =\n    chat\n    -> cast { dtype = f32 }\n    ->",
    )
    outcome = run_recipe(project(tmp_path, text), RunOptions(targets=("both", "tall")))
    assert {place: [o.name for o in r.origins] for place, r in outcome.merges.items()} == {
        "both": ["chat", "code", "base"], "tall": ["tall/layers", "tall/layers-2"],
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["info", "tall"]) == 0
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "tall = stack(inputs: tall/layers, tall/layers-2)" in told
    assert "tall/layers = layers(model: chat) { start = 0, stop = 2 }" in told
    assert "tall/layers-2 = layers(model: chat) { start = 1, stop = 3 }" in told


def test_info_as_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One object with a schema, on stdout alone."""
    assert run_recipe(project(tmp_path), RunOptions()).exit_code == 0
    monkeypatch.chdir(tmp_path)
    assert main(["info", "both", "--format", "json"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    found = json.loads(told.out)
    assert found["schema"] == "recipelang/info/1"
    assert (found["architecture"], found["parameters"]) == ("toy", 1856)
    assert found["dtypes"] == {"BF16": 1856}
    assert found["made"]["recipe"] == "a.recipe"
    assert found["made"]["steps"][0]["inputs"] == {"base": ["base"], "inputs": ["chat", "code"]}
    assert found["merge"]["schema"] == "recipelang/merge-report/1"
    assert found["diagnostics"] == []


def test_info_of_what_is_no_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source has no report; a folder that was changed after it was published is only a folder."""
    assert run_recipe(project(tmp_path), RunOptions()).exit_code == 0
    monkeypatch.chdir(tmp_path)
    for words in (["chat"], ["a.recipe", "chat"]):
        assert main(["info", *words]) == 0
        assert "merge" not in capsys.readouterr().out
    with (tmp_path / "out" / "both" / "config.json").open("a") as file:
        file.write("\n")
    assert main(["info", "out/both"]) == 0
    told = capsys.readouterr().out
    assert "parameters" in told
    assert "made by" not in told


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nothing"], "E0859"), (["a.recipe", "nothing"], "E0857"), (["chat", "both"], "E0859"),
        (["none.recipe:both"], "E0701"), (["ffff"], "E0859"), (["a.recipe"], "E0728"),
    ],
)  # fmt: skip
def test_info_of_what_is_not_there(
    words: list[str], code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A bad argument is one diagnostic on stderr."""
    project(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["info", *words]) in (1, 2)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("error[") == 1
    assert f"error[{code}]" in told.err
