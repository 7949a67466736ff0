"""drop_dead: leave out what no target needs.

Example: a binding that no gate, publish, evaluation or target reaches is not built.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from recipelang.ir.graph import walk
from recipelang.passes.state import GraphState
from recipelang.program import nodes_of

__all__ = ["DropDead"]


@dataclass(frozen=True, slots=True)
class DropDead:
    """Schedule only what the targets reach.

    Law: steps are pure, so one whose result nobody takes may be left out.
    """

    name: str = "drop_dead"
    exactness: str = "exact"

    def apply(self, state: GraphState) -> GraphState:
        """Make the targets the only roots."""
        live = set(walk(state.targets))
        bound = {
            name: [state.current.get(n, n) for n in nodes_of(value)]
            for name, value in state.program.bindings.items()
        }
        dead = [name for name, nodes in bound.items() if nodes and not live.intersection(nodes)]
        texts = [f"`{name}` is not needed" for name in dead]
        return replace(state, roots=state.targets).note(self.name, *texts)
