"""The grammar file: free of conflicts, and the hand-written parser reads exactly its language."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import Sink, Source
from recipelang.language.parser import parse
from recipelang.language.tokens import lex
from tests.language import oracle
from tests.language.generator import recipes

EXAMPLE = Path(__file__).with_name("example.recipe").read_text(encoding="utf-8")
BEYOND_GRAMMAR = {"E0115", "E0116", "E0119"}
"""Codes of faults that the grammar cannot say: spelling, depth and version."""


def test_grammar_has_no_conflict() -> None:
    """lark builds the LALR(1) tables in strict mode, which refuses any conflict."""
    assert oracle.grammar().options.strict
    assert oracle.grammar().options.parser == "lalr"


def test_whole_example() -> None:
    """The file that opens the language's definition parses, to the grammar's own tree."""
    sink = Sink()
    source = Source("example.recipe", EXAMPLE)
    file = parse(source, sink)
    assert not sink.diagnostics
    assert len(file.statements) == 19
    assert list(file.statements) == oracle.parse(source)


FORMS = [
    "a = b", "a: List[Model] = [b, c,]", "a = (b)", "a = b.c.d", "a = f(x).y.z", "a = (f)(x)(y)",
    "a = f x", 'a = f "x" at "y"', "a = f on x", "a = f { }", "a = f(x) on y",
    "a = f(x) on y { b = 1 }", "a = f x on y and z with w { b = 1, c = 2, }", "a = b -> f",
    "a = b -> f x on y { c = 1 }",
    "a = b -> f(x = 1) on y -> (g)(2)", "a = f (b -> g)", "a = 1 + 2 * b - c / (d + 1)", "a = -0.3",
    "a = [x for x in xs]", "a = [f(x, y) for x in [1, 2] for y in range(1, 3)]", "a = 4k tokens",
    "a = true", 'a = per { "mlp" = 0.3, "*" = gradient(0, 1) }', "a = f(in = 1, to = 2, 3,)",
    "a = f x { as = 1\n    and = 2 }", "publish (adapter-of m) to \"x\" { overwrite = true }",
    "publish a.b to \"x\"", "publish(a) to \"x\"", "require a of b on c >= 1", 'expect a < b, "no"',
    "budget {\n    wall = 2h\n}", "defaults { }", "language 1", 'use "x" as y', "param a: Int",
    "param a: Float = b", "recipe f() => Model { }",
    "recipe my-f(a: Model, to: Text = \"x\",) => Model {\n"
    "    b = a\n    expect c of b > 1\n    give b -> g\n}",
    "recipe f(a: Model) => Model { give a }",
    "use = 3", "give: Int = 3", "a = f budget on recipe", "a =\n    b\n    -> f", "a = b +\n    c",
    "a = f x\n    on y\n    and z", "a = f m.layers(0, 16) with b.layers(8, 24)",
    'a = m.layers(0, 8)(weight = 0.4) -> f with (g h).layers(0, 8)(scale = per { "x" = 0 })',
]  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_forms(text: str) -> None:
    """Every form of the grammar parses, to the grammar's own tree."""
    sink = Sink()
    source = Source("a.recipe", text)
    assert list(parse(source, sink).statements) == oracle.parse(source)
    assert not sink.diagnostics


@settings(max_examples=120, deadline=None)
@given(recipes())
def test_generated_recipes(text: str) -> None:
    """Generated recipes parse without a fault, to the grammar's own tree."""
    sink = Sink()
    source = Source("a.recipe", text)
    assert list(parse(source, sink).statements) == oracle.parse(source)
    assert not sink.diagnostics


@settings(max_examples=200, deadline=None)
@given(recipes(2), st.integers(0, 2**32))
def test_damaged_recipes(text: str, seed: int) -> None:
    """With tokens deleted, doubled or swapped, the parser accepts just what the grammar does."""
    random = Random(seed)
    texts = [token.text for token in lex(text)]
    for _ in range(random.choice((1, 1, 2))):
        here, there = random.randrange(len(texts)), random.randrange(len(texts))
        match random.randrange(3):
            case 0:
                texts[here] = ""
            case 1:
                texts.insert(here, texts[there])
            case _:
                texts[here], texts[there] = texts[there], texts[here]
    source = Source("a.recipe", "".join(texts))
    sink = Sink()
    file = parse(source, sink)
    expected = oracle.parse(source)
    if not {d.code for d in sink} & BEYOND_GRAMMAR:
        assert list(file.statements) == [s for s in expected if s is not None]
    assert sink.has_errors or None not in expected
