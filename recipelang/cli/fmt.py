"""Write recipes in the one style.

The style has no options (see the language reference, section 7). A file that does not parse stays
as it is. With ``--check`` nothing is written, and the files that would change are listed.

Example: ``recipe fmt recipes/*.recipe`` and, in a test, ``recipe fmt --check recipes/*.recipe``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a recipe file")
    parser.add_argument("--check", action="store_true", help="list changes, write nothing")


def run(args: argparse.Namespace) -> int:
    """Format the files; 1 when ``--check`` finds a change or a file has faults, 2 for E07 alone."""
    from recipelang.diagnostics import RecipeError, Sink, fault
    from recipelang.diagnostics.terminal import render_all
    from recipelang.language.format import format_source
    from recipelang.language.reading import read_source

    sink = Sink()
    changed = 0
    for name in args.files:
        source = read_source(name, sink)
        if source is None:
            continue
        try:
            text = format_source(source)
            if text == source.text:
                continue
            if not args.check:
                _replace(Path(name), text)
        except RecipeError as error:
            sink.extend(error.diagnostics)
            continue
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            sink.extend(fault("E0701", f"cannot write `{name}`: {reason}").diagnostics)
            continue
        changed += 1
        print(f"would change {name}" if args.check else f"formatted {name}")
    render_all(sink, sys.stderr)
    return sink.exit_code or int(args.check and changed > 0)


def _replace(path: Path, text: str) -> None:
    """Put the text in the file's place in one step; its mode stays, and so does a link to it."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o7777
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
