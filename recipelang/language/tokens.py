"""The lexer: one regular expression that keeps every character and never raises.

White space, comments and broken pieces are tokens too, so joining the texts gives the source back.
What a word is depends on where it stands: a unit only behind a number, a reserved word before ``=``
or ``:`` is the name of a field. Statement keywords are plain names here; `statements.py` knows
where a statement starts.

Example:
    >>> [token.kind for token in lex("a = 4k tokens") if token.kind != "SPACE"]
    ['NAME', 'EQUAL', 'NUMBER', 'UNIT']
"""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from typing import Any, Final, NamedTuple

from recipelang._resources import grammar_file

__all__ = [
    "ESCAPE", "FAULTY", "KEYWORDS", "PREPOSITIONS", "RESERVED", "SUFFIXES", "TRIVIA", "UNITS",
    "Token", "escaped", "lex", "number_parts", "unescape",
]  # fmt: skip


def _table() -> dict[str, Any]:
    with grammar_file("tokens.toml").open("rb") as file:
        return tomllib.load(file)


_TABLE: Final = _table()
KEYWORDS: Final = frozenset[str](_TABLE["statements"])
"""Words that begin a statement, unless ``=`` or ``:`` follows."""
PREPOSITIONS: Final = frozenset[str](_TABLE["prepositions"])
RESERVED: Final = PREPOSITIONS | frozenset[str](_TABLE["reserved"])
"""Words that cannot name a value."""
UNITS: Final[dict[str, str]] = dict(_TABLE["units"])
"""The unit that each unit word stands for: ``gpus`` is ``gpu``."""
SUFFIXES: Final[dict[str, tuple[str, Decimal]]] = {
    text: (row["unit"], Decimal(row["scale"])) for text, row in _TABLE["suffixes"].items()
}
"""What each suffix counts (``count fraction bytes seconds``), and its scale."""


class Token(NamedTuple):
    """A piece of the source: kind, text, and the half-open range of code points it covers."""

    kind: str
    text: str
    start: int
    end: int


TRIVIA: Final = frozenset({"SPACE", "COMMENT"})
"""Kinds without meaning. A NEWLINE has one in some places; see ``statements.significant``."""

FAULTY: Final = frozenset({"BAD_NAME", "BAD_NUMBER", "BAD_STRING", "BAD_ESCAPE", "TIGHT", "ERROR"})
"""Kinds that are a fault by themselves, each explained by ``explain.lexical``."""

_PATTERN: Final = re.compile(
    r"""
      (?P<SPACE>[ \t]+)
    | (?P<NEWLINE>\r?\n)
    | (?P<COMMENT>\#[^\r\n]*)
    | (?P<STRING>"[^"\\\r\n]*(?:\\[^\r\n][^"\\\r\n]*)*")
    | (?P<BAD_STRING>"[^\r\n]*)
    | (?P<ARROW>->|→)
    | (?P<GIVES>=>)
    | (?P<COMPARE><=|>=|==|<|>)
    | (?P<NUMBER>-?[0-9]+(?:_[0-9]+)*(?:\.[0-9]+(?:_[0-9]+)*)?(?:e[+-]?[0-9]+)?
        (?:%|(?![\w%]|\.[0-9])))
    | (?P<SUFFIXED>-?[0-9](?:e[+-][0-9]|[\w]|\.[0-9])*%?)
    | (?P<NAME>[a-z_][a-z0-9_]*(?:-[a-z0-9_]+)*(?![\w-])|[A-Z][A-Za-z0-9]*(?![\w-]))
    | (?P<ODD_NAME>[^\W\d]\w*(?:-\w+)*)
    | (?P<MARK>[=:,.\[\](){}])
    | (?P<OPERATOR>[-+*/])
    | (?P<ERROR>[^\s\w"\#=:,.\[\](){}<>+*/→-]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)

_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*(?:-[a-z0-9_]+)*|[A-Z][A-Za-z0-9]*")
_NUMBER: Final = re.compile(
    r"(-?[0-9]+(?:_[0-9]+)*(?:\.[0-9]+(?:_[0-9]+)*)?(?:e[+-]?[0-9]+)?)([^\W\d_]*|%)"
)

_MARKS: Final = {
    "=": "EQUAL", ":": "COLON", ",": "COMMA", ".": "DOT", "[": "LSQUARE", "]": "RSQUARE",
    "(": "LPAREN", ")": "RPAREN", "{": "LBRACE", "}": "RBRACE",
}  # fmt: skip
_OPERATORS: Final = {"+": "PLUS", "-": "MINUS", "*": "STAR", "/": "SLASH"}
_SPACES: Final = " \t\r\n"


_WORDS: Final = {
    word: "PREPOSITION" if word in PREPOSITIONS else word.upper() for word in RESERVED
} | {"true": "BOOL", "false": "BOOL"}
_FIELD_WORDS: Final = frozenset(_WORDS.values()) | {"UNIT"}


def number_parts(text: str) -> tuple[str, str] | None:
    """A number as digits and suffix (``4k`` → ``("4", "k")``), or None when that is not one.

    >>> number_parts("-1_000.5%"), number_parts("3x")
    (('-1_000.5', '%'), None)
    """
    found = _NUMBER.fullmatch(text)
    if not found or (found[2] and found[2] not in SUFFIXES):
        return None
    return found[1], found[2]


ESCAPE: Final = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|(.))")
"""A backslash and what follows it: the digits of ``\\u{...}``, or one character."""


def escaped(escape: re.Match[str]) -> str | None:
    """What a match of ``ESCAPE`` stands for, or None when it is no escape of the language."""
    if escape[1]:
        point = int(escape[1], 16)
        return chr(point) if point < 0x110000 and not 0xD800 <= point < 0xE000 else None
    return {'"': '"', "\\": "\\", "n": "\n", "t": "\t"}.get(escape[2])


def unescape(text: str) -> str | None:
    """The value of a string literal with its quotes, or None when it holds a bad escape.

    >>> unescape('"caf\\\\u{e9}"'), unescape('"C:\\\\data"')
    ('café', None)
    """
    if any(escaped(match) is None for match in ESCAPE.finditer(text)):
        return None
    return ESCAPE.sub(lambda match: escaped(match) or "", text[1:-1])


def lex(text: str) -> list[Token]:
    """All tokens of a text; ``"".join(token.text for token in lex(text)) == text``."""
    tokens: list[Token] = []
    add = tokens.append
    before = ""  # the kind of the last token that is neither a space nor a comment
    for match in _PATTERN.finditer(text):
        kind = match.lastgroup or "ERROR"
        start, end = match.span()
        piece = text[start:end]
        if kind == "SPACE" or kind == "COMMENT":
            add(Token(kind, piece, start, end))
            continue
        if kind == "NAME":
            kind = _WORDS.get(piece, "NAME")
            if before == "NUMBER" and piece in UNITS:
                kind = "UNIT"
        elif kind == "MARK":
            kind = _mark(piece, tokens, before)
        elif kind == "STRING":
            if "\\" in piece and unescape(piece) is None:
                kind = "BAD_ESCAPE"
        elif kind == "OPERATOR":
            spaced = (start == 0 or text[start - 1] in _SPACES) and text[end : end + 1] in _SPACES
            kind = _OPERATORS[piece] if spaced else "TIGHT"
        elif kind == "SUFFIXED":
            kind = "NUMBER" if number_parts(piece) else "BAD_NUMBER"
        elif kind == "ODD_NAME":
            kind = "NAME" if _PLAIN_NAME.fullmatch(piece) else "BAD_NAME"
            kind = _WORDS.get(piece, kind)
        add(Token(kind, piece, start, end))
        before = kind
    return tokens


def _mark(piece: str, tokens: list[Token], before: str) -> str:
    """The kind of a punctuation mark; ``=`` and ``:`` also turn the word before them."""
    kind = _MARKS[piece]
    if kind == "LPAREN":
        touching = tokens[-1].kind if tokens else ""
        return "CALL" if touching in ("NAME", "RPAREN") else kind
    if kind in ("EQUAL", "COLON") and before in _FIELD_WORDS:
        place = len(tokens) - 1
        while tokens[place].kind != before:
            place -= 1
        field = "NAME" if before == "UNIT" else "FIELD"
        tokens[place] = tokens[place]._replace(kind=field)
    return kind
