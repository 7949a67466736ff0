"""Plans: what a run would do, what it would take, and why.

Example: ``print(render(plan(recipelang.load("medic.recipe"))))``, with ``render`` of
:mod:`recipelang.plan.render`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipelang.plan.schedule import Plan
    from recipelang.program import Program

__all__ = ["plan"]


def plan(
    program: Program, targets: Collection[str] = (), *, backend: str | None = None,
    skip: Collection[str] = (), store: str | None = None, verify: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Plan:  # fmt: skip
    """The plan of a program against its store and lock; nothing is written but digests of inputs.

    ``backend`` is ``torch`` or ``jax`` (the lock's, else torch, else jax); ``skip`` names passes to
    leave out; ``store`` is another store than the recipe's; ``tell`` hears how far hashing the
    inputs is when it takes long. Raises RecipeError for a name in
    ``targets`` or ``skip`` that there is not (E0820), and for a lock or store that cannot be read.
    """
    from dataclasses import replace
    from pathlib import Path

    from recipelang.lineage.lockfile import lock_path, read_lock
    from recipelang.plan.checks import checked_names
    from recipelang.plan.make import make_plan
    from recipelang.run.inputs import inspect_inputs, occupied_places
    from recipelang.store.store import Store
    from recipelang.store.view import View

    recipe = Path(program.source.path)
    checked_names(program, targets, skip)
    lock = read_lock(lock_path(recipe))
    opened = Store.open(Path(store)) if store else Store.open_for(recipe)
    view = View(opened, lock, recipe.absolute().parent, tell=tell)
    made = make_plan(
        program, tuple(targets), view, backend=backend, preferred=lock.backend,
        skip=frozenset(skip), verify=verify,
    )  # fmt: skip
    found = (*occupied_places(made), *inspect_inputs(made, tokenise_all=False).diagnostics)
    return replace(made, diagnostics=(*made.diagnostics, *found))
