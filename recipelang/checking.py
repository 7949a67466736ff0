"""Checking a recipe: read, parse, give it its meaning; compute nothing and write nothing.

Example:
    >>> checked = check_text("rate = 2 * 5e-6\\n")
    >>> checked.program.bindings["rate"], checked.sink.exit_code
    (1e-05, 0)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recipelang.diagnostics import Sink, Source
from recipelang.program import Program

__all__ = ["Checked", "check", "check_text"]


@dataclass(frozen=True, slots=True)
class Checked:
    """A program, or None where the sink holds an error; and everything that was found."""

    program: Program | None
    sink: Sink


def check(path: str | Path, settings: Mapping[str, str] | None = None) -> Checked:
    """Check the recipe in a file.

    ``settings`` are values for its ``param`` names, as ``--set name=value`` gives them. Never
    raises for a bad recipe: faults are in the sink, in the order of the file.
    """
    from recipelang.language.elaborate import elaborate
    from recipelang.language.parser import parse
    from recipelang.language.reading import read_source

    sink = Sink()
    source = read_source(path, sink)
    if source is None:
        return Checked(None, sink)
    tree = parse(source, sink)
    folder = os.path.dirname(os.path.abspath(path))
    return Checked(elaborate(tree, sink, settings=settings, folder=folder), sink)


def check_text(
    text: str,
    settings: Mapping[str, str] | None = None,
    *,
    path: str = "recipe",
    folder: str | None = None,
) -> Checked:
    """Check a recipe given as text. Relative paths in it start at ``folder`` [the current one]."""
    from recipelang.language.elaborate import elaborate
    from recipelang.language.parser import parse

    sink = Sink()
    tree = parse(Source(path, text), sink)
    return Checked(elaborate(tree, sink, settings=settings, folder=folder or os.getcwd()), sink)
