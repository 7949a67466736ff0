"""The parser: recovery, spans, limits, and texts that mean harm."""

from __future__ import annotations

import pytest

from recipelang.diagnostics import Sink, Source
from recipelang.language import syntax
from recipelang.language.parser import parse
from recipelang.language.reading import MAX_BYTES


def read(text: str) -> tuple[syntax.File, Sink]:
    """The tree of a text, and what was reported."""
    sink = Sink()
    return parse(Source("a.recipe", text), sink), sink


def test_a_fault_leaves_other_statements_intact() -> None:
    """Five faults give five diagnostics; good statements stay, and lost names are kept."""
    file, sink = read(
        "a = model 'x\nb = = 2\nc = f { lr = }\nd = [1, 2\ne = 3 $ 4\n"
        "good = 1\nfine = f good\nlast = 2\n"
    )
    assert [d.code for d in sink] == ["E0106", "E0102", "E0102", "E0103", "E0106"]
    assert [s.name.text for s in file.statements if isinstance(s, syntax.Binding)] == [
        "good", "fine", "last",
    ]  # fmt: skip
    assert file.broken == ("a", "b", "c", "d", "e")


def test_broken_names_of_every_statement() -> None:
    """The names of broken params, templates, imports and swallowed statements are known."""
    file, sink = read('param p = 1\nrecipe t(a) => Model {\n}\nuse "x" as u v\na = b\n  c = d\n')
    assert sink.has_errors
    assert file.broken == ("p", "t", "v", "a", "c")


def test_spans_cover_what_was_written() -> None:
    """A node's span is its text in the source, without blanks around it."""
    file, _ = read("a = finetune  base on notes { lr = 1e-5 } # why\n")
    binding = file.statements[0]
    assert isinstance(binding, syntax.Binding)
    assert isinstance(binding.value, syntax.Step)
    step = binding.value
    assert step.block is not None

    def text(node: syntax.Step | syntax.Clause | syntax.Field | syntax.Binding) -> str:
        return node.span.source.text[node.span.start : node.span.end]

    assert text(binding) == "a = finetune  base on notes { lr = 1e-5 }"
    assert text(step) == "finetune  base on notes { lr = 1e-5 }"
    assert text(step.clauses[0]) == "on notes"
    assert text(step.block.fields[0]) == "lr = 1e-5"


def test_misplaced_continuations_are_kept() -> None:
    """A continuation in column 1 is an error, and its statement is still there."""
    file, sink = read("a = base\n-> f on b\nbudget {\nwall = 2h\n}\n")
    assert [d.code for d in sink] == ["E0104", "E0104"]
    assert [type(s).__name__ for s in file.statements] == ["Binding", "Setting"]


HOSTILE = {
    "parentheses": ("a = " + "(" * 10_000 + "b" + ")" * 10_000, {"E0116"}),
    "open parentheses": ("a = " + "(" * 50_000, {"E0116"}),
    "closing brackets": ("(" * 20_000 + "\n" + "]\n" * 20_000, {"E0116"}),
    "types": ("param a: " + "List[" * 5_000 + "A" + "]" * 5_000, {"E0116"}),
    "sum": ("a = " + " + ".join("b" * 5_000), {"E0116"}),
    "calls": ("a = f" + "()" * 5_000, {"E0116"}),
    "members": ("a = (f)" + ".b" * 5_000, {"E0116"}),
    "nul": ("\0" * 50_000, {"E0117"}),
    "reversal": ("a = b # \u202e", {"E0117"}),
    "reversal in a string": ('a = "\u2066"', {"E0117"}),
    "lone surrogate": ("a = \ud800", {"E0117"}),
    "long line": ("a" * 10_000_000, {"E0118"}),
    "long name": ("a = " + "b" * 1_000_000, set[str]()),
    "many operands": ("a = f b with " + " and ".join(["c(d = 1)"] * 2_000), set[str]()),
    "long number": ("a = " + "1_" * 100_000, {"E0110"}),
    "hyphens": ("a = " + "b-" * 100_000, {"E0108"}),
    "backslashes": ('a = "' + "\\" * 100_000, {"E0107"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts(name: str) -> None:
    """A text made to break the parser yields its code and no exception."""
    text, codes = HOSTILE[name]
    _, sink = read(text)
    assert {d.code for d in sink} == codes


def test_depth_that_parses_can_be_walked() -> None:
    """The deepest tree that is accepted has at most 150 levels, sums and brackets together."""
    deep = "b"
    for _ in range(36):
        deep = f"({deep} + c)"
    assert not read(f"a = {deep}\n")[1].has_errors
    assert [d.code for d in read(f"a = {'(' * 30}b{' + c + d + e + f)' * 30}\n")[1]] == ["E0116"]


def test_largest_text() -> None:
    """The limit is on the whole text, and one below it is read."""
    assert not read("#" * MAX_BYTES)[1].has_errors
    assert read("#" * (MAX_BYTES + 1))[1].has_errors
