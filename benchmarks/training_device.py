"""Training on an accelerator: tokens a second of this project's loops beside a bare torch loop.

As :mod:`benchmarks.training`, in wall time and on the device: every contender is a process of its
own, the first steps (compilation) are not counted, the figure is the median of the rest. The share
of peak counts the products of a transformer with frozen weights, 4 FLOPs a parameter and token.

    python -m benchmarks.training_device --steps 12 --peak-tflops 989
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.training import Workload, _llama, bare, measured, model_of

WORKLOADS = {
    "135M": Workload(
        _llama(576, 1536, 30, 9, 3, 49152, True), "BF16", 16, 1024, True,
        "LoRA r 16 on all projections of a 135M llama, bf16, 16 x 1,024 tokens",
    ),
    "1.1B": Workload(
        _llama(2048, 5632, 22, 32, 4, 32000, False), "BF16", 8, 1024, True,
        "LoRA r 16 on all projections of a 1.1B llama, bf16, 8 x 1,024 tokens",
    ),
}  # fmt: skip
WARM = 3


def one(contender: str, work: Workload, steps: int) -> dict[str, Any]:
    """Wall seconds of each step after the first ones, and peak device memory, in this process."""
    marks: list[float] = []

    def done() -> None:
        if contender == "bare":
            import torch

            torch.cuda.synchronize()
        marks.append(time.perf_counter())

    if contender == "bare":
        bare(work, steps, done, device="cuda")
    else:
        measured(work, contender, steps, done)
    if contender == "jax":
        import jax

        peak = jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    else:
        import torch

        peak = torch.cuda.max_memory_allocated()
    return {"wall": [b - a for a, b in zip(marks, marks[1:], strict=False)][WARM:], "peak": peak}


def main() -> None:
    """Run every contender; write results/training-device.json and .md under ``--into``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="of the device, bf16")
    parser.add_argument("--device", default="one NVIDIA H100", help="what to write into the table")
    parser.add_argument("--into", type=Path, default=Path(__file__).with_name("results"))
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(one(given.only[0], WORKLOADS[given.only[1]], given.steps)))
        return
    lines = [
        "| training | loop | tokens a second | beside the bare loop | share of peak | device GiB |",
        "|---|---|---|---|---|---|",
    ]
    found: dict[str, Any] = {"device": given.device, "steps": given.steps}
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    for name, work in WORKLOADS.items():
        size = sum(info.elements for info in model_of(work).tensors.values())
        rates: dict[str, float] = {}
        for contender in ("bare", "torch", "jax"):
            command = [sys.executable, "-m", "benchmarks.training_device", "--steps",
                       str(given.steps), "--only", contender, name]  # fmt: skip
            out = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
            if out.returncode:
                lines.append(f"| {work.says} | {contender} | failed | | | |")
                continue
            result = found[f"{name} {contender}"] = json.loads(out.stdout.splitlines()[-1])
            seconds = statistics.median(result["wall"])
            rate = rates[contender] = work.rows * work.length / seconds
            share = 4 * size * rate / (given.peak_tflops * 1e12)
            beside = rate / rates["bare"] if "bare" in rates else float("nan")
            lines.append(
                f"| {work.says} | {contender} | {rate:,.0f} | {beside:.2f} | {share:.0%} | "
                f"{result['peak'] / 2**30:.1f} |"
            )
            print(lines[-1], flush=True)
    text = "\n".join([*lines, "", f"`python -m benchmarks.training_device`, {given.device}.", ""])
    given.into.mkdir(exist_ok=True)
    (given.into / "training-device.json").write_text(json.dumps(found, indent=2) + "\n")
    (given.into / "training-device.md").write_text(text)


if __name__ == "__main__":
    main()
