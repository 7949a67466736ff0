"""The command line: one file a command, found by its name; each parses, calls the API, renders."""

from recipelang.cli.main import main

__all__ = ["main"]
