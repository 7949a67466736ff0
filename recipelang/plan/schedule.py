"""The schedule: what `recipe plan` prints and `recipe run` carries out.

Example:
    >>> Estimate(seconds=90.0, memory_bytes=2**30).seconds
    90.0
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from recipelang.diagnostics import Diagnostic
from recipelang.ir.graph import Node
from recipelang.lineage.keys import ActionKey
from recipelang.passes.state import GraphState
from recipelang.program import GateRoot, PublishRoot

__all__ = ["Action", "Estimate", "Plan", "PlanStep", "Record", "StoreView"]

Action = Literal["run", "cached", "source", "derived", "skip"]
"""``run``: computed now. ``cached``: the result is in the store. ``source``: brought in from
outside. ``derived``: data that is cut, mixed or split when it is read, so nothing is stored.
``skip``: nobody needs it, because all that would use it is cached."""


class Record(Protocol):
    """What the store knows of one earlier run of an action."""

    @property
    def artifact(self) -> str:
        """The content id of the result, sha256 hex."""
        ...

    @property
    def backend(self) -> str:
        """``torch`` or ``jax``; empty for what no backend computed."""
        ...

    @property
    def seconds(self) -> float:
        """How long it took; 0 where that is not known."""
        ...

    @property
    def present(self) -> bool:
        """Whether the artifact itself is in the store (it may have been collected, or have lived
        inside a region only)."""
        ...


class StoreView(Protocol):
    """What a plan asks of the store. Nothing is written."""

    @property
    def root(self) -> Path:
        """The folder; it need not exist yet."""
        ...

    def hash_sources(self, nodes: Iterable[Node]) -> None:
        """Sources whose contents will be asked for."""
        ...

    def content(self, node: Node) -> str | None:
        """A source's revision or content digest; None where it is not on this machine yet."""
        ...

    def lookup(self, key: str, backend: str | None) -> Record | None:
        """The record of an action key: the lock's choice, else the only one. With ``backend``, only
        one that this backend (or none) computed."""
        ...

    def previous(self, place: str) -> Mapping[str, object] | None:
        """The action key's document (``op opv class params in draws``) that the lock has for the
        step at a place; None where it has none. It tells why a step runs again."""
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """``seconds`` is 0 where nothing is known of the device's speed; ``memory_bytes`` is the peak
    beyond what is idle; ``disk_bytes`` is what the step adds to the store."""

    seconds: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PlanStep:
    """One step of the run.

    ``node`` is what is computed, after the passes; ``lowered`` is what the recipe says, to which
    ``step_id`` and ``draws`` belong. ``place`` is its name in the lock. ``key`` is None while the
    content of an input is not known; then the run makes it with
    :func:`recipelang.lineage.keys.action_key` from the inputs' content ids. ``artifact`` is the
    content id of the result where it is known. ``region`` indexes :attr:`GraphState.regions`, and
    ``stored`` says whether the result is kept. ``reason`` says why it runs.
    """

    node: Node
    lowered: Node
    step_id: str
    place: str
    kind: str
    action: Action
    reason: str
    key: ActionKey | None
    draws: str | None
    artifact: str | None
    record: Record | None
    region: int | None
    stored: bool
    estimate: Estimate


@dataclass(frozen=True, eq=False)
class Plan:
    """All steps in run order (operands before users; what is cached waits for nothing), then gates,
    then publishes.

    ``state`` has the graph after the passes, regions, shared token sets and the changes.
    ``backend`` is the one that will be used, None where no step needs one. ``diagnostics`` holds
    what speaks against the run (over budget, no space, no backend). Bytes and seconds are totals of
    the steps that run; ``memory_bytes`` is the peak.
    """

    state: GraphState
    steps: tuple[PlanStep, ...]
    gates: tuple[GateRoot, ...]
    publishes: tuple[PublishRoot, ...]
    backend: str | None
    device: str
    seconds: float
    memory_bytes: int
    disk_bytes: int
    disk_free: int
    diagnostics: tuple[Diagnostic, ...]
    by_node: Mapping[Node, PlanStep]

    def step(self, lowered: Node) -> PlanStep:
        """The step that computes a node of the program now (a gate's measure, a published
        value)."""
        return self.by_node[self.state.current.get(lowered, lowered)]

    @property
    def to_run(self) -> tuple[PlanStep, ...]:
        """The steps that are computed, in order."""
        return tuple(step for step in self.steps if step.action == "run")
