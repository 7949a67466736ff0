"""The one error object: a code, a span, a cause and a remedy.

Everything that can be wrong with a recipe, a file or a machine is a :class:`Diagnostic` in a
:class:`Sink`. The command line, the JSON output and an editor read the same object. Only the
command line exits.

Example:
    >>> source = Source("a.recipe", "base = modle \\"x\\"\\n")
    >>> sink = Sink()
    >>> place = Span(source, 7, 12)
    >>> sink.error("E0201", "unknown verb `modle`", place, help="did you mean `model`?")
    >>> sink.has_errors
    True
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

__all__ = ["Diagnostic", "Fix", "Label", "RecipeError", "Severity", "Sink", "Source", "Span"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Source:
    """A text and where it came from. ``path`` is as the user named it; offsets are code points."""

    path: str
    text: str

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """The offset at which each line starts."""
        return (0, *(i + 1 for i, c in enumerate(self.text) if c == "\n"))

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line (from 1), without its line break."""
        start = self.line_starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range ``[start, end)`` of code points in a source."""

    source: Source
    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of ``other``."""
        return Span(self.source, min(self.start, other.start), max(self.end, other.end))

    def __str__(self) -> str:
        line, column = self.source.position(self.start)
        return f"{self.source.path}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class Label:
    """A place and a few words about it."""

    span: Span
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fix:
    """An edit that mends the fault: replace each span by its text. ``safe`` fixes may be applied
    unasked."""

    title: str
    edits: tuple[tuple[Span, str], ...]
    safe: bool = False


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault.

    ``message`` stands alone: lower case, no full stop, code in backticks. ``help`` says what to
    change; only it suggests. ``primary`` is None only for faults of the machine or the command
    line, whose message then names the file.
    """

    code: str
    severity: Severity
    message: str
    primary: Label | None = None
    secondary: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""
    fixes: tuple[Fix, ...] = ()


class RecipeError(Exception):
    """Carries diagnostics out of a deep call. Raised by readers and runners, caught at the API's
    edge."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("; ".join(f"{d.code}: {d.message}" for d in diagnostics))
        self.diagnostics = diagnostics


def fault(code: str, message: str, *, help: str = "", notes: tuple[str, ...] = ()) -> RecipeError:
    """A spanless error (of a file, a machine); whoever knows the place in the recipe adds it."""
    return RecipeError(Diagnostic(code, "error", message, None, (), notes, help))


@dataclass
class Sink:
    """Collects diagnostics; equal (code, place) pairs are kept once."""

    diagnostics: list[Diagnostic] = field(default_factory=list[Diagnostic])
    _seen: set[tuple[object, ...]] = field(default_factory=set[tuple[object, ...]])

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep the diagnostic unless the same code was already reported at the same place."""
        span = diagnostic.primary.span if diagnostic.primary else None
        place = (span.source.path, span.start, span.end) if span else (diagnostic.message,)
        if (diagnostic.code, *place) not in self._seen:
            self._seen.add((diagnostic.code, *place))
            self.diagnostics.append(diagnostic)

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Add each of them."""
        for diagnostic in diagnostics:
            self.add(diagnostic)

    def _new(
        self, severity: Severity, code: str, message: str, span: Span | None, label: str, help: str,
        secondary: tuple[Label, ...], notes: tuple[str, ...], fixes: tuple[Fix, ...],
    ) -> None:  # fmt: skip
        primary = Label(span, label) if span else None
        self.add(Diagnostic(code, severity, message, primary, secondary, notes, help, fixes))

    def error(
        self, code: str, message: str, span: Span | None = None, *, label: str = "", help: str = "",
        secondary: tuple[Label, ...] = (), notes: tuple[str, ...] = (), fixes: tuple[Fix, ...] = (),
    ) -> None:  # fmt: skip
        """Report an error."""
        self._new("error", code, message, span, label, help, secondary, notes, fixes)

    def warning(
        self, code: str, message: str, span: Span | None = None, *, label: str = "", help: str = "",
        secondary: tuple[Label, ...] = (), notes: tuple[str, ...] = (), fixes: tuple[Fix, ...] = (),
    ) -> None:  # fmt: skip
        """Report a warning."""
        self._new("warning", code, message, span, label, help, secondary, notes, fixes)

    @property
    def has_errors(self) -> bool:
        """Whether any diagnostic is an error."""
        return any(d.severity == "error" for d in self.diagnostics)

    @property
    def exit_code(self) -> int:
        """0 without errors, 2 when every error is of band E07 (files and data), else 1."""
        errors = [d.code for d in self.diagnostics if d.severity == "error"]
        return 0 if not errors else 2 if all(code.startswith("E07") for code in errors) else 1

    def __iter__(self) -> Iterator[Diagnostic]:
        def order(d: Diagnostic) -> tuple[str, int]:
            return (d.primary.span.source.path, d.primary.span.start) if d.primary else ("", 0)

        return iter(sorted(self.diagnostics, key=order))
