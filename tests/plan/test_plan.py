"""Plans: what runs, why, in which order, what it takes and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import Diagnostic, RecipeError, Source, Span
from recipelang.ir.graph import Node
from recipelang.ops.spec import Cost
from recipelang.plan.checks import checked_names
from recipelang.plan.cost import Speed, calibrated, cpu_speed
from recipelang.plan.limits import Machine, free_bytes, prepare_backend
from recipelang.plan.make import key_of, make_plan
from recipelang.plan.reasons import difference
from recipelang.plan.render import render, to_json
from recipelang.plan.schedule import Plan
from recipelang.plan.units import bytes_text, seconds_text
from recipelang.program import Budget, GateRoot, Program, PublishRoot
from recipelang.types import ModelType
from tests.toys import Maker, content, lookup, program, programs

GOLDEN = Path(__file__).parent
HERE = Span(Source("toy.recipe", "x = 1\n"), 0, 1)


@dataclass(frozen=True)
class Stored:
    """A record of the store."""

    artifact: str
    backend: str = ""
    present: bool = True
    seconds: float = 0.0


@dataclass
class Store:
    """A store in memory. `missing` are the places of sources that are not on this machine."""

    root: Path = Path("/")
    records: dict[str, Stored] = field(default_factory=dict[str, Stored])
    documents: dict[str, Mapping[str, object]] = field(
        default_factory=dict[str, Mapping[str, object]]
    )
    missing: frozenset[str] = frozenset()

    def hash_sources(self, nodes: Iterable[Node]) -> None:
        """Nothing is read here."""

    def content(self, node: Node) -> str | None:
        """Toy content, unless it is missing."""
        return None if node.attr("uri") in self.missing else content(node)

    def lookup(self, key: str, backend: str | None) -> Stored | None:
        """The record of the key, if this backend may use it."""
        found = self.records.get(key)
        fits = found is not None and (backend is None or found.backend in ("", backend))
        return found if fits else None

    def previous(self, place: str) -> Mapping[str, object] | None:
        """What the lock has for a place."""
        return self.documents.get(place)

    def finish(self, plan: Plan, backend: str = "", seconds: float = 0.0) -> None:
        """Run the plan: a result's content is a hash of its key, as far as keys become known."""
        contents: dict[Node, str] = {}
        for step in plan.steps:
            key = step.key or key_of(plan.state, step.node, contents)
            contents[step.node] = step.artifact or (f"of {key.digest}" if key else "")
            if step.action == "run":
                assert key is not None
                made = Stored(contents[step.node], backend, True, seconds)
                self.records[key.digest] = made
                self.documents[step.place] = key.document


MACHINE = Machine("torch", "cpu", "a toy", 8 << 30, others=("jax",))


def planned(made: Program, store: Store, *targets: str, **options: object) -> Plan:
    """The plan on a machine of known speed."""
    options = {"speed": Speed(1e12, 1e9), "machine": lambda name: MACHINE, **options}
    return make_plan(made, targets, store, lookup=lookup, **options)  # type: ignore[arg-type]


def example(**changes: object) -> Program:
    """A training, a chain of two merges of it, a gate and a publish, and one step nobody needs."""
    make = Maker()
    base, text = make("source", uri="m"), make("notes", uri="d")
    teacher = make("train", base, make("halve", text), steps=changes.get("steps", 90))
    floored = make("floor", teacher)
    student = make("mean", [floored, base], weight=(changes.get("weight", 1), 0.5))
    spare = make("train", base, text)
    score = make("score", student, text)
    gate = GateRoot(True, score, "<=", 2, "", "require score of student <= 2", HERE)
    shown = PublishRoot(student, "out/student", ".", False, None, HERE)
    bindings = {
        "base": base, "notes": text, "teacher": teacher, "floored": floored, "student": student,
        "spare": spare, "scored": score,
    }  # fmt: skip
    budget = changes.get("budget", Budget())
    return program(
        make.graph, bindings, gates=(gate,), publishes=(shown,), budget=budget,
        inferred={student: base},
    )  # fmt: skip


def actions(plan: Plan) -> dict[str, str]:
    """The action of each named step."""
    return {step.place: step.action for step in plan.steps if step.place}


# ---------------------------------------------------------------- what runs


def test_everything_runs_at_first_and_nothing_again() -> None:
    """A first plan runs all that is needed; after it ran, all is cached and no backend is asked
    for."""
    store = Store()
    first = planned(example(), store)
    assert [s.place for s in first.to_run] == ["teacher", "floored", "student", "scored"]
    assert first.backend == "torch"
    store.finish(first)
    again = planned(example(), store, machine=lambda name: pytest.fail("a backend was asked for"))
    assert again.to_run == ()
    assert again.backend is None
    assert actions(again)["student"] == "cached"
    assert actions(again)["base"] == "skip"


def test_a_change_runs_what_depends_on_it_and_says_why() -> None:
    """Another weight runs the merge and the measure; the training is cached."""
    store = Store()
    store.finish(planned(example(), store))
    plan = planned(example(weight=2), store)
    assert {s.place: s.reason for s in plan.to_run} == {
        "student": "weight [1, 0.5] -> [2, 0.5]",
        "scored": "student runs",
    }
    assert actions(plan)["teacher"] == "cached"


def test_an_equal_result_stops_the_change() -> None:
    """A step that runs again and gives the same content leaves what follows cached."""
    store = Store()
    first = planned(example(), store)
    store.finish(first)
    teacher = next(s for s in first.steps if s.place == "teacher")
    plan = planned(example(steps=91), store)
    assert len(plan.to_run) == 4
    changed = next(s for s in plan.steps if s.place == "teacher")
    assert teacher.key is not None
    assert changed.key is not None
    store.records[changed.key.digest] = store.records[teacher.key.digest]
    assert planned(example(steps=91), store).to_run == ()


def test_what_was_collected_runs_again_only_where_it_is_needed() -> None:
    """A result that is known but gone runs if a target needs it, and not below cached steps."""
    store = Store()
    store.finish(planned(example(), store))
    for name in ("teacher", "floored"):
        _lose(store, name)
    assert planned(example(), store).to_run == ()
    _lose(store, "student")
    plan = planned(example(), store)
    assert [s.place for s in plan.to_run] == ["teacher", "floored", "student"]
    assert {s.reason for s in plan.to_run} == {"its result is no longer in the store"}


def test_a_cached_step_inside_a_region_that_runs() -> None:
    """A merge that was a target once is cached; the region around it, which holds its own operand
    and its user, is planned, and runs without it."""
    make = Maker()
    base = make("source", uri="m")
    low = make("scale", base, factor=2)
    middle = make("scale", low, factor=3)
    top = make("chain", [middle, low])
    bindings = {"base": base, "low": low, "middle": middle, "top": top}
    store = Store()
    alone = program(make.graph, bindings, evaluations=(middle,))
    store.finish(planned(alone, store))
    _lose(store, "low")
    plan = planned(program(make.graph, bindings, evaluations=(top,)), store)
    assert actions(plan) == {"base": "source", "low": "run", "middle": "cached", "top": "run"}
    assert {step.place for step in plan.to_run} == {"low", "top"}


def _lose(store: Store, place: str) -> None:
    from recipelang.lineage.keys import digest

    key = digest("recipelang/key/1", store.documents[place])
    store.records[key] = replace(store.records[key], present=False)


def test_another_backend_is_a_miss_where_one_is_asked_for() -> None:
    """Without `--backend` any result serves; with it only its own and those no backend made."""
    store = Store()
    store.finish(planned(example(), store), backend="jax")
    assert planned(example(), store).to_run == ()
    assert planned(example(), store, backend="jax").to_run == ()
    plan = planned(example(), store, backend="torch")
    assert plan.to_run[0].reason == "the stored result is jax's"


def test_an_absent_source_is_told() -> None:
    """Without a source's content no key is known; the plan names the source."""
    plan = planned(example(), Store(missing=frozenset({"m"})))
    reasons = {s.place: s.reason for s in plan.to_run}
    assert reasons["teacher"] == "base is not on this machine yet"
    assert reasons["floored"] == "teacher runs"
    assert all(s.key is None for s in plan.to_run)


def test_targets_select_steps_gates_and_publishes() -> None:
    """A target builds itself, with its gates and publishes; others are left out."""
    one = planned(example(), Store(), "teacher")
    assert [s.place for s in one.to_run] == ["teacher"]
    assert (one.gates, one.publishes) == ((), ())
    two = planned(example(), Store(), "student")
    assert (len(two.gates), len(two.publishes)) == (1, 1)
    assert [s.place for s in two.to_run][-1] == "scored"


@settings(max_examples=60, deadline=None)
@given(programs(), st.data())
def test_plans_are_sound(made: Program, data: st.DataObject) -> None:
    """Operands stand before users and regions in one stretch; whatever part of the results is lost,
    all that a step reads is there or runs; and after the run nothing is left to do."""
    store = Store()
    for _ in range(2):
        plan = planned(made, store)
        at = {step.node: i for i, step in enumerate(plan.steps)}
        runs = {s.node for s in plan.to_run}
        for step in plan.steps:
            assert all(at[n] < at[step.node] for n in step.node.inputs)
            if step.node in runs:
                for n in step.node.inputs:
                    action = plan.by_node[n].action
                    assert action in ("run", "source", "derived", "cached")
        for region in plan.state.regions:
            places = sorted(at[n] for n in region.nodes if n in runs)
            assert places == list(range(places[0], places[0] + len(places))) if places else True
        store.finish(plan)
        assert planned(made, store).to_run == ()
        for key in (
            data.draw(st.sets(st.sampled_from(sorted(store.records)))) if store.records else ()
        ):
            store.records[key] = replace(store.records[key], present=False)


# ---------------------------------------------------------------- why


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"op": "x"}, "was x"),
        ({"opv": "1"}, "ties is version 2 now, was 1"),
        ({"params": {"a": {"n": "2"}}}, "a 2 -> 1; b none -> true"),
        ({"params": {"a": {"n": "1"}, "b": True, "c": "old"}}, "c old -> none"),
        ({"in": {"base": ["p"], "inputs": ["q"]}}, "base changed"),
        ({"draws": "other"}, "its random draws changed"),
        ({"class": "stochastic"}, "its key changed"),
    ],
)
def test_a_difference_in_words(change: dict[str, object], text: str) -> None:
    """What differs between two keys is told, the most telling part first."""
    now: dict[str, object] = {
        "op": "ties", "opv": "2", "class": "exact", "params": {"a": {"n": "1"}, "b": True},
        "in": {"base": ["o"], "inputs": ["q"]}, "draws": None,
    }  # fmt: skip
    assert difference({**now, **change}, now) == text


def test_every_value_has_words() -> None:
    """Quantities, forms and lists are told as a recipe writes them."""
    old = {
        "params": {
            "x": [{"n": "3", "unit": "tokens"}, {"form": "lora", "args": [["r", {"n": "4"}]]}]
        }
    }
    new = {"params": {"x": {"form": "cosine", "args": []}}}
    assert difference(old, new) == "x [3 tokens, lora(r = 4)] -> cosine"


# ---------------------------------------------------------------- what it takes


def test_estimates_add_up() -> None:
    """Times and disk are sums, memory is the largest; inside a region only the output is
    written."""
    plan = planned(example(), Store())
    by = {s.place: s for s in plan.steps}
    assert by["teacher"].estimate.seconds == 90
    assert by["floored"].estimate.disk_bytes == 0
    assert not by["floored"].stored
    assert by["student"].estimate.disk_bytes == 2 << 20
    assert plan.memory_bytes == 2 << 30
    assert plan.disk_bytes == 4 << 20
    assert 90 < plan.seconds < 91


def test_speed_is_that_of_earlier_steps() -> None:
    """Seconds of cached steps set the speed; without any the given one stays, short steps say
    nothing."""
    start = cpu_speed()
    assert start.flops > 0
    assert calibrated(start, [(Cost(flops=6e12), 2.0), (Cost(flops=2e12), 2.0)]).flops == 2e12
    assert calibrated(start, [(Cost(flops=6e12), 0.5), (Cost(), 9.0)]) == start


def test_known_seconds_change_the_estimate() -> None:
    """A stored training of half the speed doubles what the next is expected to take."""
    store = Store()
    store.finish(planned(example(), store), seconds=180.0)
    plan = planned(example(), store, "spare")
    assert [round(s.estimate.seconds, 3) for s in plan.to_run] == [3.0]
    both = planned(example(), store, "teacher", "spare")
    assert [round(s.estimate.seconds, 3) for s in both.to_run] == [6.0]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (227 << 20, "227 MiB"), (3 << 40, "3 TiB")]
)
def test_bytes_in_words(count: int, text: str) -> None:
    """Sizes have binary units and two or three digits."""
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "< 1 s"), (8, "8 s"), (90, "1.5 min"), (7200, "2 h"), (10 * 86400, "10 d")],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    """Durations have the unit that keeps them short."""
    assert seconds_text(seconds) == text


# ---------------------------------------------------------------- what speaks against it


def codes(plan: Plan) -> list[str]:
    """The codes of the plan's diagnostics."""
    return [d.code for d in plan.diagnostics]


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


# ---------------------------------------------------------------- what is printed


def fixed(plan: Plan) -> Plan:
    """The plan with a free space that does not depend on the machine."""
    return replace(plan, disk_free=100 << 30)


def scenes() -> dict[str, str]:
    """The texts of the golden file by title."""
    store = Store()
    first = planned(example(budget=Budget(wall=7200.0)), store)
    store.finish(first)
    over = planned(example(weight=2, budget=Budget(memory=1)), store)
    return {
        "first": render(fixed(first), passes=True),
        "changed": render(fixed(over)),
        "cached": render(fixed(planned(example(), store))),
    }


def test_the_text_of_a_plan() -> None:
    """`plan.txt` holds a first plan with its passes, one after a change, and one where all is
    cached."""
    text = "".join(f"---- {title}\n{scene}" for title, scene in scenes().items())
    assert text == (GOLDEN / "plan.txt").read_text(encoding="utf-8")


def test_colour_is_only_added() -> None:
    """The coloured text is the plain one with colour codes around lines."""
    import re

    plan = fixed(planned(example(budget=Budget(wall=1)), Store()))
    coloured = render(plan, colour=True)
    assert "\x1b[32m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == render(plan)


def test_the_json_of_a_plan() -> None:
    """The object has the schema and, for each step, what a program needs to know."""
    import json

    made = to_json(planned(example(budget=Budget(wall=1)), Store()))
    again = json.loads(json.dumps(made))
    assert again["schema"] == "recipelang/plan/1"
    student = next(s for s in again["steps"] if s["place"] == "student")
    assert (student["action"], student["stored"], student["inputs"]) == (
        "run",
        True,
        ["floored", "base"],
    )
    assert again["regions"] == [["floored", "student"]]
    assert [d["code"] for d in again["diagnostics"]] == ["E0810"]


def test_names_cannot_steer_the_terminal() -> None:
    """Control characters in a place or a gate are shown, not sent."""
    make = Maker()
    node = make("floor", make("source", uri="a"))
    made = program(make.graph, {"x\x1b[2J": node}, evaluations=(node,))
    assert "\x1b" not in render(planned(made, Store()))


def test_diagnostics_stand_in_the_plan() -> None:
    """What speaks against the run is a line of its own."""
    plan = planned(example(), Store())
    wrong = replace(plan, diagnostics=(Diagnostic("E0811", "error", "no room"),))
    assert "  ! E0811" in render(wrong)
