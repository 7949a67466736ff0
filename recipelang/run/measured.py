"""Measurements and tables as stored artifacts.

A stored table has no names: rows and columns are numbered, so that renaming a binding changes
nothing; the names are put on when it is opened.

Example:
    >>> m = Measurement("loss", 2.0, 1.9, float("inf"), 10, "min")
    >>> open_measurement(measurement_manifest(m)) == m
    True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipelang.run.values import Measurement, Table
from recipelang.store.artifact import Manifest

__all__ = [
    "json_number",
    "measurement_json",
    "measurement_manifest",
    "open_measurement",
    "open_table",
    "table_manifest",
    "unique_names",
]


def json_number(value: float) -> object:
    """JSON has no infinity and no not-a-number."""
    finite = value == value and value not in (float("inf"), float("-inf"))
    return value if finite else str(value)


def measurement_json(found: Measurement) -> dict[str, object]:
    """The measurement as JSON."""
    return {
        "metric": found.metric, "value": json_number(found.value), "low": json_number(found.low),
        "high": json_number(found.high), "count": found.count, "direction": found.direction,
        "detail": {name: json_number(value) for name, value in sorted(found.detail.items())},
    }  # fmt: skip


def _measurement(row: Any) -> Measurement:
    return Measurement(
        row["metric"], float(row["value"]), float(row["low"]), float(row["high"]), row["count"],
        row["direction"], {name: float(value) for name, value in row["detail"].items()},
    )  # fmt: skip


def measurement_manifest(found: Measurement) -> Manifest:
    """The artifact of a measurement."""
    return Manifest("measurement", values=measurement_json(found))


def open_measurement(manifest: Manifest) -> Measurement:
    """The measurement of an artifact."""
    return _measurement(manifest.values)


def table_manifest(table: Table) -> Manifest:
    """The artifact of a table, without the names of its rows and columns."""
    cells = [
        [
            {metric: measurement_json(found) for metric, found in table.cells[model][data].items()}
            for data in table.datasets
        ]
        for model in table.models
    ]
    prompts = list(table.samples[table.models[0]]) if table.samples else []
    samples = [[table.samples[model][p] for p in prompts] for model in table.models]
    values: dict[str, object] = {
        "metrics": list(table.metrics), "cells": cells, "prompts": prompts, "samples": samples,
        "datasets": len(table.datasets),
    }  # fmt: skip
    return Manifest("table", values=values)


def open_table(manifest: Manifest, models: Sequence[str], datasets: Sequence[str]) -> Table:
    """The table of an artifact, under the names that the recipe has now."""
    values: Mapping[str, Any] = manifest.values
    rows = unique_names(models, len(values["cells"]), "model")
    columns = unique_names(datasets, values["datasets"], "data")
    cells = {
        row: {
            column: {metric: _measurement(found) for metric, found in cell.items()}
            for column, cell in zip(columns, line, strict=True)
        }
        for row, line in zip(rows, values["cells"], strict=True)
    }
    samples = {
        row: dict(zip(values["prompts"], texts, strict=True))
        for row, texts in zip(rows, values["samples"], strict=True)
        if values["prompts"]
    }
    return Table(tuple(rows), tuple(columns), tuple(values["metrics"]), cells, samples)


def unique_names(names: Sequence[str], count: int, kind: str) -> list[str]:
    """A name each; missing ones are numbered, equal ones get a number behind."""
    found: list[str] = []
    for i in range(count):
        plain = (names[i] if i < len(names) else "") or f"{kind}.{i + 1}"
        name, n = plain, 1
        while name in found:
            n += 1
            name = f"{plain}.{n}"
        found.append(name)
    return found
