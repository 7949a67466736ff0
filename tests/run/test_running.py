"""Whole runs of a small recipe: what is computed, what is kept, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.run.events import Event, StepFinished, StepStarted
from recipelang.run.record import read_runs
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from recipelang.store.check import check_artifact
from tests.run.project import TEXT, Finished, codes_of, ran_of, results_of, write_project

ROOT = Path(__file__).parents[2]


def test_a_run_gives_tables_gates_and_folders(finished: Finished) -> None:
    """The first run computes every step and leaves what the recipe asks for."""
    outcome = finished.outcome
    assert {"blank", "wise", "curious", "both", "best_one", "scores"} <= set(ran_of(outcome))
    assert outcome.tables["scores"].models == ("blank", "both", "best_one")
    assert outcome.tables["scores"].datasets == ("proverbs", "riddles")
    assert [gate.passed for gate in outcome.gates] == [True]
    both, adapter = outcome.published
    assert {p.name for p in both.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "recipe.json",
    }  # fmt: skip
    assert {p.name for p in adapter.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "recipe.json",
    }  # fmt: skip
    assert outcome.folder is not None
    written = {p.name for p in outcome.folder.iterdir()}
    assert {"run.json", "report.md", "results.json", "losses-wise.jsonl"} <= written


def test_published_models_load_in_transformers(finished: Finished) -> None:
    """A published folder is a plain checkpoint, and the adapter beside it fits PEFT's layout."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    both, adapter = finished.outcome.published
    model = AutoModelForCausalLM.from_pretrained(both)
    assert model.config.hidden_size == 16
    assert str(model.dtype) == "torch.bfloat16"
    assert AutoTokenizer.from_pretrained(both)("ab")["input_ids"] != []
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 4)


def test_every_artifact_of_the_store_is_sound(finished: Finished) -> None:
    """All that a run stored hashes to its name, and the lock's blocks hold their own keys."""
    store = Store.open_for(finished.recipe)
    assert store.artifacts() != ()
    assert [check_artifact(store, a) for a in store.artifacts()] == [()] * len(store.artifacts())
    lock = read_lock(lock_path(finished.recipe))
    assert all(step.agrees for step in lock.steps.values())
    assert {"words", "proverbs", "blank", "wise", "both", "both.2", "scores"} <= set(lock.steps)
    assert list(store.tmp.iterdir()) == []
    assert not list((store.root / "work").iterdir())


def test_nothing_of_the_store_is_linked_out(finished: Finished) -> None:
    """Published files are copies, so changing one cannot damage the store."""
    for folder in finished.outcome.published:
        assert all(p.stat().st_nlink == 1 for p in folder.iterdir())


def test_the_second_run_is_all_hits(finished: Finished, tmp_path: Path) -> None:
    """Nothing runs again, and the lock is not touched."""
    recipe = finished.copy(tmp_path)
    before = lock_path(recipe).read_bytes()
    events: list[Event] = []
    outcome = run_recipe(recipe, RunOptions(backend="torch"), events.append)
    assert outcome.exit_code == 0
    assert ran_of(outcome) == []
    assert not [e for e in events if isinstance(e, StepStarted)]
    assert lock_path(recipe).read_bytes() == before
    assert outcome.tables["scores"].cells == finished.outcome.tables["scores"].cells
    assert outcome.tables["scores"].samples == finished.outcome.tables["scores"].samples


def test_hits_import_no_array_library(finished: Finished, tmp_path: Path) -> None:
    """A run of hits loads neither torch nor jax nor transformers."""
    recipe = finished.copy(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from recipelang.cli import main\n"
        "code = main(['run', sys.argv[1], '--backend', 'torch', '--format', 'json'])\n"
        "heavy = {'torch', 'jax', 'transformers', 'numpy', 'tokenizers'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(recipe)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "backends")))},
        check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stderr.splitlines()[-1] == "[]"
    results = json.loads(found.stdout)
    assert results["schema"] == "recipelang/results/1"
    assert {step["result"] for step in results["steps"]} == {"cached"}


def test_renaming_and_reformatting_run_nothing(finished: Finished, tmp_path: Path) -> None:
    """Names, comments, order and layout are no part of a key; the table shows the new names."""
    recipe = finished.copy(tmp_path)
    text = TEXT.replace("wise", "prudent").replace("both", "union").replace("best_one", "chosen")
    head, tail = text.split("proverbs = dataset", 1)
    recipe.write_text(
        "# renamed\n"
        + head
        + "\n\n# here\nproverbs = dataset"
        + tail.replace("out/union", "out/both")
    )
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 0
    assert ran_of(outcome) == []
    assert outcome.tables["scores"].models == ("blank", "union", "chosen")
    places = set(read_lock(lock_path(recipe)).steps)
    assert {"prudent", "union"} <= places
    assert not {"wise", "both"} & places


def test_an_edit_runs_what_depends_on_it(finished: Finished, tmp_path: Path) -> None:
    """Another density changes the merge and what measures it, and no training."""
    recipe = finished.copy(tmp_path)
    recipe.write_text(TEXT.replace("with curious\n", "with curious { density = 20% }\n"))
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 0
    assert set(ran_of(outcome)) == {"both", "scores", "both/perplexity"}


def test_a_failing_gate_publishes_nothing(finished: Finished, tmp_path: Path) -> None:
    """Exit code 3; what was built stays in the store."""
    recipe = finished.copy(tmp_path)
    shutil.rmtree(tmp_path / "out")
    recipe.write_text(TEXT.replace("<= 100000", "<= 1.5"))
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert (outcome.exit_code, codes_of(outcome)) == (3, ["E0858"])
    assert not (tmp_path / "out").exists()
    assert outcome.published == ()
    assert outcome.record is not None
    assert outcome.record.outcome == "gate"


def test_an_expectation_only_reports(finished: Finished, tmp_path: Path) -> None:
    """`expect` that is not met stops nothing."""
    recipe = finished.copy(tmp_path)
    recipe.write_text(TEXT.replace("require", "expect").replace("<= 100000", "<= 1.5"))
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 0
    assert [gate.passed for gate in outcome.gates] == [False]
    assert len(outcome.published) == 2


def test_a_failing_step_keeps_the_others(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that fails has a place and a code; independent steps are done, dependent ones are
    not.
    """
    monkeypatch.setattr("recipelang.language.phrases._has_adapter", lambda model: True)
    recipe = finished.copy(tmp_path)
    recipe.write_text(
        TEXT.replace("(adapter-of curious)", "(adapter-of wise)")
        + "\nmore = finetune blank on proverbs { seed = 5 }\n"
        + "expect loss of more on proverbs <= 100\n"
    )
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert (outcome.exit_code, codes_of(outcome)) == (4, ["E0862"])
    (error,) = [d for d in outcome.diagnostics if d.severity == "error"]
    assert error.primary is not None
    assert (
        "adapter-of"
        in error.primary.span.source.text[error.primary.span.start : error.primary.span.end]
    )
    assert results_of(outcome)["more"] == "ran"
    recipe.write_text(recipe.read_text().replace("(adapter-of wise)", "(adapter-of curious)"))
    again = run_recipe(recipe, RunOptions(backend="torch"))
    assert again.exit_code == 0
    assert results_of(again)["more"] == "cached"


def test_an_unforeseen_failure_is_no_traceback(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a backend raises becomes E0903 with the step's place; the trace is kept in a
    file.
    """
    recipe = finished.copy(tmp_path)
    recipe.write_text(
        TEXT
        + "\nmore = finetune blank on proverbs { seed = 6 }\n"
        + "expect loss of more on proverbs <= 100\n"
    )

    def broken(*args: object, **more: object) -> None:
        raise ZeroDivisionError("the device went away")

    monkeypatch.setattr("recipelang.run.training.train", broken)
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert (outcome.exit_code, codes_of(outcome)) == (4, ["E0903"])
    (error,) = [d for d in outcome.diagnostics if d.severity == "error"]
    assert "the device went away" in error.message
    assert results_of(outcome)["more"] == "failed"
    assert "loss of more on proverbs" not in ran_of(outcome)
    assert outcome.record is not None
    traces = list(Store.open_for(recipe).root.glob(f"run/{outcome.record.id}/*.traceback.txt"))
    assert len(traces) == 1


class _Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen moment."""


def test_an_interrupted_chain_goes_on(finished: Finished, tmp_path: Path) -> None:
    """What was finished is kept; the next run ends with the bits of an undisturbed one."""
    recipe = write_project(tmp_path)

    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.op == "evaluate":
            raise _Stop

    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, RunOptions(backend="torch"), stop)
    (record,) = read_runs(Store.open_for(recipe))
    assert record.outcome == "interrupted"
    done = {s.place for s in record.steps if s.result == "ran"}
    assert {"blank", "wise", "curious", "both"} <= done
    assert {"wise", "both"} <= set(read_lock(lock_path(recipe)).steps)
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 0
    assert not done & set(ran_of(outcome))
    assert lock_path(recipe).read_bytes() == lock_path(finished.recipe).read_bytes()


def test_locked_refuses_and_allows(finished: Finished, tmp_path: Path) -> None:
    """`--locked` runs hits, and refuses with exit code 3 what would change the lock, computing
    nothing.
    """
    recipe = finished.copy(tmp_path)
    before = lock_path(recipe).read_bytes()
    assert run_recipe(recipe, RunOptions(backend="torch", locked=True)).exit_code == 0
    recipe.write_text(TEXT.replace("lr = 1e-2", "lr = 2e-2"))
    events: list[Event] = []
    refused = run_recipe(recipe, RunOptions(backend="torch", locked=True), events.append)
    assert (refused.exit_code, codes_of(refused)) == (3, ["E0854"])
    assert not [e for e in events if isinstance(e, StepStarted)]
    lock_path(recipe).unlink()
    recipe.write_text(TEXT)
    assert run_recipe(recipe, RunOptions(backend="torch", locked=True)).exit_code == 3
    assert not lock_path(recipe).exists()
    assert run_recipe(recipe, RunOptions(backend="torch")).exit_code == 0
    assert lock_path(recipe).read_bytes() == before


def test_set_leaves_the_lock_alone(finished: Finished, tmp_path: Path) -> None:
    """A run with `--set` writes the lock only with `--lock`, and its values stand in it."""
    recipe = finished.copy(tmp_path)
    before = lock_path(recipe).read_bytes()
    options = RunOptions(("wise",), "torch", {"steps": "1"})
    first = run_recipe(recipe, options)
    assert first.exit_code == 0
    assert ran_of(first) == ["wise"]
    assert lock_path(recipe).read_bytes() == before
    second = run_recipe(recipe, RunOptions(("wise",), "torch", {"steps": "1"}, write_lock=True))
    assert ran_of(second) == []
    assert dict(read_lock(lock_path(recipe)).params) == {"steps": "1"}
    assert lock_path(recipe).read_bytes() != before


def test_a_target_builds_only_itself(tmp_path: Path) -> None:
    """Gates and publishes of other targets are skipped."""
    recipe = write_project(tmp_path)
    outcome = run_recipe(recipe, RunOptions(("wise",), "torch"))
    assert outcome.exit_code == 0
    assert set(ran_of(outcome)) == {"blank", "wise"}
    assert (outcome.gates, outcome.published) == ((), ())
    unknown = run_recipe(recipe, RunOptions(("wize",), "torch"))
    assert (unknown.exit_code, codes_of(unknown)) == (1, ["E0857"])


def test_another_backend_is_a_miss_when_asked_for(finished: Finished, tmp_path: Path) -> None:
    """Without `--backend` a hit of any backend in the lock counts; with it, only its own and
    neutral ones.
    """
    from recipelang.store.view import View

    lock = read_lock(lock_path(finished.recipe))
    view = View(Store.open_for(finished.recipe), lock, finished.recipe.parent)
    trained, merged = lock.steps["wise"], lock.steps["both"]
    assert (trained.backend, merged.backend) == ("torch", "")
    hit = view.lookup(trained.key, None)
    assert hit is not None
    assert hit.present
    assert view.lookup(trained.key, "jax") is None
    assert view.lookup(merged.key, "jax") is not None


def test_foreign_folders_are_not_replaced(finished: Finished, tmp_path: Path) -> None:
    """A folder that recipelang did not write is refused before anything runs."""
    recipe = finished.copy(tmp_path)
    (tmp_path / "out" / "both" / "recipe.json").unlink()
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert (outcome.exit_code, codes_of(outcome)) == (1, ["E0855"])
    recipe.write_text(TEXT.replace('"out/both"', '"out/both" { overwrite = true }'))
    assert run_recipe(recipe, RunOptions(backend="torch")).exit_code == 0


def test_a_damaged_lock_is_named(finished: Finished, tmp_path: Path) -> None:
    """Conflict markers stop the run before it starts, with the line."""
    recipe = finished.copy(tmp_path)
    lock_path(recipe).write_text("<<<<<<< HEAD\n" + lock_path(recipe).read_text())
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert codes_of(outcome) == ["E0760"]
    assert outcome.exit_code == 2


def test_steps_are_announced(finished: Finished, tmp_path: Path) -> None:
    """Every step that runs is started and finished once, in order."""
    recipe = write_project(tmp_path)
    events: list[Event] = []
    run_recipe(recipe, RunOptions(("both",), "torch"), events.append)
    started = [e.place for e in events if isinstance(e, StepStarted)]
    ended = [e.place for e in events if isinstance(e, StepFinished)]
    assert started == ended == ["blank", "wise", "curious", "both", "both/perplexity"]


def test_arithmetic_on_models(finished: Finished, tmp_path: Path) -> None:
    """Deltas live in the region that uses them; a fused chain is recorded and hit the next time."""
    recipe = finished.copy(tmp_path)
    recipe.write_text(
        TEXT + "\nhalf = blank + 0.5 * (wise - blank)\nsame = blank + (wise - blank)\n"
        "expect size of half >= 1\nexpect size of same >= 1\n"
    )
    first = run_recipe(recipe, RunOptions(backend="torch"))
    assert first.exit_code == 0, first.diagnostics
    assert {"half", "same"} <= set(ran_of(first))
    second = run_recipe(recipe, RunOptions(backend="torch"))
    assert ran_of(second) == []
