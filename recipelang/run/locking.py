"""The lock file while a recipe runs: written after each finished step, or compared with
``--locked``.

Example: ``write_lock(Path("a.recipe"), lock)``.
"""

from __future__ import annotations

from pathlib import Path

from recipelang.lineage.lockfile import Lock, lock_path
from recipelang.store.files import write_file

__all__ = ["changed_places", "write_lock"]


def write_lock(recipe: Path, lock: Lock) -> None:
    """Write the lock of a recipe, whole or not at all; an equal one is left as it is.

    Raises RecipeError E0851, E0852.
    """
    path = lock_path(recipe)
    data = lock.to_text().encode()
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    write_file(path, data, path.parent)


def changed_places(before: Lock, after: Lock) -> tuple[str, ...]:
    """The places whose block differs, and those that are new or gone, sorted."""
    names = {*before.steps, *after.steps}
    return tuple(sorted(n for n in names if before.steps.get(n) != after.steps.get(n)))
