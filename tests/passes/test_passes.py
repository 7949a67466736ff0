"""Passes: the texts beside this file are what each does, and none changes a result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from recipelang.diagnostics import Source, Span
from recipelang.ir.graph import Graph, Node, walk
from recipelang.ir.text import parse_named, show
from recipelang.lineage.keys import StepIds, draws_of
from recipelang.passes import PIPELINE, GraphState, run_passes, start
from recipelang.passes.fold_constants import folded_measure
from recipelang.program import Arithmetic, GateRoot, Program
from tests.toys import Maker, compute, content, lookup, program, programs

FOLDER = Path(__file__).parent
BY_NAME = {one.name: one for one in PIPELINE}


def cases() -> list[tuple[str, str, str, str, str]]:
    """Pass, title, graph before, graph after, changes, of every text."""
    found: list[tuple[str, str, str, str, str]] = []
    for file in sorted(FOLDER.glob("*.ir")):
        for text in file.read_text(encoding="utf-8").split("====\n"):
            title, _, rest = text.partition("\n")
            before, after, changes = f"{rest}\n".split("----\n")
            found.append((file.stem, title.removeprefix("# "), before, after, changes.strip()))
    return found


def lowered(made: Program) -> GraphState:
    """The state before the first pass, with everything scheduled."""
    ids = StepIds(content, lookup)
    return start(made, made.roots(), ids, everything=True, lookup=lookup)


def shown(state: GraphState) -> str:
    """The scheduled graph with the names of the recipe."""
    return show(state.roots, {node: state.place(node) for node in state.nodes()})


@pytest.mark.parametrize(("name", "title", "before", "after", "changes"), cases())
def test_a_pass_does_what_its_text_says(
    name: str, title: str, before: str, after: str, changes: str
) -> None:
    """Each case of `NAME.ir`: the graph before, the graph after, and what the pass says it did."""
    graph = Graph()
    roots, named = parse_named(before, name, graph)
    state = lowered(program(graph, named, evaluations=roots))
    if name != "drop_dead":
        state = replace(state, roots=state.targets)
    done = BY_NAME[name].apply(state)
    assert shown(done) == after, title
    assert "\n".join(change.text for change in done.changes) == changes


def test_every_rewrite_has_its_text() -> None:
    """A pass that changes the graph or the schedule has cases, except the one tested below."""
    tested = {name for name, *_ in cases()} | {"share_tokenised_data"}
    assert tested == set(BY_NAME)
    assert {one.exactness for one in PIPELINE} <= {"exact", "reassociates"}


def values(state: GraphState) -> list[object]:
    """The exact value of each target, each draw keyed as the lowered step's."""
    draws = {node: state.draws(node) for node in state.nodes()}
    targets = [state.current[node] for node in state.program.roots()]
    return [compute(node, draws) for node in targets]


@settings(max_examples=120, deadline=None)
@given(programs())
def test_passes_keep_every_result(made: Program) -> None:
    """With all passes, and with each one left out, every target has the value of the lowered graph,
    and the graph verifies after each pass."""
    plain = lowered(made)
    ids = StepIds(content, lookup)
    draws = {n: draws_of(n, ids, lookup=lookup) for n in walk(made.roots())}
    expected = [compute(node, draws) for node in made.roots()]
    assert values(plain) == expected
    for skip in (frozenset[str](), *(frozenset({name}) for name in BY_NAME)):
        assert values(run_passes(plain, skip=skip, check=True)) == expected


@settings(max_examples=60, deadline=None)
@given(programs())
def test_passes_keep_step_ids(made: Program) -> None:
    """A node that computes a step afterwards has the step's id, or another's that it computes."""
    state = run_passes(lowered(made))
    before = StepIds(content, lookup)
    for node in state.nodes():
        assert state.step_id(node) == before[state.stands_for[node]]
    assert {state.current[low] for low in made.roots()} <= set(state.nodes())


@settings(max_examples=60, deadline=None)
@given(programs())
def test_regions_are_sound(made: Program) -> None:
    """Regions split the weight operations; what is not an output is no target and is used inside
    alone; and no path leaves a region and comes back."""
    state = run_passes(lowered(made))
    weights = [n for n in state.nodes() if lookup(n.op).kind == "weights"]  # type: ignore[union-attr]
    assert sorted(map(id, weights)) == sorted(id(n) for r in state.regions for n in r.nodes)
    below = {n: set(walk([n])) for n in state.nodes()}
    for region in state.regions:
        inside = set(region.nodes)
        for node in inside - set(region.outputs):
            users = [n for n in state.nodes() if node in n.inputs]
            assert users
            assert inside.issuperset(users)
            assert node not in state.targets
        for outsider in set(state.nodes()) - inside:
            reaches_in = inside & below[outsider]
            assert not (reaches_in and any(outsider in below[n] for n in inside))


def test_tokens_are_shared_by_what_decides_them() -> None:
    """Steps that read one dataset in one tokenizer share the tokens; a part of it has its own."""
    make = Maker()
    base, text = make("source", uri="m"), make("notes", uri="d")
    one, two = make("train", base, text), make("train", base, text, lr=0.2)
    other = make("train", base, make("halve", text))
    bindings = {"base": base, "text": text, "one": one, "two": two, "other": other}
    state = run_passes(lowered(program(make.graph, bindings, evaluations=(one, two, other))))
    users = [[state.place(n) for n in tokens.users] for tokens in state.token_sets]
    assert sorted(users) == [["one", "two"], ["other"]]
    texts = [c.text for c in state.changes if c.name == "share_tokenised_data"]
    assert texts == ["`text` in windows of 128 tokens is tokenised once for `one`, `two`"]


def test_constants_of_gates_are_folded() -> None:
    """Arithmetic on numbers is a number; a measure and a division by zero stay."""
    measure = Maker()("score", Maker()("source", uri="a"))
    product = Arithmetic("*", Arithmetic("+", 1, 2), Arithmetic("/", 3, Arithmetic("-", 4, 2)))
    assert folded_measure(product) == 4.5
    assert folded_measure(Arithmetic("*", product, measure)) == Arithmetic("*", 4.5, measure)
    assert folded_measure(Arithmetic("/", 1, 0)) == Arithmetic("/", 1, 0)


def test_folded_gates_are_told() -> None:
    """The pass keeps the gate's text and says what it folded."""
    make = Maker()
    node: Node = make("score", make("source", uri="a"))
    span = Span(Source("x", ""), 0, 0)
    gate = GateRoot(True, node, "<=", Arithmetic("*", 2, 3), "", "score of a <= 2 * 3", span)
    begin = start(
        program(make.graph, {}), [node], StepIds(content, lookup), gates=(gate,), lookup=lookup
    )
    state = run_passes(begin)
    assert state.gates[0].right == 6
    assert [c.text for c in state.changes] == ["a constant of the gate `score of a <= 2 * 3`"]
