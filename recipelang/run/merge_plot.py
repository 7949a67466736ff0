"""The report of a merge as a picture: three panels by layer, in SVG.

Written by hand: a plotting library takes longer to import than many a merge to run, and this needs
none.

Example: ``merge_svg("both", report)`` is the text of ``merge-both.svg``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from recipelang.run.merge_text import Column, columns, merge_title
from recipelang.weights.figures import MergeReport

__all__ = ["merge_svg"]

WIDTH, PANEL, GAP, LEFT, RIGHT, TOP = 720, 130, 34, 60, 150, 56
"""Pixels: of the picture, of a panel, between two; beside and above them."""
MOST_LABELS = 16
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Told apart by colour-blind readers too (Okabe and Ito 2008)."""
PANELS = (("ratio", ("norm", "change")), ("cosine", ("cos", "Δ")), ("share", ("conflicts",)))
"""A panel's title, and the first words of the columns that it shows."""

Curve = tuple[Column, list[float | None]]


def merge_svg(place: str, report: MergeReport) -> str:
    """A panel of ratios, one of cosines, and one of signs in conflict where there is a base."""
    curves = [(c, [c.value(row) for row in report.layers]) for c in columns(report) if c.drawn]
    parts: list[str] = []
    top = TOP
    for title, words in PANELS:
        here = [curve for curve in curves if curve[0].name.split()[0] in words]
        if any(value is not None for _, values in here for value in values):
            parts += _panel(title, top, here)
            top += PANEL + GAP
    parts += _axis([row.label for row in report.layers], top - GAP + 16)
    height = top + 4
    return "".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11" fill="#333">\n',
        '<rect width="100%" height="100%" fill="#fff"/>\n',
        _text(LEFT, 24, f"{place}: {merge_title(report)}", 'font-size="13"'),
        *parts,
        "</svg>\n",
    ])  # fmt: skip


def _panel(title: str, top: int, curves: Sequence[Curve]) -> Iterator[str]:
    """A frame with its scale, a line a figure, and their names beside it."""
    known = [value for _, values in curves for value in values if value is not None]
    pad = max((max(known) - min(known)) * 0.08, 0.005)
    low, high = min(known) - pad, max(known) + pad

    def y(value: float) -> float:
        return top + PANEL * (high - value) / (high - low)

    yield (
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" fill="none" '
        'stroke="#ccc"/>\n'
    )
    yield _text(LEFT, top - 6, title)
    for value in sorted({min(known), max(known)}):
        yield _text(LEFT - 6, y(value) + 4, curves[0][0].text(value), 'text-anchor="end"')
    for i, (column, values) in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        yield from _curve(values, y, colour)
        yield _text(WIDTH - RIGHT + 10, top + 12 + 16 * i, column.name, f'fill="{colour}"')


def _curve(
    values: Sequence[float | None], y: Callable[[float], float], colour: str
) -> Iterator[str]:
    """A dot a value, joined where layers follow each other."""
    before: tuple[float, float] | None = None
    for i, value in enumerate(values):
        here = None if value is None else (_x(i, len(values)), y(value))
        if here is not None:
            yield f'<circle cx="{here[0]:.1f}" cy="{here[1]:.1f}" r="2" fill="{colour}"/>\n'
            if before is not None:
                yield (
                    f'<line x1="{before[0]:.1f}" y1="{before[1]:.1f}" x2="{here[0]:.1f}" '
                    f'y2="{here[1]:.1f}" stroke="{colour}"/>\n'
                )
        before = here


def _axis(labels: Sequence[str], y: int) -> Iterator[str]:
    """Labels of the rows; of many, every second, third or so on."""
    every = -(-len(labels) // MOST_LABELS)
    for i in range(0, len(labels), every):
        yield _text(_x(i, len(labels)), y, labels[i], 'text-anchor="middle"')


def _x(row: int, rows: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (row + 0.5) / rows


def _text(x: float, y: float, text: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>\n'
