"""recipelang: a compiler for model recipes.

The Python API; nothing heavy is imported until it is needed.

Example:
    >>> import recipelang
    >>> checked = recipelang.check_text("rate = 2 * 5e-6\\n")
    >>> checked.program.bindings["rate"]
    0.00001
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipelang.checking import Checked
    from recipelang.program import Program

__all__ = ["check", "check_text", "load", "plan", "run"]


def check(path: str | Path, settings: Mapping[str, str] | None = None) -> Checked:
    """Check a recipe: see :func:`recipelang.checking.check`."""
    from recipelang.checking import check as implementation

    return implementation(path, settings)


def check_text(
    text: str,
    settings: Mapping[str, str] | None = None,
    *,
    path: str = "recipe",
    folder: str | None = None,
) -> Checked:
    """Check a recipe given as text: see :func:`recipelang.checking.check_text`."""
    from recipelang.checking import check_text as implementation

    return implementation(text, settings, path=path, folder=folder)


def load(path: str | Path, settings: Mapping[str, str] | None = None) -> Program:
    """The program of a recipe. Raises :class:`~recipelang.diagnostics.RecipeError` where it has
    faults."""
    from recipelang.diagnostics import RecipeError

    checked = check(path, settings)
    if checked.program is None:
        raise RecipeError(*checked.sink)
    return checked.program


def plan(program: Program, *args: Any, **options: Any) -> Any:
    """What a run of the program would do: see ``recipelang.plan``."""
    return import_module("recipelang.plan").plan(program, *args, **options)


def run(program: Program, *args: Any, **options: Any) -> Any:
    """Carry the program out: see ``recipelang.run``."""
    return import_module("recipelang.run").run(program, *args, **options)
