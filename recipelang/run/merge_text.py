"""The report of a merge as text: a table by layer, and bars by layer for a terminal.

Example:
    >>> bars([0.9, 1.0, None, 1.1], least=0.1)
    '▁▄ █'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recipelang.weights.figures import LayerFigures, MergeReport

__all__ = ["Column", "bar_lines", "bars", "columns", "merge_line", "merge_rows", "merge_title",
           "notes"]  # fmt: skip

BARS = "▁▂▃▄▅▆▇█"
LEAST_RANGE = 0.02
"""The range of a ratio, cosine or share that bars show in full height, so that noise does not look
like news."""
MOST_INPUTS = 4
"""Inputs that have a column each; of more, the lowest and the highest figure is shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A figure of each layer: how it is got and written, and whether it is also drawn."""

    name: str
    value: Callable[[LayerFigures], float | None]
    text: Callable[[float], str]
    drawn: bool = True


def columns(report: MergeReport) -> list[Column]:
    """The figures that a report of this kind has."""
    found = [Column("norm", lambda row: row.norm_ratio, _ratio)]
    if report.base is None:
        found += _cosines(report, "cosine", "cos")
    else:
        found.append(_extreme("cosine", "cos lowest", min, drawn=False))
        found.append(Column("change", lambda row: row.change_ratio, _ratio))
        found += _cosines(report, "change_cosine", "Δ cos")
    if report.whole.conflicts is not None:
        found.append(Column("conflicts", lambda row: row.conflicts, "{:.1%}".format))
    if report.whole.nonfinite:
        found.append(Column("non-finite", lambda row: row.nonfinite, "{:,}".format, drawn=False))
    return found


def _cosines(report: MergeReport, kind: str, word: str) -> list[Column]:
    """To each input, or to the least and the most alike of many."""
    if len(report.inputs) > MOST_INPUTS:
        return [
            _extreme(kind, f"{word} lowest", min),
            _extreme(kind, f"{word} highest", max, drawn=False),
        ]

    def of(index: int) -> Callable[[LayerFigures], float | None]:
        return lambda row: _figures(row, kind)[index]

    return [Column(f"{word} {o.name}", of(i), _cosine) for i, o in enumerate(report.inputs)]


def _extreme(
    kind: str, name: str, which: Callable[[list[float]], float], *, drawn: bool = True
) -> Column:
    def value(row: LayerFigures) -> float | None:
        known = [cosine for cosine in _figures(row, kind) if cosine is not None]
        return which(known) if known else None

    return Column(name, value, _cosine, drawn)


def _figures(row: LayerFigures, kind: str) -> list[float | None]:
    """One figure of every input."""
    return [getattr(figures, kind) for figures in row.inputs]


def _ratio(value: float) -> str:
    return f"{value:.3f}" if value < 100 else f"{value:.3g}"


def _cosine(value: float) -> str:
    return f"{value:.4f}"


# ---------------------------------------------------------------- the table


def merge_title(report: MergeReport) -> str:
    """``ties-merge of chat and code from base``."""
    *names, last = (origin.name for origin in report.inputs)
    listed = f"{', '.join(names)} and {last}" if names else last
    return f"{report.op} of {listed}{f' from {report.base.name}' if report.base else ''}"


def merge_rows(report: MergeReport) -> list[list[str]]:
    """A header, a row a layer, and one for the whole model."""
    shown = columns(report)
    rows = [["layer", *(column.name for column in shown)]]
    for layer in (*report.layers, report.whole):
        rows.append([layer.label, *(_cell(column, layer) for column in shown)])
    return rows


def merge_line(report: MergeReport) -> str:
    """The whole model in one line: ``norm 0.998, cos a 0.9913, cos b 0.9921``."""
    shown = columns(report)
    return ", ".join(f"{column.name} {_cell(column, report.whole)}" for column in shown)


def _cell(column: Column, row: LayerFigures) -> str:
    value = column.value(row)
    return "-" if value is None else column.text(value)


def notes(report: MergeReport) -> list[str]:
    """What the columns mean, and what the figures rest on."""
    whole = report.whole
    lines = ["norm: the result's to the mean of its inputs'; cos: cosine of the result to an input"]
    if report.base is not None:
        lines.append(
            f"change, Δ cos: the same of the differences to {report.base.name}; conflicts: "
            "elements that inputs move both ways"
        )
    if whole.sampled < whole.elements:
        lines.append(
            f"estimated from {whole.sampled:,} of {whole.elements:,} elements; infinities and NaN "
            "are counted in all"
        )
    if report.unseen:
        lines.append(
            f"{report.unseen:,} tensors are left out: an interrupted run wrote them, and their "
            "figures are lost"
        )
    return lines


# ---------------------------------------------------------------- bars


def bar_lines(report: MergeReport) -> list[str]:
    """A line a figure: its bars by layer, then the lowest and the highest value."""
    labels = [row.label for row in report.layers]
    lines = [("by layer", f"{labels[0]} to {labels[-1]}" if len(labels) > 1 else "".join(labels))]
    for column in columns(report):
        values = [column.value(row) for row in report.layers]
        known = [value for value in values if value is not None]
        if column.drawn and known:
            ends = f"{column.text(min(known))} to {column.text(max(known))}"
            lines.append((column.name, f"{bars(values, least=LEAST_RANGE)}  {ends}"))
    width = max(len(name) for name, _ in lines)
    return [f"{name:<{width}}  {text}" for name, text in lines]


def bars(values: Sequence[float | None], *, least: float) -> str:
    """A bar a value, from the lowest to the highest (apart by ``least`` or more), a blank where
    there is none."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    spare = max(0.0, least - (high - low)) / 2
    low, high = low - spare, high + spare

    def bar(value: float) -> str:
        return BARS[round((value - low) / (high - low) * (len(BARS) - 1))]

    return "".join(" " if value is None else bar(value) for value in values)
