"""Gives faults of type rules and readers their place in the recipe.

Example: a rule's ``Fault("E0601", ..., at="inputs[1]")`` is reported at the second input.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from recipelang.diagnostics import Diagnostic, Label, RecipeError, Sink, Span
from recipelang.ops.spec import Fault

__all__ = ["report_fault"]


def report_fault(
    fault: Fault | RecipeError, sink: Sink, verb: Span, spans: Mapping[str, Span]
) -> None:
    """Report the fault: at the role, role item or field it names, else at the verb."""
    if isinstance(fault, RecipeError):
        for diagnostic in fault.diagnostics:
            sink.add(placed(replace(diagnostic, message=shown(diagnostic.message)), verb))
        return
    span = spans.get(fault.at) or spans.get(fault.at.partition("[")[0]) or verb
    sink.error(
        fault.code, shown(fault.message), span,
        label=fault.label, help=fault.help, notes=fault.notes,
    )  # fmt: skip


def shown(message: str) -> str:
    """The message with paths as one would type them here: those below this folder are relative."""
    here = os.getcwd() + os.sep
    return message.replace(f"`{here}", "`") if len(here) > 1 else message


def placed(diagnostic: Diagnostic, span: Span) -> Diagnostic:
    """The diagnostic at this place, if it has none of its own."""
    if diagnostic.primary is not None:
        return diagnostic
    return replace(diagnostic, primary=Label(span))
