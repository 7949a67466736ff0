"""share_common_steps: compute equal steps once.

Example: two names for ``finetune base on notes`` are one training; so are two paths to one file.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipelang.ir.graph import Node
from recipelang.passes.state import GraphState, rewrite
from recipelang.program import nodes_of

__all__ = ["ShareCommonSteps"]


@dataclass(frozen=True, slots=True)
class ShareCommonSteps:
    """Make one step of all that have one step id.

    Law: steps are pure functions of what their step id covers. Most sharing is by construction of
    the graph (equal steps are one node); what is left differs in where bytes lie alone.
    """

    name: str = "share_common_steps"
    exactness: str = "exact"

    def apply(self, state: GraphState) -> GraphState:
        """Rewrite users to the first of the equal steps."""
        first: dict[str, Node] = {}

        def rule(before: Node, built: Node) -> Node | None:
            return first.setdefault(state.step_id(before), built)

        state = rewrite(state, rule)
        names: dict[Node, list[str]] = {}
        for name, value in state.program.bindings.items():
            if isinstance(value, Node):
                names.setdefault(state.current.get(value, value), []).append(name)
            else:
                for i, node in enumerate(nodes_of(value)):
                    names.setdefault(state.current.get(node, node), []).append(f"{name}[{i}]")
        live = set(state.nodes())
        texts = [
            " and ".join(f"`{name}`" for name in shared) + " are one step"
            for node, shared in names.items()
            if len(shared) > 1 and node in live
        ]
        return state.note(self.name, *texts)
