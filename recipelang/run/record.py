"""The record of a run: ``run/ID/run.json`` in the store, rewritten after each step.

It tells when, where and with what a run happened; nothing in it is part of any identity, and no
secret, environment variable or user name is kept.

Example: ``records = read_runs(store)``, newest last.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from recipelang.store.files import ensure_folder, write_file
from recipelang.store.store import Store

__all__ = ["RunRecord", "StepRecord", "new_run", "read_runs", "run_folder", "write_run"]

SCHEMA = "recipelang/run/1"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step of a run. ``result`` is ``ran``, ``cached``, ``failed`` or ``blocked``; ``seconds``
    is wall time; ``key`` and ``artifact`` are empty where they are not known."""

    place: str
    op: str
    result: str
    seconds: float = 0.0
    key: str = ""
    artifact: str = ""
    backend: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. ``command`` is the command line, a word an item. ``started`` and ``ended`` are UTC,
    ISO 8601; ``ended`` is empty while it goes on, or where it was killed. ``outcome`` is ``running
    done failed gate locked interrupted``."""

    id: str
    recipe: str
    started: str
    command: tuple[str, ...] = ()
    ended: str = ""
    outcome: str = "running"
    targets: tuple[str, ...] = ()
    params: dict[str, str] = field(default_factory=dict[str, str])
    backend: str = ""
    versions: str = ""
    platform: str = ""
    steps: tuple[StepRecord, ...] = ()

    def with_step(self, step: StepRecord) -> RunRecord:
        """The record with one more step."""
        return replace(self, steps=(*self.steps, step))

    def closed(self, outcome: str) -> RunRecord:
        """The record of a run that is over."""
        return replace(self, ended=_now(), outcome=outcome)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_run(
    recipe: Path, *, command: tuple[str, ...] = (), targets: tuple[str, ...] = (),
    params: dict[str, str] | None = None,
) -> RunRecord:  # fmt: skip
    """The record of a run that starts now; its id sorts by time."""
    started = _now()
    stamp = started.replace(":", "").replace("-", "").partition("+")[0]
    return RunRecord(
        id=f"{stamp}-{uuid4().hex[:6]}", recipe=str(recipe), started=started, command=command,
        targets=targets, params=dict(params or {}),
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"{os.cpu_count()} processors",
    )  # fmt: skip


def run_folder(store: Store, run: str) -> Path:
    """The folder of a run."""
    return store.root / "run" / run


def write_run(store: Store, record: RunRecord) -> None:
    """Write the record, whole. Raises RecipeError E0851, E0852."""
    folder = run_folder(store, record.id)
    ensure_folder(folder)
    body = {"schema": SCHEMA, **asdict(record)}
    text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    write_file(folder / "run.json", text.encode(), store.tmp)


def read_runs(store: Store) -> tuple[RunRecord, ...]:
    """All runs of the store, oldest first; damaged records are left out."""
    found: list[RunRecord] = []
    for path in sorted((store.root / "run").glob("*/run.json")):
        try:
            body: Any = json.loads(path.read_bytes())
            if body.pop("schema") != SCHEMA:
                continue
            steps = tuple(StepRecord(**step) for step in body.pop("steps"))
            targets, command = tuple(body.pop("targets")), tuple(body.pop("command"))
            found.append(RunRecord(**body, targets=targets, command=command, steps=steps))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return tuple(found)
