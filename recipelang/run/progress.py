"""Shows a run while it goes on: a live line a step on a terminal, plain lines elsewhere, on stderr.

Example:
    >>> rate(2048, 2.0, "tokens")
    '1,024 tokens/s'
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from recipelang.run.events import Event, Note, StepFinished, StepProgress, StepStarted, Waiting

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["LiveProgress", "PlainProgress", "duration", "rate", "show_progress"]

EVERY_SECONDS = 10.0


def duration(seconds: float) -> str:
    """Seconds as a person reads them: ``0.8 s``, ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def rate(amount: float, seconds: float, measure: str) -> str:
    """How fast: tokens a second, or gigabytes a second."""
    if seconds <= 0 or amount <= 0:
        return ""
    if measure == "bytes":
        return f"{amount / seconds / 1e9:.2f} GB/s"
    return f"{amount / seconds:,.0f} {measure}/s"


@dataclass
class _Step:
    """A step under way. The rate is of this run: a resumed training starts at ``first``."""

    place: str
    op: str
    unit: str
    started: float
    first: StepProgress | None = None
    last: StepProgress | None = None

    def line(self, now: float) -> str:
        """What is known of it, in one line."""
        seen, parts = self.last, [f"{self.place:<12} {self.op}"]
        if seen is None:
            return parts[0]
        assert self.first is not None
        if seen.total:
            parts.append(f"{seen.done}/{seen.total} {self.unit}".rstrip())
        if seen.loss is not None:
            parts.append(f"loss {seen.loss:.3f}")
        spent = now - self.started
        parts.append(rate(seen.amount, spent, seen.measure))
        left = seen.total - seen.done
        if seen.done and left > 0 and spent > 0:
            parts.append(f"{duration(spent / seen.done * left)} left")
        return "  ".join(part for part in parts if part)


def _finished(event: StepFinished) -> str:
    ends = {"ran": duration(event.seconds), "cached": "cached", "failed": "failed"}
    text = f"{event.place:<12} {event.op}  {ends.get(event.result, event.result)}"
    return f"{text}  {event.detail}" if event.detail else text


@dataclass
class PlainProgress:
    """Lines for logs: when a step starts, at most every ten seconds, and when it ends."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    step: _Step | None = None
    shown: float = 0.0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        now = self.clock()
        match event:
            case StepStarted():
                self.step, self.shown = _Step(event.place, event.op, event.unit, now), now
                self._say(f"{event.place:<12} {event.op}  ...")
            case StepProgress() if self.step is not None:
                self.step.first = self.step.first or event
                self.step.last = event
                if now - self.shown >= EVERY_SECONDS:
                    self.shown = now
                    self._say(self.step.line(now))
            case StepFinished():
                self._say(_finished(event))
            case Waiting():
                self._say(f"{event.place:<12} {event.op}  waits for another run of it")
            case Note():
                self._say(event.text)
            case _:
                pass

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class LiveProgress:
    """One line a step that is rewritten in place."""

    live: Live
    clock: Callable[[], float] = time.monotonic
    step: _Step | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        now = self.clock()
        match event:
            case StepStarted():
                self.step = _Step(event.place, event.op, event.unit, now)
                self._update(now)
            case StepProgress() if self.step is not None:
                self.step.first = self.step.first or event
                self.step.last = event
                self._update(now)
            case StepFinished():
                self.step = None
                self._print(_finished(event))
                self._update(now)
            case Waiting():
                self._print(f"{event.place:<12} {event.op}  waits for another run of it")
            case Note():
                self._print(event.text)
            case _:
                pass

    def _print(self, text: str) -> None:
        self.live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _update(self, now: float) -> None:
        from rich.text import Text

        self.live.update(Text(self.step.line(now) if self.step else "", no_wrap=True))

    def close(self) -> None:
        """Give the terminal back."""
        self.live.stop()


def show_progress(out: TextIO | None = None) -> PlainProgress | LiveProgress:
    """A listener for this terminal or log. Call ``close`` when the run is over."""
    stream = out or sys.stderr
    if not stream.isatty():
        return PlainProgress(stream)
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(file=stream), refresh_per_second=8, transient=True)
    live.start()
    return LiveProgress(live)
