"""What a run tells while it goes on. Renderers (a terminal, plain lines, a test) listen.

Example:
    >>> seen: list[Event] = []
    >>> seen.append(StepStarted("student.1", "distill", 24, "steps"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Event", "Listener", "Note", "StepFinished", "StepProgress", "StepStarted", "Waiting"]


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step is being computed. ``total`` in ``unit`` (``steps bytes cells``), 0 where not
    known.
    """

    place: str
    op: str
    total: int = 0
    unit: str = ""


@dataclass(frozen=True, slots=True)
class StepProgress:
    """``done`` of ``total``; ``amount`` of ``measure`` (``tokens``, ``bytes``) so far, for the
    rate; ``loss`` of the last optimiser step."""

    place: str
    done: int
    total: int
    amount: int = 0
    measure: str = ""
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class StepFinished:
    """``result`` is ``ran``, ``cached`` or ``failed``; ``seconds`` is wall time."""

    place: str
    op: str
    result: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another run computes this step; its result will be taken."""

    place: str
    op: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the reader."""

    text: str


Event: TypeAlias = "StepStarted | StepProgress | StepFinished | Waiting | Note"
Listener: TypeAlias = Callable[[Event], None]
