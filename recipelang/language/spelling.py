"""Faults inside one token, in words: characters, strings, numbers, names and operators.

Example:
    ``3 -x`` has a ``TIGHT`` token; `lexical` says that an operator has a space on both sides, and
    offers the edit.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from recipelang.diagnostics import Diagnostic, Fix, Label, Source, Span
from recipelang.language.reading import is_hidden
from recipelang.language.suggest import nearest
from recipelang.language.tokens import ESCAPE, FAULTY, SUFFIXES, UNITS, Token, escaped

__all__ = ["lexical"]

_INSTEAD: Final = {
    "'": 'a string stands in double quotes: `"text"`',
    "“": 'a string stands in straight quotes: `"text"`',
    "”": 'a string stands in straight quotes: `"text"`',
    "‘": 'a string stands in straight double quotes: `"text"`',
    "’": 'a string stands in straight double quotes: `"text"`',
    ";": "a new line ends a statement",
    "!": "a gate compares with one of `<=` `>=` `<` `>` `==`",
    "|": "a chain is written with `->`",
    "–": "write the ASCII sign `-`",
    "—": "write the ASCII sign `-`",
    "−": "write the ASCII sign `-`",
    "×": "write `*`",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "%": "`%` touches its number: `60%`",
    "\\": "a line needs no `\\` to go on: indent the next one",
}
_SUFFIX_ALIASES: Final = {
    "K": "k", "m": "min", "sec": "s", "hr": "h", "hrs": "h", "hours": "h", "mins": "min",
    "days": "d", "b": "B", "G": "GB", "Gi": "GiB", "Mi": "MiB", "Ki": "KiB", "g": "GB", "t": "T",
    "kB": "KB",
}  # fmt: skip


def lexical(source: Source, tokens: list[Token]) -> list[Diagnostic]:
    """One diagnostic for each broken token; wrong quotes around a text are one fault."""
    broken = [token for token in tokens if token.kind in FAULTY]
    found: list[Diagnostic] = []
    end = -1
    for token in broken:  # `//` is one fault
        if token.kind != "TIGHT" or token.start != end:
            found.append(_explain(source, token))
        end = token.end if token.kind == "TIGHT" else -1
    quotes = [d for d in found if d.code == "E0106" and d.help.startswith("a string")]
    return [d for d in found if d not in quotes[1:]]


def _explain(source: Source, token: Token) -> Diagnostic:
    match token.kind:
        case "BAD_STRING":
            return _string(source, token)
        case "BAD_ESCAPE":
            return _escape(source, token)
        case "BAD_NUMBER":
            return _number(source, token)
        case "BAD_NAME":
            return _name(source, token)
        case "TIGHT":
            return _operator(source, token)
        case _:
            return _character(source, token)


def _error(
    code: str, message: str, span: Span, label: str, help: str, fixes: tuple[Fix, ...] = ()
) -> Diagnostic:
    return Diagnostic(code, "error", message, Label(span, label), (), (), help, fixes)


def _character(source: Source, token: Token) -> Diagnostic:
    sign = token.text[0]
    printable = sign.isprintable() and not sign.isspace()
    name = unicodedata.name(sign, "a control character").lower()
    shown = f"`{sign}`" if printable and sign.isascii() else f"U+{ord(sign):04X} ({name})"
    if printable and not sign.isascii():
        shown = f"`{sign}`, {shown}"
    help = _INSTEAD.get(sign, "delete it, or put it inside a string or a comment")
    span = Span(source, token.start, token.start + 1)
    # A hidden character has its own error at this place, which this one must not repeat.
    code = "E0117" if is_hidden(sign) else "E0106"
    return _error(code, f"unexpected character {shown}", span, "not part of the language", help)


def _string(source: Source, token: Token) -> Diagnostic:
    return _error(
        "E0107",
        "this string is not closed on its line",
        Span(source, token.start, token.start + 1),
        "opened here",
        'close it with `"`; a line break inside is written `\\n`, a quote `\\"`',
    )


def _escape(source: Source, token: Token) -> Diagnostic:
    bad = next(m for m in ESCAPE.finditer(token.text) if escaped(m) is None)
    start = token.start + bad.start()
    if bad[1]:
        message, help = f"`{bad[0]}` is no character", "a code point is at most `\\u{10ffff}`"
    elif bad[2] == "u":
        message, help = "`\\u` needs braces", "write the code point as in `\\u{e9}`"
    else:
        message = f"unknown escape `{bad[0]}`"
        help = 'the escapes are `\\"` `\\\\` `\\n` `\\t` `\\u{…}`; a backslash is `\\\\`'
    return _error("E0114", message, Span(source, start, start + len(bad[0])), "", help)


def _number(source: Source, token: Token) -> Diagnostic:
    digits = re.match(r"-?[0-9](?:_?[0-9])*(?:\.[0-9](?:_?[0-9])*)?(?:e[+-]?[0-9]+)?", token.text)
    kept = digits.end() if digits else 0
    suffix = token.text[kept:]
    span = Span(source, token.start + kept, token.end)
    if not suffix[0].isalpha():
        whole = Span(source, token.start, token.end)
        help = "write digits with one `.` and single `_` between them: `1_000.5`"
        return _error("E0110", f"`{token.text}` is not a number", whole, "", help)
    head, word = next(
        ((s, suffix[len(s) :]) for s in ("", "k", "M", "B") if suffix[len(s) :] in UNITS),
        ("", ""),
    )
    if suffix.startswith(head) and word:
        edit = f"{token.text[:kept]}{head} {word}"
        fix = Fix("put a space before the unit", ((Span(source, token.start, token.end), edit),))
        help = f"write `{edit}`"
        return _error("E0110", f"the unit `{word}` follows after a space", span, "", help, (fix,))
    guess = _SUFFIX_ALIASES.get(suffix) or nearest(suffix, SUFFIXES)
    shown = " ".join(f"`{s}`" for s in SUFFIXES)
    help = f"write `{token.text[:kept]}{guess}`" if guess else f"the suffixes are {shown}"
    message = f"`{suffix}` is not a suffix of a number"
    return _error("E0110", message, span, "unknown suffix", help)


def _name(source: Source, token: Token) -> Diagnostic:
    span = Span(source, token.start, token.end)
    if not token.text.isascii():
        place = next(i for i, c in enumerate(token.text) if not c.isascii())
        sign = token.text[place]
        name = unicodedata.name(sign, "unnamed").lower()
        at = Span(source, token.start + place, token.start + place + 1)
        message = f"a name holds the letters `a` to `z` only, found `{sign}` ({name})"
        return _error("E0115", message, at, f"in `{token.text}`", "spell the name without it")
    better = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", token.text).lower()
    message = f"`{token.text}` mixes upper and lower case"
    help = f"values and verbs are lower case, types are `CamelCase`: write `{better}`"
    return _error("E0115", message, span, "", help)


def _operator(source: Source, token: Token) -> Diagnostic:
    text = source.text
    left = token.start > 0 and text[token.start - 1] not in " \t\r\n"
    right = text[token.end : token.end + 1] not in (" ", "\t", "\r", "\n", "")
    span = Span(source, token.start, token.end)
    edit = f"{' ' * left}{token.text}{' ' * right}"
    fix = Fix("put a space on both sides", ((span, edit),), safe=left or token.text != "-")
    help = f"write `a {token.text} b`"
    if token.text == "-" and not left:
        help += "; only a number has a sign, as in `-0.3`"
    elif token.text == "/" and text[token.start - 1 : token.end + 1].count("/") > 1:
        help = "a comment begins with `#`"
    elif token.text == "/":
        help += "; a path stands in quotes"
    message = f"the operator `{token.text}` needs a space on both sides"
    return _error("E0108", message, span, "no space here", help, (fix,))
