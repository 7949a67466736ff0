"""What one run knows while it goes on: content ids, values, and what has become of each step.

Content ids come first and cheaply: a step whose inputs' ids are known has an action key, and a
record of that key gives its own id without opening anything. Values (open checkpoints, rows) are
made only for what is really computed, so a run of hits imports no array library.

Example: ``Session(plan, store, view, ...)``; :mod:`recipelang.run.executor` drives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipelang.backend import Backend
from recipelang.diagnostics import Diagnostic, Label, RecipeError
from recipelang.ir.graph import Node
from recipelang.lineage.keys import ActionKey
from recipelang.plan.make import key_of, uses_backend
from recipelang.plan.schedule import Plan, PlanStep
from recipelang.run.events import Listener
from recipelang.run.values import RuntimeValue
from recipelang.store import Store
from recipelang.store.view import Found, View

if TYPE_CHECKING:
    from recipelang.run.reports import Summary

__all__ = ["Blocked", "Session", "place_of", "placed"]


class Blocked(Exception):
    """A step cannot be computed because one that it needs has failed."""


@dataclass(eq=False)
class Session:
    """The state of a run.

    ``wanted`` is the backend of ``--backend``, None where any in the lock will do; ``named`` is the
    one that computes what is missing. ``ids`` are content ids by current node (of a source its step
    id, of data the digest of its key, of all else the artifact's id); ``found`` the records they
    came from; ``made_by`` the backend, kind and number of devices of merges on an accelerator;
    ``failed`` the nodes that failed; ``details`` what a step has to say of its result, in a line.
    ``stopped`` says whether a signal asked the run to end; ``distrusted`` where and how the
    accelerator gave wrong numbers in a merge.
    """

    plan: Plan
    store: Store
    view: View
    listener: Listener
    run_id: str
    wanted: str | None = None
    named: str | None = None
    stopped: Callable[[], bool] = lambda: False
    ids: dict[Node, str] = field(default_factory=dict[Node, str])
    keys: dict[Node, ActionKey] = field(default_factory=dict[Node, ActionKey])
    found: dict[Node, Found] = field(default_factory=dict[Node, Found])
    values: dict[Node, RuntimeValue] = field(default_factory=dict[Node, RuntimeValue])
    ran: dict[Node, float] = field(default_factory=dict[Node, float])
    made_by: dict[Node, tuple[str, str, int]] = field(
        default_factory=dict[Node, tuple[str, str, int]]
    )
    backends: dict[Node, str] = field(default_factory=dict[Node, str])
    failed: dict[Node, Diagnostic] = field(default_factory=dict[Node, Diagnostic])
    details: dict[Node, str] = field(default_factory=dict[Node, str])
    summaries: dict[str, Summary] = field(default_factory=dict[str, "Summary"])
    scores: dict[str, Any] = field(default_factory=dict[str, Any])
    work: dict[Node, Path] = field(default_factory=dict[Node, Path])
    distrusted: tuple[Node, str] | None = None
    _backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """The backend, imported when it is asked for. Raises RecipeError E0801."""
        if self._backend is None:
            from recipelang.backend import find

            self._backend = find(self.named)
        return self._backend

    @property
    def backend_if_used(self) -> Backend | None:
        """The backend where this run has needed one."""
        return self._backend

    @property
    def accelerator(self) -> Backend | None:
        """The backend that regions are computed on: that of ``--backend``, where its best device is
        not the CPU. Without the option nothing is imported to find out, and merges have the same
        bits on every machine. None once it is ``distrusted``.
        """
        from recipelang import processors
        from recipelang.backend import available

        if self.wanted is None or self.wanted not in available() or self.distrusted:
            return None
        if not processors.may_have_gpu():
            return None
        devices = self.backend.devices()
        return self.backend if devices and devices[0].kind != "cpu" else None

    def step(self, node: Node) -> PlanStep:
        """The plan's step of a current node."""
        return self.plan.by_node[node]

    def make_key(self, node: Node) -> ActionKey:
        """The action key of a step, once the content ids of its inputs are known."""
        found = key_of(self.plan.state, node, self.ids)
        if found is None:
            raise Blocked
        self.keys[node] = found
        return found

    def made_on(self, node: Node) -> tuple[str, str, int]:
        """Backend, kind and number of devices of a step that was computed now; empty without
        backend.
        """
        if node in self.made_by:
            return self.made_by[node]
        if self._backend is None or not uses_backend(node, self.plan.state.lookup(node.op)):
            return "", "", 0
        if self.step(node).kind == "choose":
            return "", "", 0
        devices = self._backend.devices()
        return self._backend.name, devices[0].kind if devices else "cpu", 1

    def keep_trace(self, place: str, text: str) -> str:
        """Keep the traceback of a failed step in the run's folder; returns a sentence that says
        where.
        """
        name = "".join(c if c.isalnum() else "-" for c in place)
        path = self.store.root / "run" / self.run_id / f"{name}.traceback.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError:
            return ""
        return f"the whole traceback is in `{path}`"


def place_of(step: PlanStep) -> str:
    """What a step is called: its place, else its verb with the start of its step id."""
    return step.place or f"{step.node.op}-{step.step_id[:8]}"


def placed(session: Session, step: PlanStep, error: RecipeError) -> tuple[Diagnostic, ...]:
    """The error's diagnostics, each at the step's place in the recipe unless it has one."""
    from dataclasses import replace

    span = session.plan.state.program.spans.get(step.lowered)
    if span is None:
        return error.diagnostics
    label = Label(span, f"while `{place_of(step)}` was computed")
    return tuple(d if d.primary else replace(d, primary=label) for d in error.diagnostics)
