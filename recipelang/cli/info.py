"""Tell what a model is, what it was made of, and how a merge changed it, layer by layer.

recipe info medic.recipe student
recipe info out/student
recipe info 3fa2b1c4
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipelang.run.info import Info, MadeStep

__all__ = ["add_arguments", "info_lines", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder, FILE.recipe:NAME, NAME, or the start of an artifact's id",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a binding, where MODEL is a recipe"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the result")


def run(args: argparse.Namespace) -> int:
    """Print the description on stdout, and what a merge's figures warn of on stderr."""
    from recipelang.diagnostics.terminal import render_all
    from recipelang.run.info import describe
    from recipelang.run.merge_reports import warnings

    name = args.model if args.name is None else f"{args.model}:{args.name}"
    info = describe(name, Path.cwd())
    place = info.made.place if info.made else name
    found = tuple(warnings(place, info.report)) if info.report else ()
    if args.format == "json":
        import json

        from recipelang.diagnostics.json import to_json

        document = {**info.to_json(), "diagnostics": to_json(found)["diagnostics"]}
        print(json.dumps(document, ensure_ascii=False))
        return 0
    from recipelang.cli._results import print_blocks

    print_blocks(info_lines(info), os.environ)
    render_all(found, sys.stderr)
    return 0


def info_lines(info: Info) -> Iterator[str | list[list[str]]]:
    """Lines of text, and the tables of the search and the merge as rows with a header."""
    from recipelang.run.merge_text import bar_lines, merge_rows, merge_title, notes
    from recipelang.run.soup_reports import soup_line, soup_rows

    yield info.name
    for title, text in _facts(info):
        yield f"  {title:<14}{text}".rstrip()
    if info.soup is not None:
        yield ""
        yield f"greedy-soup: {soup_line(info.soup)}"
        yield ""
        yield [list(row) for row in soup_rows(info.soup)]
    if info.report is not None:
        yield ""
        yield merge_title(info.report)
        yield ""
        yield merge_rows(info.report)
        yield ""
        yield from (line.rstrip() for line in bar_lines(info.report))
        yield ""
        yield from notes(info.report)


def _facts(info: Info) -> Iterator[tuple[str, str]]:
    from recipelang.plan.units import bytes_text

    sizes = ", ".join(f"{name} {value}" for name, value in info.sizes.items())
    yield "architecture", ": ".join(filter(None, (info.type.architecture or "unknown", sizes)))
    if info.type.parameters is not None:
        dtypes = " and ".join(
            dtype if len(info.dtypes) == 1 else f"{count:,} {dtype}"
            for dtype, count in sorted(info.dtypes.items())
        )
        yield (
            "parameters",
            f"{info.type.parameters:,} in {len(info.type.tensors or {})} tensors, "
            f"{bytes_text(info.type.bytes or 0)}, {dtypes}",
        )
    tokenizer = info.type.tokenizer
    template = "with" if info.type.chat_template else "without"
    yield "tokenizer", f"{tokenizer.digest[:12]}, {template} chat template" if tokenizer else "none"
    if info.artifact:
        yield "artifact", info.artifact
    if info.made is not None:
        yield "made by", info.made.recipe
        yield from (("", _step(step)) for step in info.made.steps)


def _step(step: MadeStep) -> str:
    """``both = ties-merge(base: blank; inputs: wise, curious) { density = 0.6 }``."""
    inputs = "; ".join(f"{role}: {', '.join(names)}" for role, names in step.inputs.items())
    settings = ", ".join(f"{name} = {value}" for name, value in step.params.items())
    text = f"{step.place} = {step.op}({inputs or step.uri})"
    return f"{text} {{ {settings} }}" if settings else text
