"""Prints what a run has to show: tables, what they say, samples, gates, folders, what to type
next.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recipelang.run.merge_text import merge_line
from recipelang.run.results import Outcome, gate_line, plain_table
from recipelang.run.soup_reports import soup_line, soup_rows
from recipelang.run.summary import sentence, table_rows, value_text
from recipelang.run.values import Table

__all__ = ["print_blocks", "print_results", "result_lines", "shown"]

SAMPLE_WIDTH = 100


def print_results(outcome: Outcome, recipe: Path, environment: Mapping[str, str]) -> None:
    """Write the results to stdout."""
    print_blocks(result_lines(outcome, recipe), environment)


def print_blocks(blocks: Iterator[str | list[list[str]]], environment: Mapping[str, str]) -> None:
    """Write lines of text and tables to stdout, with rich's tables on a terminal."""
    rich = sys.stdout.isatty() and "NO_COLOR" not in environment
    for block in blocks:
        if isinstance(block, str):
            print(block)
        elif rich:
            _rich_table(block)
        else:
            print(plain_table(block))


def _rich_table(rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable(show_edge=False)
    for i, name in enumerate(rows[0]):
        table.add_column(Text(name), justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def result_lines(outcome: Outcome, recipe: Path) -> Iterator[str | list[list[str]]]:
    """Lines of text, and tables as rows with a header."""
    for name, table in outcome.tables.items():
        yield from _table(name, table)
    alone = {
        n: m
        for n, m in outcome.measured.items()
        if not any(n in dict(g.measured) for g in outcome.gates)
    }
    for name, found in alone.items():
        yield f"{name}: {value_text(found)}"
    if outcome.merges:
        yield ""
        yield from (f"{name}: {merge_line(report)}" for name, report in outcome.merges.items())
    for name, soup in outcome.soups.items():
        yield ""
        yield f"{name}: {soup_line(soup)}"
        yield [list(row) for row in soup_rows(soup)]
    if outcome.gates:
        yield ""
        yield from (gate_line(gate) for gate in outcome.gates)
    yield ""
    for path in outcome.published:
        yield f"published  {shown(path)}"
    if outcome.folder is not None:
        yield f"run        {shown(outcome.folder)}"
    yield from (f"note       {note}" for note in outcome.notes)
    if outcome.exit_code == 0:
        yield from _next(outcome, recipe)


def _table(name: str, table: Table) -> Iterator[str | list[list[str]]]:
    for metric in table.metrics:
        yield ""
        yield f"{name}: {metric}, with 95 % intervals"
        yield table_rows(table, metric)
        said = sentence(table, metric)
        if said:
            yield said
    prompts = tuple(table.samples[table.models[0]]) if table.samples else ()
    for prompt in prompts:
        yield ""
        yield _one_line(prompt)
        width = max(len(model) for model in table.models)
        for model in table.models:
            text = _one_line(table.samples[model][prompt])
            more = "…" if len(text) > SAMPLE_WIDTH else ""
            yield f"  {model:<{width}}  {text[:SAMPLE_WIDTH]}{more}"


def _one_line(text: str) -> str:
    """Text of a model on one line, without control characters."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(plain.split()) or "(nothing)"


def _next(outcome: Outcome, recipe: Path) -> Iterator[str]:
    """What to type next."""
    models = [path for path in outcome.published if (path / "config.json").is_file()]
    if models:
        yield f'next       recipe sample {shown(models[-1])} "Once upon a time"'
    elif outcome.built:
        name = list(outcome.built)[-1]
        yield f'next       recipe sample {shown(recipe)}:{name} "Once upon a time"'
    yield f"           recipe log {shown(recipe)}"


def shown(path: Path) -> str:
    """A path as one would type it here: relative where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
