"""``--set name=value``, shared by the commands that read a recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

__all__ = ["add_settings", "read_settings"]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add ``--set``, which may stand several times."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a value for a `param` of the recipe, written as in the recipe",
    )


def read_settings(written: Sequence[str]) -> dict[str, str] | None:
    """The values by name; None (and a message) for one without ``=``."""
    settings: dict[str, str] = {}
    for item in written:
        name, equal, value = item.partition("=")
        if not equal or not name.strip():
            print(
                f"error: `--set {item}` has no `=`\n   = help: write `--set name=value`",
                file=sys.stderr,
            )
            return None
        settings[name.strip()] = value.strip()
    return settings
