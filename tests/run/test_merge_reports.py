"""Reports of merges: in the run's folder, kept with the result, shown by `recipe info`, and the
warnings of garbage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from recipelang.cli import main
from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.run.merge_plot import merge_svg
from recipelang.run.merge_reports import warnings
from recipelang.run.merge_text import bar_lines, bars, merge_line, merge_rows, merge_title, notes
from recipelang.run.results import Outcome, plain_table
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from recipelang.weights.figures import InputFigures, LayerFigures, MergeReport, Origin
from tests.weights.models import Memory, near, random_model, write_folder

ROOT = Path(__file__).parents[2]
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


# ---------------------------------------------------------------- recipe info


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


# ---------------------------------------------------------------- text and warnings


def layer(label: str, norm: float | None = 1.0, cosine: float = 0.99, **changes: Any) -> Any:
    """A row of two inputs."""
    inputs = (
        InputFigures(norm, cosine, 0.8, 0.75), InputFigures(norm, cosine - 0.02, None, None),
    )  # fmt: skip
    row = LayerFigures(label, 2, 1000, 100, 0, norm, 0.8, 0.25, inputs)
    return replace(row, **changes)


def report(*rows: Any, whole: Any = None, **changes: Any) -> MergeReport:
    """A report with these rows."""
    made = MergeReport(
        "ties-merge", (Origin("chat"), Origin("code")), Origin("base"), rows,
        whole or layer("all", elements=4000, sampled=400), 0, (), None,
    )  # fmt: skip
    return replace(made, **changes)


def test_the_terminal_s_table() -> None:
    """The table, the bars and the notes, as they are printed."""
    found = report(
        layer("before", 1.01), layer("0", 0.97, 0.981, conflicts=0.31), layer("1", None, 0.95),
        layer("after", 1.2, conflicts=None, nonfinite=1234),
        whole=layer("all", 1.003, nonfinite=1234, elements=4000, sampled=400), unseen=2,
    )  # fmt: skip
    assert merge_title(found) == "ties-merge of chat and code from base"
    assert plain_table(merge_rows(found)).splitlines() == [
        "layer    norm  cos lowest  change  Δ cos chat  Δ cos code  conflicts  non-finite",
        "before  1.010      0.9700   0.800      0.7500           -      25.0%           0",
        "0       0.970      0.9610   0.800      0.7500           -      31.0%           0",
        "1           -      0.9300   0.800      0.7500           -      25.0%           0",
        "after   1.200      0.9700   0.800      0.7500           -          -       1,234",
        "all     1.003      0.9700   0.800      0.7500           -      25.0%       1,234",
    ]
    assert bar_lines(found) == [
        "by layer    before to after",
        "norm        ▂▁ █  0.970 to 1.200",
        "change      ▅▅▅▅  0.800 to 0.800",
        "Δ cos chat  ▅▅▅▅  0.7500 to 0.7500",
        "conflicts   ▁█▁   25.0% to 31.0%",
    ]
    assert notes(found) == [
        "norm: the result's to the mean of its inputs'; cos: cosine of the result to an input",
        "change, Δ cos: the same of the differences to base; conflicts: elements that inputs move "
        "both ways",
        "estimated from 400 of 4,000 elements; infinities and NaN are counted in all",
        "2 tensors are left out: an interrupted run wrote them, and their figures are lost",
    ]
    assert merge_line(found) == (
        "norm 1.003, cos lowest 0.9700, change 0.800, Δ cos chat 0.7500, Δ cos code -, "
        "conflicts 25.0%, non-finite 1,234"
    )


def test_many_inputs_share_columns() -> None:
    """Of more than four inputs the lowest and the highest figure is shown."""
    inputs = tuple(InputFigures(1.0, 0.9 + i / 100, None, None) for i in range(5))
    row = LayerFigures("0", 1, 1, 1, 0, 1.0, None, None, inputs)
    names = tuple(Origin(name) for name in "abcde")
    found = MergeReport("linear-merge", names, None, (row,), row, 0, (), None)
    assert merge_title(found) == "linear-merge of a, b, c, d and e"
    assert merge_rows(found)[:2] == [
        ["layer", "norm", "cos lowest", "cos highest"], ["0", "1.000", "0.9000", "0.9400"],
    ]  # fmt: skip


def test_bars() -> None:
    """From the lowest to the highest value; a small range is not blown up."""
    assert bars([0, 1, 2, 3, 4, 5, 6, 7], least=0.02) == "▁▂▃▄▅▆▇█"
    assert bars([1.0, 1.0001], least=0.02) == "▄▅"
    assert bars([None, None], least=0.02) == "  "


def test_pictures_have_a_panel_a_kind() -> None:
    """Ratios, cosines and conflicts; without a base the last is left out, and names are escaped."""
    found = report(layer("0"), layer("1"), inputs=(Origin("a<b"), Origin("c")))
    drawn = ElementTree.fromstring(merge_svg("both", found))
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert {"ratio", "cosine", "share", "0", "1", "norm", "Δ cos a<b"} <= set(texts)
    alone = MergeReport("linear-merge", found.inputs, None,
                        tuple(replace(r, conflicts=None) for r in found.layers),
                        replace(found.whole, conflicts=None), 0, (), None)  # fmt: skip
    drawn = ElementTree.fromstring(merge_svg("both", alone))
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert "share" not in texts
    assert "cos a<b" in texts


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (report(layer("0", 0.51), layer("1", 1.99)), []),
        (report(layer("0", 0.49), layer("1"), layer("2", 0.1)),
         ["W0651: `m` has 0.1 times the norm of its inputs in layers 0 and 2"]),
        (report(layer("before", 0.0), layer("0", 3.0)),
         ["W0651: `m` has 0 times the norm of its inputs in layer 0 and the tensors before the "
          "layers"]),
        (report(layer("0", cosine=0.45), layer("1", cosine=0.51)),
         ["W0652: `m` is unlike each of its inputs in layer 0: the cosine to the nearest is "
          "0.45"]),
        (report(layer("0"), whole=layer("all", change_ratio=12.5)),
         ["W0653: `m` is 12.5 times as far from `base` as its inputs are"]),
        (report(layer("0"), equal_to=2, whole=layer("all")),
         ["W0654: `m` is `base` in each of 100 numbers that were compared, though another input "
          "differs"]),
        (report(layer("0"), nonfinite=(("x", 3),), whole=layer("all", nonfinite=3)),
         ["W0650: `m` holds 3 infinities or NaN, the first in `x`"]),
    ],
)  # fmt: skip
def test_warnings(found: MergeReport, told: list[str]) -> None:
    """Each sign has one warning, and figures just within the bounds have none."""
    assert [f"{d.code}: {d.message}" for d in warnings("m", found)] == told
