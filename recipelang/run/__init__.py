"""Running recipes: what a plan says is computed, recorded, judged and published.

Example:
    >>> outcome = run(program, Path("medic.recipe"), targets=("student",))  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipelang.program import Program
    from recipelang.run.results import Outcome

__all__ = ["run"]


def run(program: Program, path: str | Path | None = None, **options: Any) -> Outcome:
    """Carry a checked program out.

    ``path`` is the recipe's file [the program's source]; the store and the lock are found by it.
    ``options`` are those of :class:`recipelang.run.running.RunOptions`. Raises RecipeError for what
    speaks against the run before it starts; what goes wrong later is in the outcome.
    """
    from recipelang.run.running import RunOptions, run_program

    return run_program(program, Path(path or program.source.path), RunOptions(**options))
