"""Plans: what runs, in which order, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.plan.reasons import difference
from recipelang.program import Program
from tests.plan.toy import Store, actions, example, planned
from tests.toys import Maker, program, programs


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
    """Operands stand before users that are not cached, and regions in one stretch; whatever part of
    the results is lost, all that a step reads is there or runs; and after the run nothing is left
    to do."""
    store = Store()
    for _ in range(2):
        plan = planned(made, store)
        at = {step.node: i for i, step in enumerate(plan.steps)}
        runs = {s.node for s in plan.to_run}
        for step in plan.steps:
            if step.action != "cached":  # that may lie inside a region that runs
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
