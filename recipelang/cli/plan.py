"""Show what a run would do, what is cached and why not, and what it takes.

recipe plan medic.recipe student --passes
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from recipelang.cli._settings import add_settings, read_settings

if TYPE_CHECKING:
    from recipelang.diagnostics import Sink
    from recipelang.plan.schedule import Plan
    from recipelang.program import Program

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a recipe")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="a binding to build [all]")
    parser.add_argument("--passes", action="store_true", help="say what each pass changed")
    parser.add_argument(
        "--without", action="append", default=[], metavar="PASS", help="leave out a pass"
    )
    parser.add_argument("--backend", help="`torch` or `jax`; a result of another is not used then")
    parser.add_argument("--store", metavar="FOLDER", help="another store than the recipe's")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the plan")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan; 1 where something speaks against the run, 2 when all of it is of files and
    data."""
    import recipelang
    from recipelang.diagnostics import RecipeError, Sink
    from recipelang.diagnostics.terminal import render_all

    settings = read_settings(args.set)
    checked = recipelang.check(args.file, settings)
    sink, made = Sink(list(checked.sink.diagnostics)), None
    if checked.program is not None:
        try:
            made = _planned(checked.program, args)
            sink.extend(made.diagnostics)
        except RecipeError as error:
            sink.extend(error.diagnostics)
    if args.format == "json":
        _print_json(made, args.file, sink)
    elif made is not None:
        from recipelang.plan.render import render

        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(render(made, colour=colour, passes=args.passes), end="")
    render_all(sink, sys.stderr)
    return sink.exit_code


def _planned(program: Program, args: argparse.Namespace) -> Plan:
    from recipelang.plan import plan

    return plan(
        program, args.targets, backend=args.backend, skip=args.without, store=args.store,
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )  # fmt: skip


def _print_json(made: Plan | None, recipe: str, sink: Sink) -> None:
    """The plan, or that there is none, with everything that is to be said of the recipe."""
    from recipelang.diagnostics.json import to_json as said
    from recipelang.plan.render import SCHEMA, to_json

    found = to_json(made) if made else {"schema": SCHEMA, "recipe": recipe, "steps": None}
    print(json.dumps({**found, "diagnostics": said(sink)["diagnostics"]}, ensure_ascii=False))
