"""Runs a command as a whole process and says what it took.

Example: ``measure(["true"]).seconds`` is a few milliseconds.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Taken", "measure"]


@dataclass(frozen=True, slots=True)
class Taken:
    """Wall time, processor time (user and system) and peak resident memory of a process; what its
    children took is in it, as far as it waited for them."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def measure(
    command: Sequence[str | Path], *, folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Taken:  # fmt: skip
    """Run a command that must end well. Raises RuntimeError with the end of what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command], cwd=folder, env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {printed[-2000:].decode(errors='replace')}")
    taken = time.perf_counter() - start
    return Taken(taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
