"""Finds operations by file name, and imports only those a recipe uses.

``ops/merge/ties_merge.py`` is the verb ``ties-merge``. Folders named in ``RECIPE_OPS`` (separated
as in ``PATH``) and packages named by the entry-point group ``recipelang.ops`` are searched too.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

from recipelang.ops.spec import Operation

__all__ = ["lookup", "verbs"]


def _folders() -> list[tuple[Path, str]]:
    """Folders that hold operation files, each with the package it is (or empty)."""
    here = Path(__file__).parent
    own = [(f, f"recipelang.ops.{f.name}") for f in sorted(here.iterdir()) if f.is_dir()]
    extra = [(Path(p), "") for p in os.environ.get("RECIPE_OPS", "").split(os.pathsep) if p]
    return own + extra


def _plugins() -> list[tuple[Path, str]]:
    """Folders of third-party packages, by entry point."""
    from importlib.metadata import entry_points

    found: list[tuple[Path, str]] = []
    for point in entry_points(group="recipelang.ops"):
        spec = importlib.util.find_spec(point.value)
        for location in (spec.submodule_search_locations or []) if spec else []:
            found.append((Path(location), point.value))
    return found


@cache
def verbs() -> dict[str, tuple[Path, str]]:
    """Every verb with its file and the package the file is in (empty outside packages).

    Two files for one verb are a fault of the installation, and raise RecipeError E0216.
    """
    return _files((*_folders(), *_plugins()))


@cache
def _nearby() -> dict[str, tuple[Path, str]]:
    """The verbs that need no look at the installed packages, which would cost every start 40 ms."""
    return _files(_folders())


def _files(folders: Iterable[tuple[Path, str]]) -> dict[str, tuple[Path, str]]:
    found: dict[str, tuple[Path, str]] = {}
    for folder, package in folders:
        for file in sorted(folder.glob("*.py")):
            if file.stem.startswith("_"):
                continue
            verb = file.stem.rstrip("_").replace("_", "-")
            if verb in found:
                raise _unusable(file, f"`{found[verb][0]}` defines `{verb}` too")
            found[verb] = (file, package)
    return found


@cache
def lookup(verb: str) -> Operation | None:
    """The operation of that verb, or None.

    Raises RecipeError E0216 where the file of a plug-in fails when it is imported, or declares no
    operation of its name.
    """
    place = _nearby().get(verb) or verbs().get(verb)
    if place is None:
        return None
    file, package = place
    try:
        module = _import(file, package)
    except Exception as error:  # whatever a plug-in's code raises
        if package.startswith("recipelang.ops"):
            raise
        raise _unusable(file, f"{type(error).__name__}: {error}") from error
    for value in vars(module).values():
        if isinstance(value, Operation) and value.verb == verb:
            return value
    raise _unusable(file, f"it declares no operation `{verb}`")


def _import(file: Path, package: str) -> ModuleType:
    """The module of an operation's file, which need not be in a package."""
    if package:
        return importlib.import_module(f"{package}.{file.stem}")
    name = f"recipelang_ops_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _unusable(file: Path, why: str) -> Exception:
    from recipelang.diagnostics import fault

    return fault(
        "E0216",
        f"the operation file `{file}` cannot be used: {why}",
        help="mend or remove the plug-in; `RECIPE_OPS` names folders of operations",
    )


def clear() -> None:
    """Forget what was found (tests add operation files while they run)."""
    verbs.cache_clear()
    _nearby.cache_clear()
    lookup.cache_clear()
