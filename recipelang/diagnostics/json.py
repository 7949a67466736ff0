"""Diagnostics as one JSON object, for editors and scripts.

Example:
    >>> to_json(Sink())["schema"]
    'recipelang/diagnostics/1'

Lines and columns count from 1, offsets from 0, all in code points; ``end`` is exclusive.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from recipelang.diagnostics.diagnostic import Diagnostic, Label, Sink, Span

__all__ = ["SCHEMA", "diagnostic_json", "to_json"]

SCHEMA = "recipelang/diagnostics/1"


def _position(span: Span, offset: int) -> dict[str, int]:
    line, column = span.source.position(offset)
    return {"line": line, "column": column, "offset": offset}


def span_json(span: Span) -> dict[str, Any]:
    """A span with its file."""
    return {
        "file": span.source.path,
        "start": _position(span, span.start),
        "end": _position(span, span.end),
    }


def _label(label: Label) -> dict[str, Any]:
    return {"span": span_json(label.span), "text": label.text}


def diagnostic_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """One diagnostic."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        "primary": _label(diagnostic.primary) if diagnostic.primary else None,
        "secondary": [_label(label) for label in diagnostic.secondary],
        "notes": list(diagnostic.notes),
        "help": diagnostic.help or None,
        "fixes": [
            {
                "title": fix.title,
                "safe": fix.safe,
                "edits": [{"span": span_json(span), "text": text} for span, text in fix.edits],
            }
            for fix in diagnostic.fixes
        ],
    }


def to_json(sink: Sink | Iterable[Diagnostic]) -> dict[str, Any]:
    """All diagnostics, in the order of the source."""
    found = list(sink)
    return {
        "schema": SCHEMA,
        "diagnostics": [diagnostic_json(d) for d in found],
        "errors": sum(d.severity == "error" for d in found),
        "warnings": sum(d.severity == "warning" for d in found),
    }
