"""Diagnostics: the value, the pages behind the codes, and the renderers."""

from recipelang.diagnostics.diagnostic import (
    Diagnostic,
    Fix,
    Label,
    RecipeError,
    Severity,
    Sink,
    Source,
    Span,
    fault,
)

__all__ = [
    "Diagnostic",
    "Fix",
    "Label",
    "RecipeError",
    "Severity",
    "Sink",
    "Source",
    "Span",
    "fault",
]
