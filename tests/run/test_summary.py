"""Words and numbers at the end of a run: no stronger than the intervals."""

from __future__ import annotations

import io

from recipelang.run.events import Note, StepFinished, StepProgress, StepStarted, Waiting
from recipelang.run.gates import judge
from recipelang.run.measured import (
    measurement_manifest,
    open_measurement,
    open_table,
    table_manifest,
)
from recipelang.run.progress import PlainProgress, duration, rate
from recipelang.run.results import plain_table
from recipelang.run.summary import sentence, table_rows
from recipelang.run.values import Measurement, Table


def _m(value: float, width: float = 0.1, direction: str = "min") -> Measurement:
    return Measurement("loss", value, value - width, value + width, 10, direction)


def _table(values: dict[str, list[float]], width: float = 0.1, direction: str = "min") -> Table:
    datasets = tuple("ab"[: len(next(iter(values.values())))])
    cells = {
        model: {d: {"loss": _m(v, width, direction)} for d, v in zip(datasets, row, strict=True)}
        for model, row in values.items()
    }
    return Table(tuple(values), datasets, ("loss",), cells, {})


def test_clear_and_overlapping_intervals() -> None:
    """A lead is called clear only where no interval touches it."""
    clear = sentence(_table({"x": [1.0], "y": [2.0]}), "loss")
    assert clear == "Lowest loss on a: `x` at 1.000; its interval lies clear of every other."
    near = sentence(_table({"x": [1.0], "y": [1.1], "z": [3.0]}), "loss")
    assert near.endswith("the interval of `y` overlaps it.")


def test_direction_and_means() -> None:
    """The better direction decides, and several datasets are compared by their plain mean."""
    assert "`y`" in sentence(_table({"x": [1.0], "y": [2.0]}, direction="max"), "loss")
    text = sentence(_table({"x": [1.0, 4.0], "y": [2.0, 2.0]}), "loss")
    assert text.startswith("Lowest mean loss over 2 datasets: `y` at 2.000; on a it is `x`")
    rows = table_rows(_table({"x": [1.0, 4.0], "y": [2.0, 2.0]}), "loss")
    assert rows[0] == ["model", "a", "b", "mean"]
    assert rows[1][-1] == "2.500"
    assert sentence(_table({"x": [1.0]}), "loss") == ""


def test_plain_tables_align() -> None:
    """The first column to the left, the others to the right."""
    assert plain_table([["m", "a"], ["long", "1.0"]]) == "m       a\nlong  1.0"


def test_measures_come_back() -> None:
    """Infinite and undefined numbers survive the store, and tables take the names of the day."""
    infinite = Measurement("perplexity", float("inf"), 1.0, float("inf"), 3, "min", {"x": 1.5})
    assert open_measurement(measurement_manifest(infinite)) == infinite
    table = Table(
        ("x", "y"), ("a",), ("loss",), {m: {"a": {"loss": _m(1.0)}} for m in "xy"},
        {"x": {"p": "1"}, "y": {"p": "2"}},
    )  # fmt: skip
    manifest = table_manifest(table)
    again = open_table(manifest, ["new", "new"], [""])
    assert (again.models, again.datasets) == (("new", "new.2"), ("data.1",))
    assert again.samples == {"new": {"p": "1"}, "new.2": {"p": "2"}}
    assert table_manifest(again).identity == manifest.identity


def test_gates_and_undefined_numbers() -> None:
    """A value that is not a number passes no gate."""
    assert judge(1.0, "<=", 1.0)
    assert not judge(1.0, "<", 1.0)
    assert not judge(float("nan"), "<=", 1.0)
    assert not judge(1.0, ">=", float("nan"))


def test_durations_and_rates() -> None:
    """Times and rates read as people write them."""
    assert [duration(s) for s in (0.84, 42.4, 185, 7800)] == [
        "0.8 s",
        "42 s",
        "3 min 05 s",
        "2 h 10 min",
    ]
    assert rate(3e9, 2.0, "bytes") == "1.50 GB/s"
    assert rate(0, 1.0, "tokens") == ""


def test_plain_progress() -> None:
    """A log gets a line at the start and the end of a step, and one every ten seconds between."""
    now = [0.0]
    out = io.StringIO()
    show = PlainProgress(out, lambda: now[0])
    show(StepStarted("m", "finetune", 100, "steps"))
    for step in range(1, 26):
        now[0] += 1.0
        show(StepProgress("m", step, 100, step * 50, "tokens", 2.5))
    show(StepFinished("m", "finetune", "ran", 25.0))
    show(Waiting("n", "cast"))
    show(Note("hello"))
    lines = out.getvalue().splitlines()
    assert lines[0].split() == ["m", "finetune", "..."]
    assert "10/100 steps  loss 2.500  50 tokens/s  1 min 30 s left" in lines[1]
    assert len(lines) == 6
    assert lines[-1] == "hello"
