"""Diagnostics as text for a terminal: the source line, carets under the fault, labels beside them.

Example (colours only on a terminal, and not where ``NO_COLOR`` is set):

    error[E0412]: `density` is a fraction, found a duration
      --> medic.recipe:47:43
       |
    47 |     -> ties-merge with chat(weight = 0.4) { density = 2h }
       |        ----------                                     ^^ expected a fraction in (0, 1]
       |        |
       |        `ties-merge` takes `density`, the share of entries kept
       = help: write a percentage or a number: `density = 60%`
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TextIO

from recipelang.diagnostics.diagnostic import Diagnostic, Label, Sink, Source

__all__ = ["escape", "render", "render_all"]

LIMIT = 20
"""How many diagnostics are shown; the rest are counted."""
TAB = "    "
STYLES = {"error": "31", "warning": "33", "note": "36"}


@dataclass(frozen=True, slots=True)
class Painter:
    """Wraps text in ANSI styles, or leaves it."""

    colour: bool

    def __call__(self, style: str, text: str) -> str:
        return f"\x1b[1;{style}m{text}\x1b[0m" if self.colour and text else text


def escape(text: str) -> str:
    """Control and bidirectional characters as ``\\u{1b}``, so that no file steers the terminal."""
    return "".join(_shown(c) for c in text)


def _shown(character: str) -> str:
    if character == "\t":
        return TAB
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return f"\\u{{{ord(character):x}}}"
    return character


def _width(text: str) -> int:
    """Columns that the escaped text takes: wide characters two, combining ones none."""
    wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return wide - sum(1 for c in text if unicodedata.combining(c))


def render(diagnostic: Diagnostic, *, colour: bool = False) -> str:
    """The diagnostic as lines of text, without a line break at the end."""
    paint = Painter(colour)
    style = STYLES[diagnostic.severity]
    head = f"{diagnostic.severity}[{diagnostic.code}]"
    lines = [paint(style, head) + paint("39", f": {escape(diagnostic.message)}")]
    gutter = 1
    if diagnostic.primary is not None:
        gutter, snippet = _snippets(diagnostic, paint, style)
        lines += snippet
    for kind, texts in (("note", diagnostic.notes), ("help", (diagnostic.help,))):
        for text in texts:
            if text:
                first, *rest = escape_lines(text)
                indent = " " * (gutter + 3 + len(kind) + 2)
                lines.append(f"{' ' * gutter} {paint('34', '=')} {paint('39', kind)}: {first}")
                lines += [indent + line for line in rest]
    return "\n".join(lines)


def escape_lines(text: str) -> list[str]:
    """The lines of a text, each escaped."""
    return [escape(line) for line in text.split("\n")]


def _snippets(diagnostic: Diagnostic, paint: Painter, style: str) -> tuple[int, list[str]]:
    """The gutter's width, and the source lines with their labels, the primary's file first."""
    primary = diagnostic.primary
    assert primary is not None
    labels = [(primary, True), *((label, False) for label in diagnostic.secondary)]
    files: dict[str, tuple[Source, dict[int, list[tuple[Label, bool]]]]] = {}
    for label, main in labels:
        source = label.span.source
        _, rows = files.setdefault(source.path, (source, {}))
        rows.setdefault(source.position(label.span.start)[0], []).append((label, main))
    gutter = max(len(str(max(rows))) for _, rows in files.values())
    bar = paint("34", "|")
    out: list[str] = []
    for source, rows in files.values():
        first = rows[min(rows)][0][0] if out else primary
        line, column = source.position(first.span.start)
        arrow = paint("34", ":::" if out else "-->")
        out.append(f"{' ' * gutter}{arrow} {escape(source.path)}:{line}:{column}")
        out.append(f"{' ' * gutter} {bar}")
        previous = 0
        for number in sorted(rows):
            if previous and number > previous + 2:
                out.append(paint("34", "..."))
            elif previous and number == previous + 2:
                out.append(_source_line(source, number - 1, gutter, paint))
            previous = number
            out.append(_source_line(source, number, gutter, paint))
            marks = _underlines(source, number, rows[number], paint, style)
            out += [f"{' ' * gutter} {bar} {mark}" for mark in marks]
    return gutter, out


def _source_line(source: Source, number: int, gutter: int, paint: Painter) -> str:
    text = escape(source.line(number))
    return f"{paint('34', str(number).rjust(gutter))} {paint('34', '|')} {text}".rstrip()


def _columns(source: Source, number: int, label: Label) -> tuple[int, int]:
    """The display columns that a label's part on this line covers; at least one column."""
    text = source.line(number)
    offset = source.line_starts[number - 1]
    start = min(max(label.span.start - offset, 0), len(text))
    end = min(max(label.span.end - offset, start), len(text))
    left = _width(escape(text[:start]))
    return left, max(left + _width(escape(text[start:end])), left + 1)


def _underlines(
    source: Source, number: int, labels: list[tuple[Label, bool]], paint: Painter, style: str
) -> list[str]:
    """The row of carets, with the rightmost label's text beside it, then a row for each other
    text."""
    placed = [(*_columns(source, number, label), label.text, main) for label, main in labels]
    placed.sort(key=lambda item: (item[0], item[3]))
    cells: dict[int, tuple[str, str]] = {}
    for left, right, _, main in sorted(placed, key=lambda item: item[3]):
        for column in range(left, right):
            cells[column] = ("^", style) if main else ("-", "34")
    last = placed[-1]
    beside = last[2] if last[1] > max((right for _, right, *_ in placed[:-1]), default=0) else ""
    row = _row(cells, paint)
    if beside:
        row += " " + paint(style if last[3] else "34", escape(beside))
    rows = [row]
    hanging = [(left, text, main) for left, _, text, main in placed if text]
    if beside:
        hanging.pop()
    if hanging:
        rows.append(
            _row({left: ("|", style if main else "34") for left, _, main in hanging}, paint)
        )
    while hanging:
        left, text, main = hanging.pop()
        bars = {at: ("|", style if own else "34") for at, _, own in hanging if at < left}
        gap = " " * (left - (max(bars) + 1 if bars else 0))
        rows.append(_row(bars, paint) + gap + paint(style if main else "34", escape(text)))
    return rows


def _row(cells: dict[int, tuple[str, str]], paint: Painter) -> str:
    """The characters at their columns, runs of one style painted together."""
    out: list[str] = []
    run, style = "", ""
    for column in range(max(cells, default=-1) + 1):
        character, own = cells.get(column, (" ", ""))
        if own != style:
            out.append(paint(style, run) if style else run)
            run, style = "", own
        run += character
    out.append(paint(style, run) if style else run)
    return "".join(out)


def render_all(
    sink: Sink | Iterable[Diagnostic], stream: TextIO, colour: bool | None = None
) -> None:
    """Write every diagnostic, a blank line between them; at most 20, then how many more there are.

    ``colour`` None: where the stream is a terminal and ``NO_COLOR`` is not set.
    """
    if colour is None:
        colour = stream.isatty() and not os.environ.get("NO_COLOR")
    found = list(sink)
    for diagnostic in found[:LIMIT]:
        stream.write(render(diagnostic, colour=colour) + "\n\n")
    if len(found) > LIMIT:
        stream.write(f"... and {len(found) - LIMIT} more\n")
