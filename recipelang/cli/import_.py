"""Turn a configuration of mergekit into a recipe.

recipe import merge.yml -o merge.recipe --publish-to out/merged
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.cli._writing import add_output, write_output

if TYPE_CHECKING:
    from recipelang.types import ModelType

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", metavar="FILE", help="what mergekit-yaml or mergekit-multi reads")
    add_output(parser, "the recipe")
    parser.add_argument(
        "--publish-to", metavar="URI", default="", help="where the recipe publishes its result"
    )
    parser.add_argument(
        "--exact",
        action="store_true",
        help="keep mergekit's definitions where recipelang's differ (`compat = mergekit`)",
    )


def _known(uri: str, revision: str, folder: str) -> ModelType | None:
    """The type of a model that is on this machine."""
    from recipelang.diagnostics import RecipeError
    from recipelang.weights.metadata import model_type

    try:
        return model_type(uri, revision or None, folder=Path(folder))
    except RecipeError:  # the check of the recipe says what is wrong with it
        return None


def run(args: argparse.Namespace) -> int:
    """Print or write the recipe; 2 where the configuration has faults, all with their lines."""
    from recipelang.convert.mergekit import Paths, import_yaml
    from recipelang.diagnostics import RecipeError, Sink
    from recipelang.diagnostics.terminal import render_all
    from recipelang.language.reading import read_source
    from recipelang.sources import SCHEME

    sink = Sink()
    source = read_source(args.file, sink, what="configuration")
    folder = os.path.dirname(os.path.abspath(args.output)) if args.output else os.getcwd()
    paths = Paths(os.getcwd(), folder)
    target = args.publish_to if SCHEME.match(args.publish_to) else paths.local(args.publish_to)
    text, known = None, cache(_known)
    if source is not None:
        text = import_yaml(
            source, sink, paths, publish_to=target if args.publish_to else "", exact=args.exact,
            known=lambda uri, revision: known(uri, revision, folder),
        )  # fmt: skip
    if text is not None:
        try:
            write_output(text, args)
        except RecipeError as error:
            sink.extend(error.diagnostics)
    render_all(sink, sys.stderr)
    return sink.exit_code
