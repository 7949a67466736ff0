"""Where the store of a recipe is: the nearest ``.recipe/`` upward, else at the git root, else
beside it.

Example:
    >>> find_root(Path("project/recipes/a.recipe"), {"RECIPE_STORE": "/big/store"})
    PosixPath('/big/store')
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FOLDER", "find_root"]

FOLDER = ".recipe"


def find_root(recipe: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The store's folder for a recipe file (or a folder); nothing is made.

    ``RECIPE_STORE`` wins. A ``.recipe`` counts where it is a folder.
    """
    named = environment.get("RECIPE_STORE", "")
    if named:
        return Path(named).expanduser()
    start = recipe.absolute()
    if not start.is_dir():
        start = start.parent
    above = (start, *start.parents)
    for folder in above:
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    for folder in above:
        if (folder / ".git").exists():
            return folder / FOLDER
    return start / FOLDER
