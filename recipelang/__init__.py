"""recipelang: a compiler for model recipes.

The Python API; nothing heavy is imported until it is needed. (``recipelang.plan`` and
``recipelang.run`` are packages, so the functions say what they plan and run.)

Example:
    >>> import recipelang
    >>> checked = recipelang.check_text("rate = 2 * 5e-6\\n")
    >>> checked.program.bindings["rate"]
    0.00001
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipelang.checking import Checked
    from recipelang.plan.schedule import Plan
    from recipelang.program import Program
    from recipelang.run.results import Outcome

__all__ = ["check", "check_text", "load", "plan_recipe", "run_recipe"]


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


def plan_recipe(
    program: Program, targets: Collection[str] = (), *, backend: str | None = None
) -> Plan:
    """What a run of the program would do: see :func:`recipelang.plan.plan`."""
    from recipelang.plan import plan as implementation

    return implementation(program, targets, backend=backend)


def run_recipe(
    path: str | Path,
    targets: Collection[str] = (),
    *,
    backend: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> Outcome:
    """Carry a recipe out; faults are in the outcome: see :mod:`recipelang.run.running`."""
    from recipelang.run.running import RunOptions
    from recipelang.run.running import run_recipe as implementation

    options = RunOptions(targets=tuple(targets), backend=backend, settings=dict(settings or {}))
    return implementation(Path(path), options)
