"""Turn a merge of a recipe into a configuration of mergekit.

recipe export merge.recipe merged --mergekit -o merge.yml
"""

from __future__ import annotations

import argparse
import os
import sys

from recipelang.cli._settings import add_settings, read_settings
from recipelang.cli._writing import add_output, write_output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="a recipe")
    parser.add_argument(
        "target", nargs="?", metavar="TARGET", help="a binding [what the recipe publishes]"
    )
    parser.add_argument(
        "--mergekit", action="store_true", required=True, help="as YAML for mergekit"
    )
    add_output(parser, "the configuration")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print or write the configuration; 1 or 2 where the recipe or the merge speaks against it."""
    from recipelang.checking import check
    from recipelang.convert.mergekit import export_yaml
    from recipelang.diagnostics import RecipeError
    from recipelang.diagnostics.terminal import render_all

    settings = read_settings(args.set)
    checked = check(args.file, settings)
    if checked.program is not None:
        try:
            write_output(export_yaml(checked.program, args.target, here=os.getcwd()), args)
        except RecipeError as error:
            checked.sink.extend(error.diagnostics)
    render_all(checked.sink, sys.stderr)
    return checked.sink.exit_code
