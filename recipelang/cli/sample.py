"""Continue a prompt with a model: a published folder, a binding, or an artifact of the store.

recipe sample out/student "volcano:"
recipe sample medic.recipe:student "volcano:"
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a folder, FILE.recipe:NAME, NAME, or the start of an artifact's id",
    )
    parser.add_argument("prompt", metavar="PROMPT", help="a text to continue")
    parser.add_argument("--backend", help="torch or jax [the first that is installed]")
    parser.add_argument("--tokens", type=int, default=64, help="the most tokens to add [64]")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the result")


def run(args: argparse.Namespace) -> int:
    """Print the prompt with its greedy continuation."""
    from recipelang.diagnostics import RecipeError, Sink
    from recipelang.diagnostics.terminal import render_all
    from recipelang.run.sampling import find_model, sample

    try:
        model = find_model(args.model, Path.cwd())
        text = sample(model, args.prompt, args.backend, max(1, args.tokens))
    except RecipeError as error:
        sink = Sink()
        sink.extend(error.diagnostics)
        if args.format == "json":
            from recipelang.diagnostics.json import to_json

            said = to_json(sink)["diagnostics"]
            print(json.dumps({"schema": "recipelang/sample/1", "diagnostics": said}))
        render_all(sink, sys.stderr)
        return sink.exit_code
    if args.format == "json":
        row = {"schema": "recipelang/sample/1", "prompt": args.prompt, "text": text}
        print(json.dumps({**row, "artifact": model.artifact}, ensure_ascii=False))
    else:
        print(
            "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in args.prompt + text)
        )
    return 0
