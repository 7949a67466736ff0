"""`greedy-soup` in whole runs: small candidates that are trained, averaged and measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from recipelang.checking import check
from recipelang.cli import main
from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.ops.registry import lookup
from recipelang.plan.cost import cost_of, stored_bytes
from recipelang.plan.make import make_plan
from recipelang.run.record import StepRecord
from recipelang.run.results import Outcome
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from recipelang.store.view import View
from tests.run.project import write_project

TEXT = """\
language 1

defaults {
    steps = 4
    batch = 2
    lr = 3e-2
}

words = tokenizer "a-data/tokenizer"
blank = init "llama" with words {
    hidden = 16
    layers = 2
    heads = 2
    context = 64
    dtype = bf16
}
other = init "llama" with words {
    hidden = 16
    layers = 2
    heads = 2
    context = 64
    dtype = bf16
    seed = 5
}
proverbs = dataset "a-data/proverbs.txt" { length = 48 }
riddles = dataset "a-data/riddles.jsonl" { length = 48 }

wise = finetune blank on proverbs
bold = blank + 6.0 * (wise - blank)
quick = finetune blank on proverbs { seed = 2, adapter = lora(rank = 2, alpha = 4) }
candidates = [other, bold, quick, wise]

recipe both(m: Model, d: Dataset) => Measured {
    give (loss of m on d) + 0.01 * (loss of blank on riddles)
}
soup = greedy-soup candidates by both over proverbs
alone = greedy-soup [wise] by loss over proverbs
mean = linear-merge bold with quick and wise
turned = greedy-soup [wise, other, bold, quick] by both over proverbs
turned_mean = linear-merge wise with bold and quick

scores = evaluate [other, bold, quick, wise, soup, alone, mean, turned, turned_mean] on proverbs {
    metrics = [loss]
}
"""


@dataclass(frozen=True)
class Made:
    """A run that is done."""

    recipe: Path
    outcome: Outcome
    backend: str

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The steps of the run."""
        assert self.outcome.record is not None
        return self.outcome.record.steps


@pytest.fixture(scope="module", params=["torch", "jax"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run of the recipe on one backend."""
    recipe = write_project(tmp_path_factory.mktemp(request.param), TEXT)
    outcome = run_recipe(recipe, RunOptions(backend=request.param))
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    return Made(recipe, outcome, request.param)


def test_it_takes_what_helps_and_leaves_what_does_not(made: Made) -> None:
    """Two halves of a good model are better together, and a stranger is left out. What the search
    measured is what is measured of the result, and no candidate is better."""
    report = made.outcome.soups["soup"]
    assert report.names == ("other", "bold", "quick", "wise")
    assert report.search.accepted == (1, 2, 3)
    assert [t.accepted for t in report.search.trials] == [True, True, False]
    cells = made.outcome.tables["scores"].cells
    losses = {name: row["proverbs"]["loss"].value for name, row in cells.items()}
    constant = report.search.values[1] - losses["bold"]
    assert constant > 0
    assert report.search.value - constant == pytest.approx(losses["soup"], abs=1e-12)
    assert losses["soup"] < min(losses[name] for name in report.names)


def test_it_has_the_bits_of_a_linear_merge(made: Made) -> None:
    """Of the accepted candidates in the recipe's order; the other trials left nothing behind."""
    artifacts = {s.place: s.artifact for s in made.steps}
    assert artifacts["soup"] == artifacts["mean"]
    assert made.outcome.soups["turned"].search.accepted == (0, 2, 3)
    assert artifacts["turned"] == artifacts["turned_mean"]
    store = Store.open_for(made.recipe)
    kinds = [m.kind for a in store.artifacts() if (m := store.manifest(a)) is not None]
    whole = {"blank", "other", "wise", "bold", "mean", "turned"}
    assert kinds.count("model") == len({artifacts[place] for place in whole})
    assert not list((store.root / "work").iterdir())


def test_one_candidate_is_the_result_itself(made: Made) -> None:
    """Nothing is averaged, and nothing is stored again."""
    artifacts = {s.place: s.artifact for s in made.steps}
    assert artifacts["alone"] == artifacts["wise"]
    assert made.outcome.soups["alone"].search.trials == ()


def test_the_second_run_takes_it_from_the_store(made: Made) -> None:
    """Nothing is measured again, and the report is there all the same."""
    again = run_recipe(made.recipe, RunOptions(backend=made.backend))
    assert again.record is not None
    assert {s.result for s in again.record.steps} == {"cached"}
    assert again.soups == made.outcome.soups


def test_the_report_and_the_log_tell_what_was_accepted(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's folder has a row a trial; the log names the accepted candidates."""
    folder = made.outcome.folder
    assert folder is not None
    value = f"{made.outcome.soups['soup'].search.value:.5g}"
    report = (folder / "report.md").read_text()
    assert "## soup: greedy-soup" in report
    assert f"| {value} | accepted |" in report
    results = json.loads((folder / "results.json").read_text())
    assert results["soups"]["soup"]["accepted"] == [1, 2, 3]
    assert len(results["soups"]["soup"]["trials"]) == 3
    capsys.readouterr()
    assert main(["log", str(made.recipe)]) == 0
    line = f"the mean of bold, quick and wise, of 4 candidates, at {value}"
    assert line in capsys.readouterr().out


def test_info_tells_what_was_accepted(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """By the recipe's names, with what each candidate and each mean measured; only of the soup, not
    of a merge or a candidate with the same numbers."""
    search = made.outcome.soups["soup"].search
    capsys.readouterr()
    assert main(["info", str(made.recipe), "soup"]) == 0
    shown = capsys.readouterr().out
    assert "the mean of bold, quick and wise, of 4 candidates" in shown
    rows = [line.split() for line in shown.splitlines()]
    for trial in search.trials:
        name = made.outcome.soups["soup"].names[trial.candidate]
        verdict = "accepted" if trial.accepted else "worse"
        alone = f"{search.values[trial.candidate]:.5g}"
        assert [name, alone, f"{trial.value:.5g}", verdict] in rows
    assert main(["info", str(made.recipe), "alone", "--format", "json"]) == 0
    soup = json.loads(capsys.readouterr().out)["soup"]
    assert [row["name"] for row in soup["candidates"]] == ["wise"]
    assert (soup["accepted"], soup["trials"]) == ([0], [])
    for other in ("mean", "wise"):
        assert main(["info", str(made.recipe), other, "--format", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["soup"] is None


def test_the_plan_counts_the_trials(tmp_path: Path) -> None:
    """Every candidate is measured by a step of its own, and the search's estimate holds a
    measuring less than there are candidates."""
    recipe = write_project(tmp_path, TEXT)
    program = check(recipe).program
    assert program is not None
    view = View(Store.open_for(recipe), read_lock(lock_path(recipe)), tmp_path)
    plan = make_plan(program, ("soup",), view)
    steps = {step.place: step for step in plan.steps}
    soup = steps["soup"]
    assert soup.action == "run"
    measures = [plan.by_node[node] for node in soup.node.role("by")]
    assert len(measures) == 8  # of each of the four candidates two
    assert {step.action for step in measures} == {"run"}
    costs = [cost_of(step.node, lookup(step.node.op)) for step in measures]
    own = cost_of(soup.node, lookup("greedy-soup"))
    assert own.flops == 0.75 * sum(cost.flops for cost in costs) > 0
    size = stored_bytes(steps["wise"].node.type)
    assert own.bytes_read == (2 + 3 + 4 + 4) * size
    assert own.bytes_written == size
    assert soup.estimate.seconds > 0


@pytest.mark.parametrize(
    ("recipe", "code", "words"),
    [
        ("soup = greedy-soup [] by loss over proverbs", "E0506", "empty list"),
        ("soup = greedy-soup [wise, small] by loss over proverbs", "E0601", "hidden_size"),
        ("soup = greedy-soup [wise, bold] over proverbs", "E0506", "metric behind `by`"),
        ("soup = greedy-soup [wise, bold] by loss", "E0506", "measures on a dataset"),
        ("soup = greedy-soup [wise, bold] by shuffle over proverbs", "E0512", "`shuffle`"),
        ("soup = greedy-soup [wise, bold(weight = 2)] by loss over proverbs", "E0510", ""),
        ("soup = greedy-soup [wise, bold] by rounded over proverbs", "E0670", "`loss`"),
        ("soup = greedy-soup [wise, bold] by loss over none", "E0774", "no rows"),
    ],
)
def test_mistakes_are_found_before_weights_are_read(
    recipe: str, code: str, words: str, tmp_path: Path
) -> None:
    """Each with a place in the recipe, and with what to do."""
    more = (
        'small = init "llama" with words { hidden = 8, layers = 2, heads = 2 }\n'
        'none = dataset "a-data/none.txt"\n'
        "recipe rounded(m: Model, d: Dataset) => Measured {\n"
        "    give loss of (cast m { dtype = f16 }) on d\n}\n"
    )
    if "none" not in recipe:
        more = more.replace('none = dataset "a-data/none.txt"\n', "")
    path = write_project(tmp_path, TEXT.partition("soup =")[0] + more + recipe + "\n")
    (tmp_path / "a-data" / "none.txt").write_text("\n\n")
    found = [d for d in check(path).sink if d.severity == "error"]
    assert [d.code for d in found] == [code]
    assert words in found[0].message
    assert found[0].primary is not None
    assert found[0].help
