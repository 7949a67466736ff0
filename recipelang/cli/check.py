"""Parse, resolve and type-check recipes; compute nothing.

recipe check medic.recipe --set rate=1e-4
"""

from __future__ import annotations

import argparse
import sys

from recipelang.cli._settings import add_settings, read_settings
from recipelang.diagnostics import Sink

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recipe")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the report")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Check every file; 1 on errors, 2 when all of them are of files and data."""
    from recipelang.checking import check
    from recipelang.diagnostics.terminal import render_all

    settings = read_settings(args.set)
    whole = Sink()
    sound: list[str] = []
    for file in args.files:
        checked = check(file, settings)
        whole.extend(checked.sink.diagnostics)
        if not checked.sink.has_errors:
            sound.append(file)
    if args.format == "json":
        import json

        from recipelang.diagnostics.json import to_json

        print(json.dumps({**to_json(whole), "schema": "recipelang/check/1", "checked": args.files}))
        return whole.exit_code
    render_all(whole, sys.stderr)
    for file in sound:
        print(f"{file}: sound")
    return whole.exit_code
