"""``-o FILE``, shared by the commands that write a text: to stdout, or to a file that is not there
yet."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_output", "write_output"]


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``-o`` and ``--overwrite``."""
    parser.add_argument("-o", "--output", metavar="FILE", help=f"where {what} goes [stdout]")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it is there")


def write_output(text: str, args: argparse.Namespace) -> None:
    """Print the text, or write it to the file. Raises RecipeError E0701 where that cannot be."""
    from recipelang.diagnostics import fault

    if args.output is None:
        print(text, end="")
        return
    try:
        with Path(args.output).open("w" if args.overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        help = "choose another name, or pass `--overwrite`"
        raise fault("E0701", f"`{args.output}` exists already", help=help) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise fault("E0701", f"cannot write `{args.output}`: {reason}") from None
