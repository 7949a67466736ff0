"""Carry a recipe out: build what is missing, judge the gates, publish.

recipe run medic.recipe
recipe run medic.recipe student --backend jax --set rate=1e-4
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from recipelang.cli._settings import add_settings, read_settings

__all__ = ["SCHEMA", "add_arguments", "run"]

SCHEMA = "recipelang/results/1"
"""Of the results as JSON; a fault of the arguments is told in an object of the same schema."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a recipe")
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="bindings to build [all that the file asks for]",
    )
    parser.add_argument("--backend", help="torch or jax [the lock's, else torch, else jax]")
    add_settings(parser)
    parser.add_argument("--lock", action="store_true", help="write the lock also with --set")
    parser.add_argument(
        "--locked", action="store_true", help="refuse to change the lock (exit code 3)"
    )
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the results")


@dataclass
class _Signals:
    """Ctrl-C and SIGTERM: the first one that came, or 0."""

    number: int = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal and end what is going on."""
        self.number = self.number or number
        raise KeyboardInterrupt


def run(args: argparse.Namespace) -> int:
    """Run; the exit code says how it went (see the language reference, section 8)."""
    from recipelang.diagnostics import Sink
    from recipelang.diagnostics.terminal import render_all
    from recipelang.run.progress import show_progress
    from recipelang.run.running import RunOptions, run_recipe

    settings = read_settings(args.set)
    options = RunOptions(
        tuple(args.targets), args.backend, settings, args.lock, args.locked, args.offline
    )
    signals = _Signals()
    before = {n: signal.signal(n, signals) for n in (signal.SIGINT, signal.SIGTERM)}
    progress = show_progress()
    try:
        outcome = run_recipe(Path(args.file), options, progress, lambda: signals.number != 0)
    except KeyboardInterrupt:
        progress.close()
        word = "terminated" if signals.number == signal.SIGTERM else "interrupted"
        print(f"{word}; what was finished is kept, the next run goes on from here", file=sys.stderr)
        return 128 + (signals.number or signal.SIGINT)
    finally:
        progress.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    sink = Sink()
    sink.extend(outcome.diagnostics)
    if args.format == "json":
        import json

        from recipelang.diagnostics.json import to_json
        from recipelang.run.results import results_json

        print(
            json.dumps(
                {**results_json(outcome), "diagnostics": to_json(sink)["diagnostics"]},
                ensure_ascii=False,
            )
        )
        return outcome.exit_code
    sys.stderr.flush()
    if outcome.record is not None:
        from recipelang.cli._results import print_results

        print_results(outcome, Path(args.file), os.environ)
    render_all(sink, sys.stderr)
    return outcome.exit_code
