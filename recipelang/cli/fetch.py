"""Resolve and download the sources of a recipe.

recipe fetch medic.recipe --metadata
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from recipelang.cli._settings import add_settings, read_settings

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a recipe")
    parser.add_argument(
        "--metadata", action="store_true", help="configurations and tokenizers only"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the list")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Fetch what lies on the Hugging Face hub; everything else is on this machine already."""
    from recipelang.checking import check
    from recipelang.diagnostics import RecipeError
    from recipelang.diagnostics.terminal import render_all
    from recipelang.run.fetching import fetch_all
    from recipelang.run.progress import PlainProgress

    settings = read_settings(args.set)
    checked = check(Path(args.file), settings)
    found: list[tuple[str, Path, str]] = []
    if checked.program is not None:
        try:
            found = fetch_all(checked.program, PlainProgress(), metadata=args.metadata)
        except RecipeError as error:
            checked.sink.extend(error.diagnostics)
    if args.format == "json":
        import json

        from recipelang.diagnostics.json import to_json

        rows = [{"uri": uri, "path": str(path), "revision": commit} for uri, path, commit in found]
        said = to_json(checked.sink)["diagnostics"]
        print(json.dumps({"schema": "recipelang/fetch/1", "sources": rows, "diagnostics": said}))
    elif checked.program is not None and not checked.sink.has_errors:
        for uri, path, commit in found:
            print(f"{uri}  {commit[:12]}  {path}")
        if not found:
            print("nothing to fetch: every source is on this machine")
    render_all(checked.sink, sys.stderr)
    return checked.sink.exit_code
