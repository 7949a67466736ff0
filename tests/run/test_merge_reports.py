"""Reports of merges in whole runs: in the run's folder, kept with the result, and the warnings of
garbage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from recipelang.cli import main
from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from tests.run.merges import CONFIG, SHAPES, TEXT, codes, project
from tests.weights.models import Memory, random_model, write_folder

ROOT = Path(__file__).parents[2]


def test_a_run_leaves_its_reports(tmp_path: Path) -> None:
    """Table, JSON and picture stand in the run's folder, and the whole model's row in its results;
    a sound merge is not warned of."""
    outcome = run_recipe(project(tmp_path), RunOptions())
    assert outcome.exit_code == 0
    assert codes(outcome) == []
    folder = outcome.folder
    assert folder is not None
    document = json.loads((folder / "merge-both.json").read_text())
    assert document["schema"] == "recipelang/merge-report/1"
    assert [row["label"] for row in document["layers"]] == ["before", "0", "1", "2", "after"]
    assert document["whole"]["norm_ratio"] == pytest.approx(1, abs=0.05)
    assert 0.1 < document["whole"]["conflicts"] < 0.9
    assert [i["name"] for i in document["inputs"]] == ["chat", "code"]
    text = (folder / "report.md").read_text()
    assert "## both: ties-merge of chat and code from base" in text
    assert "| layer | norm | cos lowest | change | Δ cos chat | Δ cos code | conflicts |" in text
    assert "(merge-both.svg)" in text
    assert ElementTree.parse(folder / "merge-both.svg").getroot().tag.endswith("svg")
    results = json.loads((folder / "results.json").read_text())
    assert results["merges"]["both"] == document["whole"]


def test_the_report_is_no_part_of_the_result(tmp_path: Path) -> None:
    """Without its report a result is the same, found again, and described without figures."""
    recipe = project(tmp_path)
    first = run_recipe(recipe, RunOptions())
    artifact = read_lock(lock_path(recipe)).steps["both"].out
    store = Store.open_for(recipe)
    assert store.report(artifact) is not None
    (report,) = (store.root / "rep" / artifact[:2] / artifact).iterdir()
    assert report.name == read_lock(lock_path(recipe)).steps["both"].key
    report.unlink()
    again = run_recipe(recipe, RunOptions())
    assert again.record is not None
    assert [s.result for s in again.record.steps if s.place == "both"] == ["cached"]
    assert again.built == first.built
    assert again.merges == {}


def test_a_cached_run_shows_its_reports(tmp_path: Path) -> None:
    """A merge that was taken from the store is reported and warned of again, under the names that
    its inputs have now, and no array library is loaded for it."""
    text = TEXT.replace("density = 60%", "density = 60%, scale = 50")
    recipe = project(tmp_path, text)
    assert "W0653" in codes(run_recipe(recipe, RunOptions()))
    recipe.write_text(text.replace("chat =", "talk =").replace("= chat", "= talk"))
    code = (
        "import sys; from pathlib import Path\n"
        "from recipelang.run.running import RunOptions, run_recipe\n"
        "outcome = run_recipe(Path(sys.argv[1]), RunOptions())\n"
        "assert [s.result for s in outcome.record.steps] == ['cached'], outcome.record\n"
        "print([o.name for o in outcome.merges['both'].origins])\n"
        "print(sorted({d.code for d in outcome.diagnostics}))\n"
        "print(sorted({'numpy', 'matplotlib'} & set(sys.modules)))\n"
        "print((outcome.folder / 'merge-both.svg').exists())\n"
    )
    path = os.pathsep.join((str(ROOT), str(ROOT / "backends")))
    done = subprocess.run(
        [sys.executable, "-c", code, str(recipe)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    names, found, heavy, drawn = done.stdout.splitlines()
    assert names == "['talk', 'code', 'base']"
    assert "W0653" in found
    assert heavy == "[]"
    assert drawn == "True"


def test_a_scale_by_mistake_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`scale = 50` gives a model that loads and is nonsense: run and info say so, at the step."""
    recipe = project(tmp_path, TEXT.replace("density = 60%", "density = 60%, scale = 50"))
    assert main(["run", str(recipe)]) == 0
    told = capsys.readouterr().err
    assert "warning[W0653]" in told
    assert "times as far from `base`" in told
    assert "warning[W0651]" in told
    assert f"{recipe}:6:" in told
    assert main(["info", str(recipe), "both"]) == 0
    assert "warning[W0653]" in capsys.readouterr().err


def test_nan_is_warned_of(tmp_path: Path) -> None:
    """`nonfinite = allow` lets NaN through, and all of them are counted and named."""

    def spoil(model: Memory) -> None:
        model.arrays["model.layers.1.mlp.up.weight"][2, 3:5] = np.nan

    text = TEXT.replace("ties-merge", "linear-merge").replace(
        " from base { density = 60% }", " { nonfinite = allow }"
    )
    outcome = run_recipe(project(tmp_path, text, spoil), RunOptions())
    assert outcome.exit_code == 0
    assert codes(outcome) == ["W0650"]
    (told,) = (d for d in outcome.diagnostics if d.code == "W0650")
    assert "2 infinities or NaN" in told.message
    assert "`model.layers.1.mlp.up.weight`" in told.message
    assert outcome.merges["both"].layers[2].nonfinite == 2


def test_models_without_a_common_origin_are_warned_of(tmp_path: Path) -> None:
    """The mean of six unrelated models is none of them."""
    inputs = [f"m{i}" for i in range(6)]
    for i, name in enumerate(inputs):
        write_folder(tmp_path / name, random_model(i, SHAPES), CONFIG)
    lines = [f'{name} = model "{name}"' for name in inputs]
    merge = f"soup = m0 -> linear-merge with {' and '.join(inputs[1:])}"
    (tmp_path / "a.recipe").write_text("\n".join(["language 1", "", *lines, merge, ""]))
    outcome = run_recipe(tmp_path / "a.recipe", RunOptions(targets=("soup",)))
    assert outcome.exit_code == 0
    assert sorted(codes(outcome)) == ["W0651", "W0652"]


def test_an_input_that_is_lost_is_warned_of(tmp_path: Path) -> None:
    """A weight that rounding swallows is told from one that is zero."""
    text = TEXT.replace("ties-merge", "linear-merge").replace(
        "with code from base { density = 60% }", "with code(weight = 0.0000001)"
    )
    assert codes(run_recipe(project(tmp_path, text), RunOptions())) == ["W0654"]
    text = text.replace("0.0000001", "0")
    assert codes(run_recipe(project(tmp_path / "zero", text), RunOptions())) == []
