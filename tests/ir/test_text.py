"""The graph's text: it says everything, and parses to a graph that prints the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.ir.graph import Graph, walk
from recipelang.ir.text import parse, show
from recipelang.ir.type_text import count_text, parse_type, show_type
from recipelang.program import Program
from recipelang.values import Attr, Form, Quantity
from tests.toys import Maker, programs

TEXT = """\
%0 = model@1 {uri = "a"} : Model<llama 113.3M bf16>
%1 = model@1 {uri = "b\\"\\n"} : Model<llama 113.3M bf16>
%student = ties-merge@2 inputs(%0, %1) base(%0) {density = [0.5, 60 tokens], normalize = true} \
hints {micro_batch = none} : Model<llama 113.3M bf16>
%3 = finetune@1 model(%student) {adapter = lora(rank = 16, targets = ["q", "k"]), weight = per \
{ "mlp" = gradient(0, 1), "*" = 0.5 }} : ?
give %3, %0
"""


def test_a_text_parses_and_prints_the_same() -> None:
    """Every form of value, names, hints, types and several roots survive."""
    roots = parse(TEXT)
    named = {node: "student" for node in walk(roots) if node.op == "ties-merge"}
    assert show(roots, named) == TEXT


def test_comments_and_blank_lines_count_nothing() -> None:
    """A comment may stand alone or behind an operation."""
    text = '# a graph\n\n%0 = model@1 {uri = "#"} : Model # here\ngive %0\n'
    assert show(parse(text)) == '%0 = model@1 {uri = "#"} : Model\ngive %0\n'


def test_equal_lines_are_one_node() -> None:
    """Parsing shares equal steps, as building does."""
    one, two = parse("%0 = a@1 : ?\n%1 = a@1 : ?\ngive %0, %1")
    assert one is two


@settings(max_examples=60, deadline=None)
@given(programs())
def test_programs_survive_the_text(program: Program) -> None:
    """Printed, parsed and printed again, a random graph has the same text."""
    text = show(program.roots())
    assert show(parse(text)) == text


NAMES = st.text("abcxyz-_", min_size=1).map(lambda name: f"k{name}")


def table(inner: st.SearchStrategy[Attr]) -> st.SearchStrategy[tuple[tuple[str, Attr], ...]]:
    return st.lists(st.tuples(st.text(), inner), min_size=1, max_size=2).map(tuple)


ATTRS: st.SearchStrategy[Attr] = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**9), 10**9),
        st.floats(-1e15, 1e15),
        st.text(), st.builds(Quantity, st.integers(0, 10**6), st.sampled_from(["tokens", "bytes"])),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Form, NAMES, st.lists(st.tuples(NAMES, inner), max_size=2).map(tuple)),
        st.builds(Form, st.just("per"), table(inner)),
    ),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(ATTRS)
def test_every_constant_survives(value: Attr) -> None:
    """Any constant prints and parses to an equal one."""
    graph = Graph()
    node = graph.node("x", 1, {}, {"value": value})
    assert parse(show([node]), graph=graph) == (node,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("%0 = a@1\n%1 = b@1 x(%7)", "line 2 of the graph: `%7` is not defined above this line"),
        ("%0 = a@1\n%0 = b@1", "line 2 of the graph: `%0` is defined twice"),
        ("\n\n%0 = a", "line 3 of the graph: expected `@`, found the end"),
        ("%0 = a@1 {x = }", "line 1 of the graph: expected a value, found `}`"),
        ('%0 = a@1 {x = "open}', 'line 1 of the graph: cannot read `"open}`'),
        ("%0 = a@1 : Modell", "line 1 of the graph: there is no type `Modell`"),
        ("give", "line 1 of the graph: expected a result such as `%0`, found the end"),
        ("%0 = a@1 ] x", "line 1 of the graph: expected the end of the line, found `]`"),
    ],
)
def test_a_fault_names_its_line(text: str, message: str) -> None:
    """What cannot be read is E0902 with the line and what was expected."""
    with pytest.raises(RecipeError) as caught:
        parse(text)
    assert [(d.code, d.message) for d in caught.value.diagnostics] == [("E0902", message)]


@pytest.mark.parametrize(
    "text",
    ["Model", "Model<llama 113.3M bf16>", "Delta<llama 2B>", "Dataset<chat 120 rows 128 tokens>",
     "Layers<8 layers llama 2B bf16>", "Layers<llama 2B bf16>", "Layers<3 layers>", "Layers",
     "Split",
     "Dataset<9 rows>", "Tokenizer<0123456789ab>", "Measured<max>", "Table", "List[Model<qwen3>]",
     "List",
     "Float", "Adapter", "?"],
)  # fmt: skip
def test_types_survive(text: str) -> None:
    """The short text of a type parses to a type with that text."""
    assert show_type(parse_type(text)) == text


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999"), (1500, "1.5k"), (10**9, "1B"), (113_345_678, "113.3M")]
)
def test_counts_are_short(count: int, text: str) -> None:
    """Counts have a suffix and at most one decimal."""
    assert count_text(count) == text


def test_names_that_are_no_names_are_numbers() -> None:
    """A place that the text could not read, or that is taken, gets a number."""
    make = Maker()
    a, b = make("source", uri="a"), make("source", uri="b")
    assert "%0 = " in show([a, b], {a: "a b", b: "x"})
    assert "%1 = " in show([a, b], {a: "x", b: "x"})
