"""List what happened: the runs of the store, and the steps of each.

recipe log
recipe log medic.recipe -n 3
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from recipelang.run.record import RunRecord, StepRecord

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="a recipe [all of the store]")
    parser.add_argument(
        "-n", type=int, default=10, metavar="RUNS", help="how many of the latest runs [10]"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the list")


def run(args: argparse.Namespace) -> int:
    """Print the latest runs, newest first. Raises RecipeError where the store cannot be read."""
    from recipelang.run.record import read_runs
    from recipelang.store import Store

    store = Store.open_for(Path(args.file) if args.file else Path.cwd())
    runs = [r for r in read_runs(store) if args.file is None or _same(r.recipe, args.file)]
    latest = runs[::-1][: max(args.n, 0)]
    if args.format == "json":
        import json
        from dataclasses import asdict

        print(
            json.dumps(
                {"schema": "recipelang/log/1", "runs": [asdict(r) for r in latest]},
                ensure_ascii=False,
            )
        )
        return 0
    if not latest:
        print(f"no runs yet in the store `{store.root}`")
    for record in latest:
        print("\n".join(_lines(record)))
    return 0


def _same(recorded: str, asked: str) -> bool:
    return os.path.realpath(recorded) == os.path.realpath(asked)


def _lines(record: RunRecord) -> list[str]:
    """A run's head line, then a line a step."""
    head = f"{record.started}  {Path(record.recipe).name}"
    if record.targets:
        head += " " + " ".join(record.targets)
    head += f"  {_outcome(record)}"
    if record.params:
        head += "  " + " ".join(f"{name}={value}" for name, value in sorted(record.params.items()))
    if record.backend:
        head += f"  ({record.versions or record.backend})"
    width = max((len(s.place) for s in record.steps), default=0)
    verbs = max((len(s.op) for s in record.steps), default=0)
    return [head, *(_step(s, width, verbs) for s in record.steps), ""]


def _outcome(record: RunRecord) -> str:
    """``running`` is also what a killed run leaves."""
    words = {
        "running": "not finished",
        "gate": "a gate did not hold",
        "locked": "refused by --locked",
    }
    return words.get(record.outcome, record.outcome)


def _step(step: StepRecord, width: int, verbs: int) -> str:
    from recipelang.run.progress import duration

    spent = duration(step.seconds) if step.result in ("ran", "failed") else ""
    row = f"  {step.place:<{width}}  {step.op:<{verbs}}  {step.result:<7}  {spent:>12}"
    return f"{row}  {step.artifact[:12]:<12}  {step.backend}  {step.detail}".rstrip()
