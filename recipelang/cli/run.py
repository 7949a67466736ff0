"""Carry a recipe out: build what is missing, judge the gates, publish.

    recipe run medic.recipe
    recipe run medic.recipe student --backend jax --set rate=1e-4
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from recipelang.cli._settings import add_settings, read_settings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a recipe")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="bindings to build [all that the file asks for]")
    parser.add_argument("--backend", help="torch or jax [the lock's, else torch, else jax]")
    add_settings(parser)
    parser.add_argument("--lock", action="store_true", help="write the lock also with --set")
    parser.add_argument("--locked", action="store_true", help="refuse to change the lock (exit code 3)")
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the results")


class _Terminated(KeyboardInterrupt):
    """SIGTERM; like Ctrl-C, everything finished is kept."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def run(args: argparse.Namespace) -> int:
    """Run; the exit code says how it went (see the language reference, section 8)."""
    from recipelang.diagnostics import Sink
    from recipelang.diagnostics.terminal import render_all
    from recipelang.run.progress import show_progress
    from recipelang.run.running import RunOptions, run_recipe

    settings = read_settings(args.set)
    if settings is None:
        return 1
    options = RunOptions(
        tuple(args.targets), args.backend, settings, args.lock, args.locked, args.offline
    )
    before = signal.signal(signal.SIGTERM, _terminate)
    progress = show_progress()
    try:
        outcome = run_recipe(Path(args.file), options, progress)
    except _Terminated:
        progress.close()
        print("terminated; what was finished is kept, the next run goes on from here", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        progress.close()
        print("interrupted; what was finished is kept, the next run goes on from here", file=sys.stderr)
        return 130
    finally:
        progress.close()
        signal.signal(signal.SIGTERM, before)
    sink = Sink()
    sink.extend(outcome.diagnostics)
    if args.format == "json":
        import json

        from recipelang.diagnostics.json import to_json
        from recipelang.run.results import results_json

        print(json.dumps({**results_json(outcome), "diagnostics": to_json(sink)["diagnostics"]}, ensure_ascii=False))
        return outcome.exit_code
    sys.stderr.flush()
    if outcome.record is not None:
        from recipelang.cli._results import print_results

        print_results(outcome, Path(args.file), os.environ)
    render_all(sink, sys.stderr)
    return outcome.exit_code
