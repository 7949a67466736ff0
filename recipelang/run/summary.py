"""What a run's numbers say, in words no stronger than their intervals.

Example:
    >>> a = Measurement("bits-per-byte", 1.30, 1.25, 1.35, 900, "min")
    >>> b = Measurement("bits-per-byte", 1.60, 1.55, 1.65, 900, "min")
    >>> found = {"a": {"text": {"bits-per-byte": a}}, "b": {"text": {"bits-per-byte": b}}}
    >>> table = Table(("a", "b"), ("text",), ("bits-per-byte",), found, {})
    >>> sentence(table, "bits-per-byte")
    'Lowest bits-per-byte on text: `a` at 1.300; its interval lies clear of every other.'
"""

from __future__ import annotations

from collections.abc import Sequence

from recipelang.run.values import Measurement, Table

__all__ = ["means", "number_text", "sentence", "table_rows", "value_text"]


def value_text(found: Measurement) -> str:
    """``1.332 [1.290, 1.371]``: the value and its 95 % interval."""
    return f"{_short(found.value)} [{_short(found.low)}, {_short(found.high)}]"


def number_text(value: float) -> str:
    """``6.83`` or ``33,472``: four significant digits, and whole from a thousand on."""
    if abs(value) >= 1000 and abs(value) != float("inf"):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _short(value: float) -> str:
    """Four significant digits; a count of bytes or parameters stays whole."""
    if value != value or value in (float("inf"), float("-inf")):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def table_rows(table: Table, metric: str) -> list[list[str]]:
    """Rows of text: a header, then a model a row with its datasets, and the mean of several
    datasets.
    """
    several = len(table.datasets) > 1
    header = ["model", *table.datasets, *(["mean"] if several else [])]
    average = means(table, metric)
    rows = [header]
    for model in table.models:
        cells = table.cells[model]
        row = [model, *(value_text(cells[data][metric]) for data in table.datasets)]
        rows.append([*row, _short(average[model])] if several else row)
    return rows


def means(table: Table, metric: str) -> dict[str, float]:
    """For each model the plain mean of the metric over the datasets."""
    count = len(table.datasets)
    return {
        m: sum(table.cells[m][d][metric].value for d in table.datasets) / count
        for m in table.models
    }


def sentence(table: Table, metric: str) -> str:
    """Which model is best, and whether the intervals allow to say so.

    With several datasets the means are compared, and nothing is claimed of their intervals; the
    best model of each dataset is named instead.
    """
    if len(table.models) < 2 or not table.datasets:
        return ""
    lower = table.cells[table.models[0]][table.datasets[0]][metric].direction == "min"
    word = "Lowest" if lower else "Highest"
    if len(table.datasets) == 1:
        return _on_one(table, metric, word, lower)
    average = means(table, metric)
    best = _best(table.models, average, lower)
    parts: list[str] = []
    for data in table.datasets:
        values = {m: table.cells[m][data][metric].value for m in table.models}
        parts.append(f"on {data} it is `{_best(table.models, values, lower)}`")
    return (
        f"{word} mean {metric} over {len(table.datasets)} datasets: `{best}` at "
        f"{_short(average[best])}; {' and '.join(parts)}."
    )


def _best(models: Sequence[str], values: dict[str, float], lower: bool) -> str:
    return min(models, key=lambda m: (values[m] if lower else -values[m], models.index(m)))


def _on_one(table: Table, metric: str, word: str, lower: bool) -> str:
    data = table.datasets[0]
    found = {m: table.cells[m][data][metric] for m in table.models}
    best = _best(table.models, {m: r.value for m, r in found.items()}, lower)
    top = found[best]
    near = [m for m in table.models if m != best and _overlap(top, found[m])]
    names = ", ".join(f"`{m}`" for m in near)
    say = (
        f"the interval of {names} overlaps it"
        if len(near) == 1
        else f"the intervals of {names} overlap it"
    )
    rest = say if near else "its interval lies clear of every other"
    return f"{word} {metric} on {data}: `{best}` at {_short(top.value)}; {rest}."


def _overlap(one: Measurement, other: Measurement) -> bool:
    return one.low <= other.high and other.low <= one.high
