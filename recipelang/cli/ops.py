"""List the operations, or show the reference of one.

recipe ops ties-merge
"""

from __future__ import annotations

import argparse
import sys

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="an operation")
    parser.add_argument(
        "--format", choices=["text", "json"], default="text", help="of the reference"
    )


def run(args: argparse.Namespace) -> int:
    """Print the list or a page. Raises RecipeError E0863 where no operation has that name."""
    from recipelang.diagnostics import fault
    from recipelang.ops.registry import lookup, verbs

    if args.name is None:
        return _list(args.format)
    operation = lookup(args.name) if args.name in verbs() else None
    if operation is None or operation.internal:
        from recipelang.language.suggest import nearest

        near = nearest(args.name, verbs())
        hint = f"did you mean `recipe ops {near}`?" if near else "`recipe ops` lists them"
        raise fault("E0863", f"there is no operation `{args.name}`", help=hint)
    if args.format == "json":
        import json

        from recipelang.ops.reference import field_default, field_type, form

        fields = [
            {"name": f.name, "type": field_type(f), "default": field_default(f), "doc": f.doc}
            for f in operation.fields
        ]
        row = {
            "verb": operation.verb,
            "form": form(operation),
            "doc": operation.doc,
            "fields": fields,
        }
        print(json.dumps({"schema": "recipelang/ops/1", "operations": [row]}))
        return 0
    from recipelang.ops.reference import reference

    print(reference(operation))
    return 0


def _list(format: str) -> int:
    from recipelang.diagnostics import RecipeError, Sink
    from recipelang.diagnostics.terminal import render_all
    from recipelang.ops.registry import lookup, verbs
    from recipelang.ops.spec import Operation

    sink = Sink()
    known: list[Operation] = []
    for verb in verbs():
        try:
            operation = lookup(verb)
        except RecipeError as error:  # a plug-in that fails: the others are listed
            sink.extend(error.diagnostics)
            continue
        if operation is not None and not operation.internal:
            known.append(operation)
    if format == "json":
        import json

        from recipelang.diagnostics.json import to_json
        from recipelang.ops.reference import form

        rows = [{"verb": op.verb, "form": form(op), "summary": op.summary} for op in known]
        said = to_json(sink)["diagnostics"]
        print(json.dumps({"schema": "recipelang/ops/1", "operations": rows, "diagnostics": said}))
        return sink.exit_code
    for op in known:
        print(f"{op.verb:<24} {op.summary.rstrip('.')}")
    render_all(sink, sys.stderr)
    return sink.exit_code
