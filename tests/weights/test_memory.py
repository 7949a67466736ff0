"""Freed memory stays with the process, and is given back when it is asked for."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from recipelang import memory

if sys.argv[1] == "kept":
    memory.keep()
for _ in range(3):
    np.ones(8 << 20, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(8 << 20, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

held = [np.ones(1 << 20, np.float32) for _ in range(64)]
full = resident()
last = held[-1]  # keeps the end of the heap in use
del held
memory.give_back()
print((full - resident()) >> 20)
"""


def run(kept: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kept], capture_output=True, text=True, check=True
    )
    faults, returned = done.stdout.split()
    return int(faults), int(returned)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's counters")
def test_arrays_are_made_of_memory_that_was_freed() -> None:
    page = resource.getpagesize()
    of_ten = 10 * (32 << 20) // page
    faults, returned = run("kept")
    assert faults < of_ten // 20
    assert returned > 200, "megabytes of 252 that nothing holds any more"
