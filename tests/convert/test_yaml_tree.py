"""The strict reader of YAML: what it refuses, where, and that it never expands without bounds."""

from __future__ import annotations

import time

import pytest

from recipelang.convert.yaml_tree import (
    MAX_DEPTH,
    Item,
    Mapping,
    Scalar,
    Sequence,
    read_documents,
)
from recipelang.diagnostics import Diagnostic, Sink, Source


def read(text: str) -> list[object]:
    """The documents as plain values; texts keep their spelling."""
    sink = Sink()
    documents = read_documents(Source("a.yml", text), sink)
    assert documents is not None, list(sink)
    return [plain(document) for document in documents]


def plain(item: Item) -> object:
    """Without places."""
    if isinstance(item, Scalar):
        return item.text if item.kind != "null" else None
    if isinstance(item, Sequence):
        return [plain(child) for child in item.items]
    return {key.text: plain(value) for key, value in item.entries}


def refused(text: str) -> Diagnostic:
    """The one fault."""
    sink = Sink()
    assert read_documents(Source("a.yml", text), sink) is None
    (error,) = sink
    assert error.code == "E0740"
    return error


def test_documents() -> None:
    """Several documents, comments, block and flow style, null and empty values."""
    assert read("# c\na: [1, x]\nb:\n- {c: ~}\n- d:\n---\n2024-01-01\n") == [
        {"a": ["1", "x"], "b": [{"c": None}, {"d": None}]},
        "2024-01-01",
    ]
    assert read("") == []
    assert read("---\n---\na: 1\n---\n") == [{"a": "1"}]


def test_kinds() -> None:
    """What YAML 1.1 takes plain values for; quotes make a text of anything."""
    sink = Sink()
    (document,) = read_documents(Source("a.yml", "[1, 1.5, 1e-5, yes, '1', x]"), sink) or ()
    assert isinstance(document, Sequence)
    kinds = [item.kind for item in document.items if isinstance(item, Scalar)]
    assert kinds == ["int", "float", "text", "bool", "text", "text"]


def test_aliases_and_merge_keys() -> None:
    """They are expanded; own keys win over those that are brought in, earlier ones over later."""
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{x: 4}, *a]}\n"
    assert read(text)[0] == {
        "a": {"x": "1", "y": "2"},
        "b": {"y": "3", "x": "1"},
        "c": {"x": "4", "y": "2"},
    }


def test_places() -> None:
    """Spans are those of the value as written, in code points."""
    source = Source("a.yml", "ä: 'x'\nb:\n  - é\n\n")
    (document,) = read_documents(source, Sink()) or ()
    assert isinstance(document, Mapping)
    texts = [source.text[v.span.start : v.span.end] for _, v in document.entries]
    assert texts == ["'x'", "- é"]


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("a: [1\nb: 2\n", "cannot be read", 7),
        ("a:\n\t- b\n", "cannot be read", 3),
        ("a: 1\nb: 2\na: 3\n", "`a` stands twice", 10),
        ("a: !!python/object/apply:os.system [ls]\n", "is not allowed", 3),
        ("a: !!set {x}\n", "is not allowed", 3),
        ("a: !mine x\n", "is not allowed", 3),
        ("a: *b\n", "undefined alias", 3),
        ("a: &a [*a]\n", "inside what it names", 3),
        ("? [x]\n: y\n", "a key is a plain text", 2),
        ("a: {<<: 3}\n", "brings in mappings only", 8),
        ("a: \x07\n", "cannot be read", 3),
        ("%YAML 9\n---\na\n", "cannot be read", 7),
    ],
)
def test_refused(text: str, words: str, place: int) -> None:
    """Each with its reason and its place."""
    error = refused(text)
    assert words in error.message
    assert error.primary is not None
    assert error.primary.span.start == place


def test_bounds() -> None:
    """Depth, aliases that multiply, and size are bounded, and found in no time."""
    started = time.monotonic()
    assert "nest too deeply" in refused("[" * 50_000).message
    assert "nest too deeply" in refused("- " * 50_000 + "x").message
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    row = "\n".join(f"{c}: &{c} [{', '.join(f'*{chr(ord(c) - 1)}' for _ in range(9))}]"
                    for c in "bcdefghi")  # fmt: skip
    assert "multiply" in refused(f"a: &a [x]\n{row}\n").message
    assert "larger than 256 KiB" in refused("# " + "x" * (1 << 18)).message
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("text", "help"),
    [
        (" a: 1\nb: 2\n", "start in one column"),
        ("a: x\n  - b: 1\n", "below the key"),
        ("a:\n  - b\n c: 1\n", "start in one column"),
        ("a:\n - b: 1\n   c\n - d\n", "a `:` behind the key"),
        ("a:\tb\n\tc: 1\n", "spaces for the tab"),
        ("a: @b\n", "quote the text"),
    ],
)
def test_remedies(text: str, help: str) -> None:
    """The parser's words say what it met; the help says what to do."""
    assert help in refused(text).help


def test_names() -> None:
    """An item knows whether an alias refers to it."""
    sink = Sink()
    (document,) = read_documents(Source("a.yml", "a: &x {b: 1}\nc: &y 2\nd: *x\n"), sink) or ()
    assert isinstance(document, Mapping)
    assert [value.named for _, value in document.entries] == [True, False, True]
