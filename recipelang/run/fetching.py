"""Brings the sources of a program onto this machine: those of the Hugging Face hub.

Example: ``fetch_missing(program, folder, listener)`` is true where something was fetched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from recipelang.diagnostics import Label, RecipeError
from recipelang.ir.graph import Node, walk
from recipelang.lineage.keys import is_input
from recipelang.ops import registry
from recipelang.program import Program, nodes_of
from recipelang.run.events import Listener, Note

__all__ = ["fetch_all", "fetch_missing", "hub_sources"]


def hub_sources(program: Program) -> Iterator[Node]:
    """The steps that name a repository of the hub."""
    bound = [n for value in program.bindings.values() for n in nodes_of(value)]
    for node in walk([*bound, *program.roots()]):
        if is_input(registry.lookup(node.op)) and str(node.attr("uri")).startswith("hf:"):
            yield node


def fetch_missing(program: Program, folder: Path, listener: Listener) -> bool:
    """Fetch the sources that are not here; whether there were any. Raises RecipeError E0723."""
    from recipelang.store.view import source_path

    missing = [node for node in hub_sources(program) if source_path(node, folder) is None]
    for node in missing:
        _fetch(program, node, listener, metadata=False)
    return bool(missing)


def fetch_all(
    program: Program, listener: Listener, *, metadata: bool
) -> list[tuple[str, Path, str]]:
    """Fetch every source of the hub: its URI, its folder, its commit. Raises RecipeError E0723."""
    return [_fetch(program, node, listener, metadata=metadata) for node in hub_sources(program)]


def _fetch(
    program: Program, node: Node, listener: Listener, *, metadata: bool
) -> tuple[str, Path, str]:
    """Fetch one source; what hinders it is told at its place in the recipe."""
    from recipelang.sources import fetch

    uri, revision = str(node.attr("uri")), node.attr("revision")
    listener(Note(f"fetching {uri}"))
    commit = revision if isinstance(revision, str) else None
    try:
        found = fetch(uri, commit, token=_token(node), metadata=metadata)
    except RecipeError as error:
        span = program.spans.get(node)
        label = Label(span) if span else None
        raise RecipeError(*(replace(d, primary=label) for d in error.diagnostics)) from error
    return uri, found.path, found.revision


def _token(node: Node) -> str | None:
    """The secret that the recipe names; its value never leaves this call."""
    name = node.attr("token")
    return os.environ.get(name) if isinstance(name, str) else None
