"""Keeps the run's record and the lock in step with what has happened.

Example: ``keeper.ran(step, row)`` after a step's result is durable.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recipelang.diagnostics import RecipeError, fault
from recipelang.lineage.keys import identity, is_input
from recipelang.lineage.lockfile import Lock, LockedStep
from recipelang.plan.schedule import PlanStep
from recipelang.run.events import StepFinished
from recipelang.run.locking import write_lock
from recipelang.run.record import RunRecord, StepRecord, write_run
from recipelang.run.session import Session, place_of

__all__ = ["Keeper", "LockedChange"]


class LockedChange(Exception):
    """With ``--locked``, a step whose result is not what the lock says."""

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.place = place


@dataclass(eq=False)
class Keeper:
    """``writes_lock`` is false with ``--set`` but without ``--lock``, and with ``--locked``; the
    latter also makes a changed block raise :class:`LockedChange`. ``before`` is the lock as it was
    read."""

    session: Session
    record: RunRecord
    recipe: Path
    before: Lock
    writes_lock: bool = True
    locked: bool = False
    blocks: dict[str, LockedStep] = field(default_factory=dict[str, LockedStep])
    params: dict[str, str] = field(default_factory=dict[str, str])

    # ------------------------------------------------------------ what happens

    def cached(self, step: PlanStep) -> None:
        """The step's result was there."""
        found = self.session.found.get(step.node) or step.record
        key = self.session.keys.get(step.node)
        row = StepRecord(
            place_of(step), step.node.op, "cached", 0.0, key.digest if key else "",
            self.session.ids.get(step.node, ""), found.backend if found else "",
        )  # fmt: skip
        self.record = self.record.with_step(row)
        self.session.listener(StepFinished(row.place, row.op, "cached", 0.0))

    def known(self, step: PlanStep) -> None:
        """The step's content id is known: note its block; the lock is written with the next
        result.
        """
        block = self._block(step)
        if block is not None:
            self._note(step, block)

    def ran(self, step: PlanStep, row: StepRecord) -> None:
        """The step was computed and recorded: bring the run's record and the lock to the disk."""
        self.record = self.record.with_step(row)
        self.known(step)
        self.save()

    def failed(self, step: PlanStep, result: str, seconds: float) -> None:
        """The step failed, or could not be tried."""
        diagnostic = self.session.failed.get(step.node)
        row = StepRecord(
            place_of(step), step.node.op, result, round(seconds, 3),
            detail=f"{diagnostic.code}: {diagnostic.message}" if diagnostic else "",
        )  # fmt: skip
        self.record = self.record.with_step(row)
        self.session.listener(StepFinished(row.place, row.op, "failed", seconds))

    def save(self) -> None:
        """Write the record and the lock. Raises RecipeError E0851, E0852."""
        if self.session.store.writable:
            write_run(self.session.store, self.record)
        if self.writes_lock:
            write_lock(self.recipe, self.lock())

    def close(self, outcome: str) -> None:
        """End the record: ``done``, ``failed``, ``gate``, ``locked`` or ``interrupted``."""
        backend = self.session.backend_if_used
        self.record = replace(
            self.record.closed(outcome), backend=backend.name if backend else "",
            versions=backend.version if backend else "",
        )  # fmt: skip
        if (self.session.store.root / "format").exists() and self.session.store.writable:
            with contextlib.suppress(RecipeError):
                write_run(self.session.store, self.record)

    # ------------------------------------------------------------ the lock

    def check_locked(self) -> None:
        """With ``--locked``, before anything is computed: raises :class:`LockedChange` for a step
        that the lock lacks, or that has another key now."""
        if not self.locked:
            return
        for step in self.session.plan.steps:
            found = self.before.steps.get(place_of(step))
            if step.key is not None and (found is None or found.key != step.key.digest):
                raise LockedChange(place_of(step))
            if found is None and step.action == "source":
                raise LockedChange(place_of(step))
        gone = {*self.before.steps} - {*self.session.plan.state.program.places.values()}
        if gone - {place_of(step) for step in self.session.plan.steps}:
            raise LockedChange(min(gone))

    def lock(self) -> Lock:
        """The lock as it is now: blocks of this run, and those of places that the recipe still
        has.
        """
        program = self.session.plan.state.program
        places = {*program.places.values(), *self.blocks}
        kept = {name: step for name, step in self.before.steps.items() if name in places}
        return Lock(self.params, {**kept, **self.blocks})

    def _note(self, step: PlanStep, block: LockedStep) -> None:
        place = place_of(step)
        if self.locked and self.before.steps.get(place) != block:
            raise LockedChange(place)
        self.blocks[place] = block

    def _block(self, step: PlanStep) -> LockedStep | None:
        node, session = step.node, self.session
        out = session.ids.get(node)
        operation = session.plan.state.lookup(node.op)
        if out is None:
            return None
        op = f"{step.node.op}@{step.node.version}"
        if is_input(operation):
            return LockedStep(
                op, step.step_id, step.step_id, out, params=identity(node, operation),
                determinism=operation.determinism if operation else "exact",
                uri=self._uri(str(node.attr("uri"))),
                content=session.view.content(step.lowered) or "",
            )  # fmt: skip
        if node not in session.keys:
            return None
        block = _from_document(session.keys[node].document)
        backend = session.backends.get(node)
        if backend is None:
            found = session.found.get(node) or step.record
            backend = found.backend if found else ""
        return replace(
            block, step_id=step.step_id, key=session.keys[node].digest, out=out, backend=backend
        )

    def _uri(self, uri: str) -> str:
        """A path as seen from the recipe's folder, so that the lock is the same on every
        machine.
        """
        if not os.path.isabs(uri):
            return uri
        return Path(os.path.relpath(uri, self.session.view.folder)).as_posix()


def _from_document(document: Mapping[str, Any]) -> LockedStep:
    """A block from an action key's document."""
    return LockedStep(
        op=f"{document['op']}@{document['opv']}", step_id="", key="", out="",
        inputs={role: tuple(ids) for role, ids in document["in"].items()},
        params=document["params"], determinism=document["class"], draws=document["draws"] or "",
    )  # fmt: skip


def locked_fault(places: tuple[str, ...]) -> RecipeError:
    """The refusal of ``--locked``."""
    names = ", ".join(f"`{p}`" for p in places[:5]) + (" and more" if len(places) > 5 else "")
    return fault(
        "E0854", f"the run would change the lock: {names}",
        help="run without `--locked`, look at the change of the lock file and commit it",
    )  # fmt: skip
