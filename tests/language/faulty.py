"""Reads ``faults.md``: texts with a fault, and the diagnostics that they must yield.

A case is a ``recipe`` block under a heading and a ``text`` block behind it. A diagnostic is a line
``CODE line:column-column message``, then its label, help, other labels and edits, indented.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from recipelang.diagnostics import Diagnostic, Sink, Source, Span
from recipelang.language.parser import parse

CASES = Path(__file__).with_name("faults.md")
_CASE = re.compile(r"^## (.*?)\n\n```recipe\n(.*?)```\n\n```text\n(.*?)```", re.M | re.S)


@dataclass(frozen=True)
class Case:
    """A text and its diagnostics as written in the file."""

    name: str
    text: str
    expected: str


def cases() -> list[Case]:
    """All cases of the file."""
    return [Case(*match.groups()) for match in _CASE.finditer(CASES.read_text(encoding="utf-8"))]


def diagnose(text: str) -> list[Diagnostic]:
    """What the parser reports of a text, in the order of the places."""
    sink = Sink()
    parse(Source("a.recipe", text), sink)
    return list(sink)


def written(diagnostics: list[Diagnostic]) -> str:
    """Diagnostics in the form of the file."""
    lines: list[str] = []
    for found in diagnostics:
        assert found.primary is not None
        lines.append(f"{found.code} {_place(found.primary.span)} {found.message}")
        lines += [f"    label: {found.primary.text}"] if found.primary.text else []
        lines += [f"    at {_place(other.span)}: {other.text}" for other in found.secondary]
        lines += [f"    help: {found.help}"] if found.help else []
        for fix in found.fixes:
            edits = ", ".join(f"{_place(span)} -> {text!r}" for span, text in fix.edits)
            lines.append(f"    fix: {fix.title} ({edits})")
    return "".join(f"{line}\n" for line in lines)


def _place(span: Span) -> str:
    line, column = span.source.position(span.start)
    return f"{line}:{column}-{span.source.position(span.end)[1]}"
