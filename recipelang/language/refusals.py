"""Syntax faults that are not a token the parser stopped at: layout, depth and the version.

Example:
    A second line in column 1 that begins with ``->`` is `misplaced`: it continues the statement
    above and must be indented (E0104).
"""

from __future__ import annotations

from recipelang.diagnostics import Diagnostic, Fix, Label, Source, Span
from recipelang.language.tokens import Token

__all__ = ["indented", "misplaced", "too_deep", "wrong_version"]


def _at(
    code: str, source: Source, token: Token, message: str, help: str, *fixes: Fix
) -> Diagnostic:
    label = Label(Span(source, token.start, token.end))
    return Diagnostic(code, "error", message, label, (), (), help, fixes)


def misplaced(source: Source, tokens: tuple[Token, ...]) -> Diagnostic:
    """Tokens in column 1 that continue the statement above them; one error, at the first."""
    edits = tuple((Span(source, token.start, token.start), "    ") for token in tokens)
    message = f"`{tokens[0].text}` continues the statement above and must be indented"
    help = "indent the lines of a statement after its first by four spaces"
    return _at("E0104", source, tokens[0], message, help, Fix("indent the lines", edits, safe=True))


def indented(source: Source, token: Token) -> Diagnostic:
    """A file's first statement, when it does not start in column 1."""
    message = f"the statement `{token.text} ...` is indented"
    return _at("E0104", source, token, message, "start it in column 1")


def too_deep(source: Source, token: Token) -> Diagnostic:
    """Brackets or operators nested beyond the limit."""
    help = "give parts of it names of their own"
    return _at("E0116", source, token, "this is nested too deeply", help)


def wrong_version(source: Source, token: Token) -> Diagnostic:
    """``language 2``."""
    message = f"this program reads language 1, found `{token.text}`"
    help = "write `language 1`, or install a newer recipelang"
    return _at("E0119", source, token, message, help)
