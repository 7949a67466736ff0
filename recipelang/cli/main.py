"""``recipe COMMAND ...``: finds the command's file, parses its arguments and runs it."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

__all__ = ["commands", "main"]


def commands() -> tuple[str, ...]:
    """The names of the commands, which are the names of the files beside this one."""
    stems = (file.stem for file in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(s.rstrip("_") for s in stems if not s.startswith("_") and s != "main"))


def _module_name(command: str) -> str:
    """``import`` would be a reserved word: such a file is named ``import_.py``."""
    plain = Path(__file__).parent / f"{command}.py"
    return f"recipelang.cli.{command}" if plain.exists() else f"recipelang.cli.{command}_"


def summary(command: str) -> str:
    """The first line of the command file's docstring, read without importing it."""
    name = _module_name(command).rpartition(".")[2]
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return text.removeprefix('"""').partition("\n")[0].removesuffix('"""').rstrip(".")


def usage() -> str:
    """The overview that ``recipe --help`` prints."""
    rows = "\n".join(f"  {name:<10} {summary(name)}" for name in commands())
    return (
        "usage: recipe COMMAND [ARGUMENT ...]\n\n"
        "Model recipes: checked, planned, run and recorded.\n\n"
        f"{rows}\n\n`recipe COMMAND --help` says more of each."
    )


def _told(error: Exception, schema: str) -> int:
    """Print the diagnostics that an error carries, and give their exit code; others are raised.
    ``schema`` is that of the command's results where they are wanted as JSON, else empty."""
    from recipelang.diagnostics import RecipeError, Sink

    if not isinstance(error, RecipeError):
        raise error
    sink = Sink()
    sink.extend(error.diagnostics)
    if schema:
        import json

        from recipelang.diagnostics.json import to_json

        print(json.dumps({**to_json(sink), "schema": schema}))
    else:
        from recipelang.diagnostics.terminal import render_all

        render_all(sink, sys.stderr)
    return sink.exit_code


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (see the language reference, section 8)."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if args else 1
    if args[0] in ("-V", "--version"):
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"recipe {version('recipelang')}")
        except PackageNotFoundError:
            print("recipe (from a checkout)")
        return 0
    name = args[0]
    if name not in commands():
        import difflib

        near = difflib.get_close_matches(name, commands(), 1, 0.6)
        hint = f"did you mean `recipe {near[0]}`?" if near else "`recipe --help` lists them"
        print(f"error: unknown command `{name}`\n   = help: {hint}", file=sys.stderr)
        return 1
    module = importlib.import_module(_module_name(name))
    parser = argparse.ArgumentParser(prog=f"recipe {name}", description=module.__doc__)
    module.add_arguments(parser)
    try:
        parsed = parser.parse_args(args[1:])
    except SystemExit as stop:
        return 0 if stop.code in (0, None) else 1
    try:
        code: int = module.run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        wanted = getattr(parsed, "format", "text") == "json"
        schema = getattr(module, "SCHEMA", f"recipelang/{name}/1")
        return _told(error, schema if wanted else "")
    return code
