"""Kill -9 in the middle of a training and of a merge: the next run ends with the bits of an
undisturbed one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.run.record import read_runs
from recipelang.run.results import Outcome
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from tests.run.project import write_project

ROOT = Path(__file__).parents[2]

TEXT = """\
language 1

words = tokenizer "a-data/tokenizer"
blank = init "llama" with words {
    hidden = 16
    layers = 2
    heads = 2
    context = 64
}
proverbs = dataset "a-data/proverbs.txt" { length = 48 }

wise = finetune blank on proverbs {
    steps = 12
    batch = 2
    lr = 1e-2
    checkpoint = 1ms
}
both = ties-merge wise with blank from blank
"""

KILLER = """
import os, signal, sys
from pathlib import Path
from recipelang.run.events import StepProgress
from recipelang.run.running import RunOptions, run_recipe
recipe, place, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
backend = sys.argv[4]
def listen(event):
    if isinstance(event, StepProgress) and event.place == place and event.done == at:
        os.kill(os.getpid(), signal.SIGKILL)
run_recipe(recipe, RunOptions(("both",), backend), listen)
"""


def _environment() -> dict[str, str]:
    path = os.pathsep.join((str(ROOT), str(ROOT / "backends")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def _killed(recipe: Path, place: str, at: int, backend: str = "torch") -> None:
    """Run the recipe in another process that kills itself at this progress of this step."""
    command = [sys.executable, "-c", KILLER, str(recipe), place, str(at), backend]
    found = subprocess.run(
        command, env=_environment(), capture_output=True, timeout=300, check=False
    )
    assert found.returncode == -signal.SIGKILL, found.stderr.decode()


def _undisturbed(recipe: Path, backend: str) -> dict[str, str]:
    """Content ids of a run that nothing disturbs."""
    assert run_recipe(recipe, RunOptions(("both",), backend)).exit_code == 0
    return _outs(recipe)


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Content ids of the undisturbed run."""
    return _undisturbed(write_project(tmp_path_factory.mktemp("whole"), TEXT), "torch")


def _outs(recipe: Path) -> dict[str, str]:
    return {place: step.out for place, step in read_lock(lock_path(recipe)).steps.items()}


def _results(outcome: Outcome) -> dict[str, str]:
    assert outcome.record is not None
    return {step.place: step.result for step in outcome.record.steps}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_killed_in_training(tmp_path: Path, backend: str) -> None:
    """A training that was killed goes on from its checkpoint and ends with the same weights."""
    (tmp_path / "whole").mkdir()
    outs = _undisturbed(write_project(tmp_path / "whole", TEXT), backend)
    (tmp_path / "killed").mkdir()
    recipe = write_project(tmp_path / "killed", TEXT)
    _killed(recipe, "wise", 7, backend)
    store = Store.open_for(recipe)
    assert [p for p in (store.root / "work").rglob("*") if p.is_file()]
    (killed,) = read_runs(store)
    assert (killed.outcome, killed.ended) == ("running", "")
    steps: list[int] = []

    def listen(event: object) -> None:
        if getattr(event, "place", "") == "wise" and hasattr(event, "loss"):
            steps.append(event.done)  # type: ignore[attr-defined]

    outcome = run_recipe(recipe, RunOptions(("both",), backend), listen)
    assert outcome.exit_code == 0
    assert steps[0] > 1
    assert steps[-1] == 12
    assert _results(outcome)["blank"] == "cached"
    assert _outs(recipe) == outs
    assert not list((store.root / "work").iterdir())


def test_killed_in_a_merge(tmp_path: Path, outs: dict[str, str]) -> None:
    """A merge that was killed between two tensors goes on and ends with the same weights."""
    recipe = write_project(tmp_path, TEXT)
    _killed(recipe, "both", 5)
    assert "both" not in _outs(recipe)
    assert _outs(recipe)["wise"] == outs["wise"]
    outcome = run_recipe(recipe, RunOptions(("both",), "torch"))
    assert outcome.exit_code == 0
    assert _results(outcome)["wise"] == "cached"
    assert _outs(recipe) == outs


def test_terminated(tmp_path: Path, outs: dict[str, str]) -> None:
    """SIGTERM ends the command with 143 and leaves a whole lock."""
    recipe = write_project(tmp_path, TEXT.replace("steps = 12", "steps = 100000"))
    code = "import sys; from recipelang.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", str(recipe), "both", "--backend", "torch"]
    run = subprocess.Popen(command, env=_environment(), stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("wise") and "rows" in line:
            break
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143, said
    assert "what was finished is kept" in said
    assert _outs(recipe)["blank"] == outs["blank"]
    (record,) = read_runs(Store.open_for(recipe))
    assert record.outcome == "interrupted"


def test_two_runs_at_once(tmp_path: Path, outs: dict[str, str]) -> None:
    """Two processes on one store compute each step once and end with equal locks."""
    recipe = write_project(tmp_path, TEXT)
    code = (
        "import sys; from pathlib import Path\n"
        "from recipelang.run.running import RunOptions, run_recipe\n"
        "sys.exit(run_recipe(Path(sys.argv[1]), RunOptions(('both',), 'torch')).exit_code)\n"
    )
    command = [sys.executable, "-c", code, str(recipe)]
    runs = [subprocess.Popen(command, env=_environment()) for _ in range(2)]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    assert _outs(recipe) == outs
    records = read_runs(Store.open_for(recipe))
    ran = [s.place for record in records for s in record.steps if s.result == "ran"]
    assert sorted(ran) == ["blank", "both", "wise"]
