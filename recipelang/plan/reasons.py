"""Why a step runs: the sentence behind ``+`` in a plan.

Example: ``density 0.5 -> 0.6``, ``teacher runs``, ``new``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from recipelang.ir.graph import Node
from recipelang.lineage.keys import ActionKey, is_input
from recipelang.passes.state import GraphState
from recipelang.plan.schedule import Action, Record, StoreView

__all__ = ["Reasons", "difference"]


@dataclass(frozen=True, slots=True)
class Reasons:
    """What is known while a plan is made."""

    state: GraphState
    view: StoreView
    actions: Mapping[Node, Action]
    keys: Mapping[Node, ActionKey]
    records: Mapping[Node, Record]
    backend: str | None

    def of(self, node: Node) -> str:
        """Why a step that runs is not cached, in a few words."""
        key = self.keys.get(node)
        if key is None:
            return self._unknown_input(node)
        if node in self.records:
            return "its result is no longer in the store"
        if self.backend is not None:
            other = self.view.lookup(key.digest, None)
            if other is not None:
                return f"the stored result is {other.backend}'s"
        before = self.view.previous(self.state.place(node))
        return "new" if before is None else difference(before, key.document)

    def _unknown_input(self, node: Node) -> str:
        for operand in node.inputs:
            if self.actions.get(operand) == "run" and operand not in self.records:
                return f"{self._name(operand)} runs"
        for operand in node.inputs:
            if is_input(self.state.lookup(operand.op)):
                if self.view.content(self.state.stands_for[operand]) is None:
                    return f"{self._name(operand)} is not on this machine yet"
            elif operand not in self.keys:
                return f"{self._name(operand)} is not known yet"
        return "an input is not known yet"

    def _name(self, node: Node) -> str:
        return self.state.place(node) or node.op


def difference(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """What differs between two documents of an action key, the most telling part first."""
    if before.get("op") != now.get("op"):
        return f"was {before.get('op')}"
    if before.get("opv") != now.get("opv"):
        return f"{now.get('op')} is version {now.get('opv')} now, was {before.get('opv')}"
    parts: list[str] = []
    old, new = _mapping(before.get("params")), _mapping(now.get("params"))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            parts.append(f"{name} {_text(old.get(name))} -> {_text(new.get(name))}")
    was, is_now = _mapping(before.get("in")), _mapping(now.get("in"))
    roles = [
        r for r in (*is_now, *(r for r in was if r not in is_now)) if was.get(r) != is_now.get(r)
    ]
    if roles:
        parts.append(f"{', '.join(roles)} changed")
    if not parts and before.get("draws") != now.get("draws"):
        parts.append("its random draws changed")
    return "; ".join(parts[:3]) + ("; ..." if len(parts) > 3 else "") or "its key changed"


def _mapping(value: object) -> Mapping[str, object]:
    return cast(Mapping[str, object], value) if isinstance(value, Mapping) else {}


def _text(value: object) -> str:
    """A canonical value (see ``values.canonical``) as a recipe writes it, more or less."""
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case {"n": str(number), "unit": str(unit)}:
            return f"{number} {unit}"
        case {"n": str(number)}:
            return number
        case {"form": str(name)}:
            pairs = cast("list[tuple[str, object]]", _mapping(value)["args"])
            inner = ", ".join(f"{key} = {_text(item)}" for key, item in pairs)
            return f"{name}({inner})" if inner else name
        case list():
            return f"[{', '.join(_text(item) for item in cast('list[object]', value))}]"
        case _:
            return str(value)
