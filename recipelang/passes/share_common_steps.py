"""share_common_steps: compute equal steps once.

Example: two names for ``finetune base on notes`` are one training; so are two paths to one file.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipelang.ir.graph import Node
from recipelang.passes.state import GraphState, rewrite

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

        before = state
        state = rewrite(state, rule)
        texts = self._by_content(before, state)
        names: dict[Node, list[str]] = {}
        for name, value in state.program.bindings.items():
            if isinstance(value, Node):
                names.setdefault(state.current.get(value, value), []).append(name)
        live = set(state.nodes())
        texts += [
            " and ".join(f"`{name}`" for name in shared) + " are one step"
            for node, shared in names.items()
            if len(shared) > 1 and node in live
        ]
        return state.note(self.name, *dict.fromkeys(texts))

    def _by_content(self, before: GraphState, after: GraphState) -> list[str]:
        """A text for each step that was not the same node and is now."""
        first: dict[str, Node] = {}
        texts: list[str] = []
        for node in before.nodes():
            one = first.setdefault(before.step_id(node), node)
            a, b = before.place(one) or one.op, before.place(node) or node.op
            bound = a in before.program.bindings and b in before.program.bindings
            if one is not node and not bound:
                texts.append(f"`{a}` and `{b}` are one step")
        return texts
