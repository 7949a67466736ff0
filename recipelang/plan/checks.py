"""Names that a command line gives: targets and passes must exist.

Example: an unknown target ``studnet`` is E0820, with ``student`` as the offer.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

from recipelang.diagnostics import fault
from recipelang.passes import PIPELINE
from recipelang.program import Program, nodes_of

__all__ = ["checked_names"]


def checked_names(program: Program, targets: Collection[str], passes: Collection[str]) -> None:
    """Raise RecipeError E0820 for a target that is no binding with steps, or a pass that is
    none."""
    buildable = [name for name, value in program.bindings.items() if nodes_of(value)]
    for name in targets:
        if name not in buildable:
            what = "holds no step" if name in program.bindings else "is not a binding of this file"
            raise fault("E0820", f"the target `{name}` {what}", help=_offer(name, buildable))
    known = [one.name for one in PIPELINE]
    for name in passes:
        if name not in known:
            raise fault("E0820", f"there is no pass `{name}`", help=_offer(name, known))


def _offer(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1, 0.6)
    return f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(known)}"
