"""``--set name=value``, shared by the commands that read a recipe."""

from __future__ import annotations

import argparse
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


def read_settings(written: Sequence[str]) -> dict[str, str]:
    """The values by name. Raises RecipeError E0863 for one without ``=``."""
    from recipelang.diagnostics import fault

    settings: dict[str, str] = {}
    for item in written:
        name, equal, value = item.partition("=")
        if not equal or not name.strip():
            raise fault(
                "E0863", f"`--set {item}` gives no parameter a value",
                help="write `--set name=value`",
            )  # fmt: skip
        settings[name.strip()] = value.strip()
    return settings
