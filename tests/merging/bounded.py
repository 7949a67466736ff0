"""Runs commands of ``recipe`` in one process that may take little time and memory, and tells what
each did:

    python -m tests.merging.bounded 'WARM_UP' 'JOBS'

``JOBS`` is a list in JSON of jobs, each its arguments and the files that it swaps; what they gave
is printed in JSON, a line a job. ``WARM_UP`` are arguments that are run without bounds first, so
that what is imported and the threads that are started do not count. A job that takes too long ends
the process.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipelang.cli.main import main
from recipelang.run import merging

SECONDS = 5
"""Of processor time for a job, under the default action of SIGPROF: to end the process."""
MEMORY = 200 << 20
"""Bytes of address space that all jobs may add to what the process has after its warm-up."""
TIMEOUT = 120
"""Seconds of wall time for all jobs: some wait (a FIFO) instead of computing."""


@dataclass(frozen=True, slots=True)
class Job:
    """Arguments of ``recipe``. ``swap`` names a file and the one that is in its place from when the
    first weights are read until the job ends; no names, no swap."""

    arguments: Sequence[str]
    swap: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a job gave: its exit code and what it wrote to stderr."""

    exit_code: int
    text: str


def run_bounded(warm_up: Sequence[str], jobs: Sequence[Job]) -> list[Told]:
    """What each job gave, of those that were carried out before the process ended."""
    root = Path(__file__).parents[2]
    written = json.dumps([(job.arguments, job.swap) for job in jobs])
    done = subprocess.run(
        [sys.executable, "-m", "tests.merging.bounded", json.dumps(warm_up), written],
        capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=root,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, (jobs[len(lines) : len(lines) + 1], done.returncode, done.stderr)
    return [Told(*line) for line in lines]


def _carry_out(job: Job) -> Told:
    told = io.StringIO()
    with (
        contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()),
        _swapped(job.swap),
    ):  # fmt: skip
        code = main(list(job.arguments))
    return Told(code, told.getvalue())


@contextlib.contextmanager
def _swapped(swap: Sequence[str]) -> Iterator[None]:
    """Swap the two files when weights are first read, and put them back at the end."""
    original, swapped = merging.run_region, False

    def exchange() -> None:
        file, other = swap
        os.replace(file, f"{file}.kept")
        os.replace(other, file)
        os.replace(f"{file}.kept", other)

    def swap_first(*arguments: Any, **options: Any) -> Any:
        nonlocal swapped
        merging.run_region, swapped = original, True
        exchange()
        return original(*arguments, **options)

    if swap:
        merging.run_region = swap_first
    yield
    merging.run_region = original
    if swapped:
        exchange()


def bound_memory() -> None:
    """Allow little more address space than there is now."""
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@contextlib.contextmanager
def bounded_time(seconds: float = SECONDS) -> Iterator[None]:
    """End the process where what is inside takes more processor time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


def _work(warm_up: list[str], jobs: list[Job]) -> None:
    assert _carry_out(Job(warm_up)).exit_code == 0
    bound_memory()
    for job in jobs:
        with bounded_time():
            told = _carry_out(job)
        print(json.dumps([told.exit_code, told.text]), flush=True)


if __name__ == "__main__":
    _work(json.loads(sys.argv[1]), [Job(*job) for job in json.loads(sys.argv[2])])
