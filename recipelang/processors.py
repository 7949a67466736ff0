"""What this machine has, found without importing a backend: processors, whether they multiply
bfloat16, and whether there may be a GPU.

Example: ``ThreadPoolExecutor(processors())``.
"""

from __future__ import annotations

import os
import sys

__all__ = ["may_have_gpu", "multiplies_bfloat16", "processors"]

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA, of AMD and of Windows' Linux put there."""


def processors() -> int:
    """The processors that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def may_have_gpu() -> bool:
    """False only where it is certain that no backend finds a GPU: on Linux without a driver's
    device file. Asking a backend instead takes the seconds that importing it takes.
    """
    return sys.platform != "linux" or any(os.path.exists(file) for file in GPU_FILES)


def multiplies_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Whether the processor has instructions for products of bfloat16, by what the kernel says of
    it (on Linux; elsewhere False)."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags.split())
