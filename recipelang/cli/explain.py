"""Explain an error code: what it means, an example of it, and the example put right.

recipe explain E0412
"""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("code", metavar="CODE", help="a code such as E0412")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="of the page")


def run(args: argparse.Namespace) -> int:
    """Print the page. Raises RecipeError E0863 where there is none of that code."""
    from recipelang.diagnostics import fault
    from recipelang.diagnostics.pages import codes, page

    found = page(args.code)
    if found is None:
        near = max(codes(), key=lambda code: _shared(code, args.code.upper()))
        like = _shared(near, args.code.upper()) > 2
        hint = f"did you mean `recipe explain {near}`?" if like else "codes look like `E0412`"
        raise fault("E0863", f"there is no page for `{args.code}`", help=hint)
    if args.format == "json":
        import json

        print(
            json.dumps(
                {
                    "schema": "recipelang/explain/1",
                    "code": found.code,
                    "title": found.title,
                    "text": found.text,
                }
            )
        )
    else:
        print(found.text.rstrip())
    return 0


def _shared(one: str, other: str) -> int:
    """The length of the common beginning of two codes."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 5)
