"""Plans: what speaks against carrying them out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from recipelang.diagnostics import RecipeError
from recipelang.plan.checks import checked_names
from recipelang.plan.limits import free_bytes, prepare_backend
from recipelang.program import Budget
from recipelang.types import ModelType
from tests.plan.toy import HERE, MACHINE, Store, codes, example, planned
from tests.toys import Maker, program


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget(wall=60), "about 1.5 min of wall against a budget of 1 min"),
        (Budget(memory=1 << 30), "about 2 GiB of memory against a budget of 1 GiB"),
        (Budget(disk=1 << 20), "about 4 MiB of disk against a budget of 1 MiB"),
    ],
)
def test_over_budget_names_the_largest_part(budget: Budget, text: str) -> None:
    """A limit that the estimate exceeds is E0810, with the step that takes most."""
    budget = replace(budget, spans={"wall": HERE})
    plan = planned(example(budget=budget), Store())
    (found,) = plan.diagnostics
    assert (found.code, found.message) == ("E0810", text)
    assert found.notes[0].startswith("the largest part is `teacher` with ") or "disk" in text
    assert (
        planned(
            example(budget=Budget(wall=3600, memory=4 << 30, disk=1 << 30)), Store()
        ).diagnostics
        == ()
    )


def test_a_cached_run_is_within_any_budget() -> None:
    """Where nothing runs, nothing speaks against it."""
    store = Store()
    store.finish(planned(example(), store))
    assert planned(example(budget=Budget(wall=0, memory=0)), store).diagnostics == ()


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that writes more than is free is E0811 before anything is computed."""
    monkeypatch.setattr("recipelang.plan.make.free_bytes", lambda folder: 1 << 20)
    plan = planned(example(), Store())
    assert codes(plan) == ["E0811"]
    assert plan.diagnostics[0].message == "the run writes about 4 MiB, 1 MiB are free"


def test_free_space_of_a_folder_to_come(tmp_path: Path) -> None:
    """A store that does not exist yet has the space of the disk it will be on."""
    assert free_bytes(tmp_path / "a" / "b") > 0


def test_too_little_memory_is_told() -> None:
    """A step that needs more than the device has is E0812 and named."""
    plan = planned(example(), Store(), machine=lambda name: replace(MACHINE, memory_bytes=1 << 30))
    assert [d.message for d in plan.diagnostics] == [
        "`teacher` needs about 2 GiB of memory, a toy has 1 GiB"
    ]


def test_a_refused_model_is_told_with_the_alternative() -> None:
    """A model that the backend does not know is E0803 for the step, with the other backend as
    help."""
    asked: list[ModelType] = []

    def refuse(model: ModelType) -> str | None:
        asked.append(model)
        return "the model type `mamba`"

    plan = planned(example(), Store(), machine=lambda name: replace(MACHINE, refuse=refuse))
    assert codes(plan) == ["E0803", "E0803"]
    first = plan.diagnostics[0]
    assert first.message == "the torch backend cannot run `teacher`: the model type `mamba`"
    assert first.help == "run it with `--backend jax`"
    assert len(asked) == 1


def test_no_backend_is_a_diagnostic_of_what_needs_one() -> None:
    """An unknown backend is E0801; a plan that only merges asks for none."""
    machine = prepare_backend("abacus")
    assert [d.code for d in machine.faults] == ["E0801"]
    plan = planned(example(), Store(), machine=lambda name: machine)
    assert codes(plan) == ["E0801"]
    make = Maker()
    merged = make("mean", [make("source", uri="a"), make("source", uri="b")])
    only = program(make.graph, {"merged": merged}, evaluations=(merged,))
    assert codes(planned(only, Store(), machine=lambda name: machine)) == []


@pytest.mark.parametrize(
    ("targets", "passes", "message", "help"),
    [
        (["studnet"], [], "the target `studnet` is not a binding of this file",
         "did you mean `student`?"),
        ([], ["drop_ded"], "there is no pass `drop_ded`", "did you mean `drop_dead`?"),
    ],
)  # fmt: skip
def test_unknown_names_are_told(
    targets: list[str], passes: list[str], message: str, help: str
) -> None:
    """A target or a pass that does not exist is E0820 with the nearest one."""
    with pytest.raises(RecipeError) as caught:
        checked_names(example(), targets, passes)
    (found,) = caught.value.diagnostics
    assert (found.code, found.message, found.help) == ("E0820", message, help)
    checked_names(example(), ["student"], ["drop_dead"])
