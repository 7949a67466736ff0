"""The lexer: lossless, total, and what each word is where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.language.statements import significant, split
from recipelang.language.tokens import (
    KEYWORDS,
    PREPOSITIONS,
    RESERVED,
    SUFFIXES,
    UNITS,
    lex,
    number_parts,
    unescape,
)

PIECES = (
    *"ab_-=(){}[].,:#\"\\ 019e%k+*/<>→$é\t\n\r\x00\u202e", "->", "=>", "\n", "  ", " = ",
    "with ", "for ", "give ", "recipe ", "language ", "hf_", "\\u{", "tokens", "1e-", "4k ",
)  # fmt: skip


def kinds(text: str) -> list[str]:
    """The kinds of the tokens that are not blank."""
    return [t.kind for t in lex(text) if t.kind not in ("SPACE", "COMMENT")]


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
def test_every_text_is_its_tokens(text: str) -> None:
    """Any text lexes without an exception, and its tokens and statements hold every character."""
    tokens = lex(text)
    assert "".join(token.text for token in tokens) == text
    assert all(text[token.start : token.end] == token.text for token in tokens)
    pieces = split(tokens)
    assert [token for piece in pieces for token in piece.tokens] == tokens
    for piece in pieces:
        offsets = [token.start for token in significant(piece.tokens)]
        assert offsets == sorted(offsets)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f(x)", "NAME CALL NAME RPAREN"),
        ("f (x)", "NAME LPAREN NAME RPAREN"),
        ("(f)(x)", "LPAREN NAME RPAREN CALL NAME RPAREN"),
        ("on(x)", "PREPOSITION LPAREN NAME RPAREN"),
        ("a - b", "NAME MINUS NAME"),
        ("a-b", "NAME"),
        ("a -b", "NAME TIGHT NAME"),
        ("a- b", "NAME TIGHT NAME"),
        ("a*b", "NAME TIGHT NAME"),
        ("a -0.3", "NAME NUMBER"),
        ("a - 0.3", "NAME MINUS NUMBER"),
        ("a->b", "NAME ARROW NAME"),
        ("a → b", "NAME ARROW NAME"),
        ("a => b", "NAME GIVES NAME"),
        ("a <= b == c", "NAME COMPARE NAME COMPARE NAME"),
        ("notes.train", "NAME DOT NAME"),
        ("4k tokens", "NUMBER UNIT"),
        ("4k\ntokens", "NUMBER NEWLINE NAME"),
        ("tokens = 4", "NAME EQUAL NUMBER"),
        ("1 epochs = 4", "NUMBER NAME EQUAL NUMBER"),
        ("to = a", "FIELD EQUAL NAME"),
        ("to: a", "FIELD COLON NAME"),
        ("to == a", "PREPOSITION COMPARE NAME"),
        ("true = false", "FIELD EQUAL BOOL"),
        ("use = budget", "NAME EQUAL NAME"),
        ('"a # b" # c', "STRING"),
        ('"a', "BAD_STRING"),
        ('"\\q"', "BAD_ESCAPE"),
        ("a\r\nb", "NAME NEWLINE NAME"),
        ("myModel", "BAD_NAME"),
        ("List2", "NAME"),
        ("$%&", "ERROR"),
    ],
)
def test_kinds(text: str, expected: str) -> None:
    """Each lexical rule of the language gives the kind that it says."""
    assert " ".join(kinds(text)) == expected


@pytest.mark.parametrize(
    "text", ["12", "1_000", "2.5", "1e-5", "-0.3", "60%", "80GiB", "2h", "1e5k"]
)
def test_numbers(text: str) -> None:
    """A number is one token, its suffix included."""
    assert kinds(text) == ["NUMBER"]
    assert number_parts(text) is not None


@pytest.mark.parametrize("text", ["1__0", "12x", "1.2.3", "3epochs", "5e", "10m", "4K"])
def test_bad_numbers(text: str) -> None:
    """What only looks like a number is one broken token."""
    assert kinds(text) == ["BAD_NUMBER"]


def test_escapes() -> None:
    """The escapes of a string stand for their characters, and others have no value."""
    assert unescape(r'"\" \\ \n \t \u{e9} \u{1f600}"') == '" \\ \n \t é 😀'
    for bad in (r'"\q"', r'"\u{110000}"', r'"\u{d800}"', r'"\u{}"', r'"\ue9"'):
        assert unescape(bad) is None


def _words(text: str) -> list[str]:
    return text.split()


def test_word_table() -> None:
    """The table of words holds those of the language's definition."""
    assert sorted(KEYWORDS) == sorted(
        _words("language use param recipe give require expect publish budget defaults")
    )
    assert sorted(PREPOSITIONS) == sorted(_words("on into with from to of by at over"))
    assert set(_words("as and for in true false")) == RESERVED - PREPOSITIONS
    assert set(UNITS) == set(_words("tokens steps epochs examples gpu gpus tpu tpus cpu cpus"))
    assert set(SUFFIXES) == set(_words("% k M B T KiB MiB GiB TiB KB MB GB TB ms s min h d"))
    assert SUFFIXES["GiB"] == ("bytes", 2**30)
    assert SUFFIXES["min"] == ("seconds", 60)
