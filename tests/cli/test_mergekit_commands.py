"""`recipe import` and `recipe export`: files, places, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipelang.cli.main import main

YAML = """\
merge_method: linear
models:
  - {model: ./models/a, parameters: {weight: 0.5}}
  - {model: acme/b, parameters: {weight: 1}}
"""
RECIPE = """\
language 1

# Imported from merge.yml, a configuration of mergekit.
a = model "../models/a"
b = model "hf:acme/b"

merged = linear-merge a(weight = 0.5) with b(weight = 1)

publish merged to "../out/merged"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a configuration."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "merge.yml").write_text(YAML)
    (tmp_path / "recipes").mkdir()
    return tmp_path


def test_import_writes_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths are the shell's on the command line and in the YAML, the recipe's in the recipe; what
    is there is kept unless it may be replaced."""
    command = ["import", "merge.yml", "-o", "recipes/m.recipe", "--publish-to", "out/merged"]
    assert main(command) == 0
    assert capsys.readouterr() == ("", "")
    written = folder / "recipes" / "m.recipe"
    assert written.read_text() == RECIPE
    written.write_text("# mine\n")
    assert main(command) == 2
    assert "error[E0701]: `recipes/m.recipe` exists already" in capsys.readouterr().err
    assert written.read_text() == "# mine\n"
    assert main([*command, "--overwrite"]) == 0
    assert written.read_text() == RECIPE
    assert main(["import", "merge.yml", "-o", "none/m.recipe"]) == 2
    assert "cannot write `none/m.recipe`" in capsys.readouterr().err


def test_import_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """Without ``-o`` the recipe is on stdout; a URI to publish to stays as it is."""
    assert main(["import", "merge.yml", "--publish-to", "hf:me/merged"]) == 0
    printed = capsys.readouterr().out
    assert 'a = model "./models/a"' in printed
    assert printed.endswith('publish merged to "hf:me/merged"\n')


def test_import_tells_of_faults(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault gives 2 and its line, and writes nothing."""
    (folder / "merge.yml").write_text(YAML.replace("weight: 0.5", "wieght: 0.5"))
    assert main(["import", "merge.yml", "-o", "m.recipe"]) == 2
    shown = capsys.readouterr().err
    assert "error[E0743]: `linear` has no parameter `wieght`" in shown
    assert "merge.yml:3:38" in shown
    assert "did you mean `weight`?" in shown
    assert not (folder / "m.recipe").exists()
    assert main(["import", "none.yml"]) == 2
    assert "give the path of a configuration file" in capsys.readouterr().err


def test_export(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The YAML is on stdout or in a file; a recipe with faults gives none."""
    text = 'a = model "hf:acme/a" at "c1899de"\nb = model "hf:acme/b" at "c1899de"\n'
    recipe = folder / "m.recipe"
    recipe.write_text(f"{text}m = linear-merge a with b\nn = finetune m on a\n")
    assert main(["export", "m.recipe", "m", "--mergekit"]) == 1
    recipe.write_text(f"{text}m = linear-merge a with b\n")
    assert main(["export", "m.recipe", "m", "--mergekit", "-o", "m.yml"]) == 0
    assert (folder / "m.yml").read_text().startswith("merge_method: linear\n")
    capsys.readouterr()
    assert main(["export", "m.recipe", "--mergekit"]) == 0
    assert capsys.readouterr().out == (folder / "m.yml").read_text()
    assert main(["export", "m.recipe", "n", "--mergekit"]) == 1
    assert "error[E0820]" in capsys.readouterr().err
    assert main(["export", "m.recipe"]) == 1


def test_both_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`recipe --help` shows both by their names."""
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "  import     Turn a configuration of mergekit into a recipe" in shown
    assert "  export     Turn a merge of a recipe into a configuration of mergekit" in shown
