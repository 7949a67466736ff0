"""What a run has to show: tables, samples, gates, published folders; as JSON and as Markdown.

Example: ``results_json(outcome)`` is what ``recipe run --format json`` prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recipelang.diagnostics import Diagnostic
from recipelang.run.gates import GateResult
from recipelang.run.measured import measurement_json
from recipelang.run.merge_text import merge_rows, merge_title, notes
from recipelang.run.record import RunRecord
from recipelang.run.soup_reports import SoupReport, soup_rows
from recipelang.run.summary import number_text, sentence, table_rows, value_text
from recipelang.run.values import Measurement, Table
from recipelang.weights.figures import MergeReport

__all__ = ["Outcome", "file_name", "markdown", "plain_table", "results_json"]

SCHEMA = "recipelang/results/1"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A finished run.

    ``exit_code`` is the command line's. ``tables``, ``measured``, ``merges`` and ``soups`` are by
    place. ``published`` are the folders that were written; ``folder`` is the run's own, None where
    it could not be written. ``record`` is None where nothing was started. ``changed`` are the
    places whose lock block changed.
    """

    exit_code: int
    diagnostics: tuple[Diagnostic, ...] = ()
    record: RunRecord | None = None
    tables: Mapping[str, Table] = field(default_factory=dict[str, Table])
    measured: Mapping[str, Measurement] = field(default_factory=dict[str, Measurement])
    merges: Mapping[str, MergeReport] = field(default_factory=dict[str, MergeReport])
    soups: Mapping[str, SoupReport] = field(default_factory=dict[str, SoupReport])
    gates: tuple[GateResult, ...] = ()
    published: tuple[Path, ...] = ()
    built: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def results_json(outcome: Outcome) -> dict[str, object]:
    """The run as JSON. Infinite numbers are the texts ``inf`` and ``nan``."""
    record = outcome.record
    return {
        "schema": SCHEMA,
        "exit_code": outcome.exit_code,
        "run": record.id if record else None,
        "outcome": record.outcome if record else "refused",
        "steps": [
            {
                "place": s.place, "op": s.op, "result": s.result, "seconds": s.seconds,
                "artifact": s.artifact, "backend": s.backend,
            }
            for s in (record.steps if record else ())
        ],
        "tables": {name: _table_json(table) for name, table in outcome.tables.items()},
        "measured": {name: measurement_json(m) for name, m in outcome.measured.items()},
        "merges": {name: asdict(report.whole) for name, report in outcome.merges.items()},
        "soups": {name: report.to_json() for name, report in outcome.soups.items()},
        "gates": [_gate_json(gate) for gate in outcome.gates],
        "built": dict(outcome.built),
        "published": [str(path) for path in outcome.published],
        "folder": str(outcome.folder) if outcome.folder else None,
    }  # fmt: skip


def _table_json(table: Table) -> dict[str, object]:
    cells = {
        model: {
            data: {metric: measurement_json(found) for metric, found in cell.items()}
            for data, cell in row.items()
        }
        for model, row in table.cells.items()
    }
    samples = {model: dict(rows) for model, rows in table.samples.items()}
    return {
        "models": list(table.models), "datasets": list(table.datasets),
        "metrics": list(table.metrics), "cells": cells, "samples": samples,
    }  # fmt: skip


def _gate_json(gate: GateResult) -> dict[str, object]:
    return {
        "kind": "require" if gate.hard else "expect", "text": gate.text, "message": gate.message,
        "left": repr(gate.left), "op": gate.op, "right": repr(gate.right), "passed": gate.passed,
        "measured": {name: measurement_json(found) for name, found in gate.measured},
    }  # fmt: skip


def plain_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines: list[str] = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def gate_line(gate: GateResult) -> str:
    """``passed  require accuracy of m on d >= 60%   0.6420 >= 0.6000``."""
    verdict = "passed" if gate.passed else "FAILED" if gate.hard else "not met"
    kind = "require" if gate.hard else "expect"
    text = gate.text if gate.text.startswith(kind) else f"{kind} {gate.text}"
    values = f"{number_text(gate.left)} {gate.op} {number_text(gate.right)}"
    message = f"  ({gate.message})" if gate.message else ""
    return f"{verdict:<7} {text}: {values}{message}"


def markdown(outcome: Outcome, plot: bool) -> str:
    """The run's report."""
    record = outcome.record
    assert record is not None
    parts = [f"# {Path(record.recipe).name}, run {record.id}\n"]
    parts.append(
        f"{record.outcome}; started {record.started}. {record.platform}. {record.versions}\n"
    )
    for name, table in outcome.tables.items():
        parts += _table_markdown(name, table)
    for name, report in outcome.merges.items():
        parts += _merge_markdown(name, report)
    for name, soup in outcome.soups.items():
        parts.append(f"## {name}: greedy-soup\n")
        parts.append(_markdown_table(soup_rows(soup)))
    if outcome.gates:
        parts.append("## Gates\n")
        parts.append("".join(f"- {gate_line(gate)}\n" for gate in outcome.gates))
        measured = {n: m for gate in outcome.gates for n, m in gate.measured}
        parts.append("".join(f"- {n}: {value_text(m)}\n" for n, m in sorted(measured.items())))
    parts.append("## Steps\n")
    head = ["step", "operation", "result", "seconds", "artifact"]
    steps = [[s.place, s.op, s.result, f"{s.seconds:.1f}", s.artifact[:12]] for s in record.steps]
    parts.append(_markdown_table([head, *steps]))
    if plot:
        parts.append("![losses](losses.png)\n")
    if outcome.published:
        parts.append("Published: " + ", ".join(f"`{path}`" for path in outcome.published) + "\n")
    return "\n".join(parts)


def _table_markdown(name: str, table: Table) -> Iterable[str]:
    yield f"## {name}\n"
    for metric in table.metrics:
        yield f"{metric}, with 95 % intervals:\n"
        yield _markdown_table(table_rows(table, metric))
        said = sentence(table, metric)
        if said:
            yield f"{said}\n"
    for model, rows in table.samples.items():
        for prompt, text in rows.items():
            yield f"- {model}: **{_inline(prompt)}**{_inline(text)}"
    yield ""


def _merge_markdown(name: str, report: MergeReport) -> Iterable[str]:
    yield f"## {name}: {merge_title(report)}\n"
    yield _markdown_table(merge_rows(report))
    yield "".join(f"- {note}\n" for note in notes(report))
    yield f"![{name} by layer](merge-{file_name(name)}.svg)\n"


def file_name(place: str) -> str:
    """A place as a part of a file's name.

    >>> file_name("teachers[2]/tuned")
    'teachers-2--tuned'
    """
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in place)


def _inline(text: str) -> str:
    shown = " ".join(text.split()) if text.strip() else "(nothing)"
    return (" " if text[:1].isspace() else "") + shown.replace("*", "\\*").replace("`", "'")


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"

    return line(rows[0]) + line(["---"] * len(rows[0])) + "".join(line(row) for row in rows[1:])
