"""Statements: a file is cut at column 1, and each statement is read alone.

A token in column 1 starts a statement unless it can only continue one: ``->``, a preposition or
``and``, a closing bracket. So a fault in one statement leaves the others intact. Inside a statement
a newline separates fields and the statements of a template; everywhere else it means nothing.

Example:
    >>> from recipelang.language.tokens import lex
    >>> [len(statement.tokens) for statement in split(lex("a = b\\n    -> f\\nc = d\\n"))]
    [11, 6]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from recipelang.language.tokens import KEYWORDS, TRIVIA, Token

__all__ = ["CLOSERS", "MAX_NESTING", "OPENERS", "Statement", "significant", "split"]

OPENERS: Final = {"LPAREN": "RPAREN", "CALL": "RPAREN", "LSQUARE": "RSQUARE", "LBRACE": "RBRACE"}
"""The kind that closes each opening bracket."""
CLOSERS: Final = frozenset(OPENERS.values())

MAX_NESTING: Final = 40
"""Brackets inside brackets that a statement may have; deeper ones are a fault, not a crash."""

_BLANK: Final = TRIVIA | {"NEWLINE"}
_CONTINUES: Final = frozenset({"ARROW", "PREPOSITION", "AND"})
"""Kinds that continue a statement even in column 1, where they are misplaced."""
_AFTER: Final = frozenset(
    {"EQUAL", "COMMA", "LBRACE", "NEWLINE", "PLUS", "MINUS", "STAR", "SLASH", "COMPARE"}
)
"""Kinds behind which a newline means nothing."""
_BEFORE: Final = _CONTINUES | CLOSERS
"""Kinds before which a newline means nothing."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The tokens of one statement, blank ones too, and those in column 1 that only continue it."""

    tokens: list[Token]
    misplaced: tuple[Token, ...]


def split(tokens: list[Token]) -> list[Statement]:
    """Cut a file's tokens into statements; every token is in exactly one."""
    inside = _unindented_contents(tokens)
    statements: list[Statement] = []
    current: list[Token] = []
    misplaced: list[Token] = []
    started, column_one = False, True
    for place, token in enumerate(tokens):
        kind = token.kind
        if kind in _BLANK:
            column_one = kind == "NEWLINE"
            current.append(token)
            continue
        if column_one and started and kind not in CLOSERS:
            if kind in _CONTINUES or place in inside:
                misplaced.append(token)
            else:
                statements.append(Statement(current, tuple(misplaced)))
                current, misplaced = [], []
        column_one, started = False, True
        current.append(token)
    if current:
        statements.append(Statement(current, tuple(misplaced)))
    return statements


def _unindented_contents(tokens: list[Token]) -> frozenset[int]:
    """Tokens in column 1 that stand inside a bracket which a later line closes in column 1.

    ``budget {`` newline ``wall = 2h`` newline ``}``: the field is a continuation that is not
    indented, and no statement. A bracket that is never closed captures nothing.
    """
    stack: list[tuple[str, list[int]]] = []
    captured: list[int] = []
    column_one = True
    for place, token in enumerate(tokens):
        kind = token.kind
        if kind in _BLANK:
            column_one = kind == "NEWLINE"
            continue
        if kind in CLOSERS:
            depth = len(stack) - 1
            lowest = max(0, depth - MAX_NESTING)  # bounds the search in hostile text
            while depth >= lowest and stack[depth][0] != kind:
                depth -= 1
            if depth >= lowest:
                if column_one:
                    captured += stack[depth][1]
                del stack[depth:]
        elif column_one and stack:
            stack[-1][1].append(place)
        if kind in OPENERS:
            stack.append((OPENERS[kind], []))
        column_one = False
    return frozenset(captured)


def significant(tokens: list[Token]) -> list[Token]:
    """The tokens that the grammar sees: no trivia, no newline without meaning, keywords named.

    A keyword has its own kind only where a statement starts.
    """
    kept: list[Token] = []
    brackets: list[str] = []
    previous = "NEWLINE"
    solid = list(_solid(tokens))
    for place, (token, newline) in enumerate(solid):
        kind = token.kind
        starts = not kept
        if newline is not None and kept:
            inner = brackets[-1] if brackets else ""
            if inner in ("", "LBRACE") and previous not in _AFTER and kind not in _BEFORE:
                kept.append(newline)
                previous = "NEWLINE"
            starts = len(brackets) == 1 and kept[0].kind == "RECIPE"
        elif previous == "LBRACE" and len(brackets) == 1 and kept[0].kind == "RECIPE":
            starts = True
        if kind in OPENERS:
            brackets.append(kind)
            if kind == "CALL" and previous in _KEYWORD_KINDS:
                token = token._replace(kind="LPAREN")
        elif kind in CLOSERS and brackets:
            brackets.pop()
        elif kind == "NAME" and starts and previous in ("NEWLINE", "LBRACE"):
            token = _as_keyword(token, solid[place + 1][0] if place + 1 < len(solid) else None)
        kept.append(token)
        previous = token.kind
    return kept


def _solid(tokens: list[Token]) -> Iterator[tuple[Token, Token | None]]:
    """Each token with a meaning, and the first newline before it, if any."""
    newline: Token | None = None
    for token in tokens:
        if token.kind == "NEWLINE":
            newline = newline or token
        elif token.kind not in TRIVIA:
            yield token, newline
            newline = None


_KEYWORD_KINDS: Final = frozenset(word.upper() for word in KEYWORDS)


def _as_keyword(token: Token, following: Token | None) -> Token:
    """A statement keyword by its own kind, unless it names a value (before ``=`` or ``:``)."""
    named = following is not None and following.kind in ("EQUAL", "COLON")
    if named or token.text not in KEYWORDS:
        return token
    return token._replace(kind=token.text.upper())
