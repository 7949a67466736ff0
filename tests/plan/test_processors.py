"""What the machine is asked before a backend is."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipelang import processors
from recipelang.plan.cost import cpu_speed
from recipelang.processors import may_have_gpu, multiplies_bfloat16


@pytest.mark.parametrize(
    ("line", "fast"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("model name\t: avx512_bf16", False),
    ],
)
def test_instructions_for_bfloat16_are_read_from_the_flags(
    tmp_path: Path, line: str, fast: bool
) -> None:
    """Of x86 and of ARM; other lines and a file that is not there say no."""
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert multiplies_bfloat16(str(tmp_path / "cpuinfo")) is fast
    assert not multiplies_bfloat16(str(tmp_path / "nothing"))


def test_a_plan_expects_less_of_a_processor_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is assumed before any run of one's own is known."""
    speeds: list[float] = []
    for fast in (True, False):
        monkeypatch.setattr("recipelang.plan.cost.multiplies_bfloat16", lambda fast=fast: fast)
        speeds.append(cpu_speed().flops)
    assert speeds[0] > 2 * speeds[1]


def test_a_driver_says_that_there_may_be_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Linux; where the question cannot be answered cheaply the answer is yes."""
    monkeypatch.setattr(processors, "GPU_FILES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr("sys.platform", "linux")
    assert not may_have_gpu()
    (tmp_path / "nvidiactl").touch()
    assert may_have_gpu()
    (tmp_path / "nvidiactl").unlink()
    monkeypatch.setattr("sys.platform", "win32")
    assert may_have_gpu()
