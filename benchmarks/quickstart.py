"""The quick start as a whole process, from an empty store and again: wall time, CPU time, memory.

python -m benchmarks.quickstart --backends torch jax
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.processes import Taken, measure

ROOT = Path(__file__).parents[1]


def speed() -> float:
    """GFLOP/s of a float32 product of the quick start's shapes on all cores: what its training is
    bound by, where the processor has no products of bfloat16."""
    import torch

    x, w = torch.randn(256, 576), torch.randn(1536, 576)
    taken: list[float] = []
    for _ in range(200):
        start = time.perf_counter()
        torch.nn.functional.linear(x, w)
        taken.append(time.perf_counter() - start)
    return 2e-9 * 256 * 576 * 1536 / statistics.median(taken)


def main() -> None:
    """Run it twice on each backend; write results/quickstart.json and .md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["torch", "jax"])
    given = parser.parse_args()
    taken: dict[str, Taken] = {}
    load, gflops = os.getloadavg()[0], speed()
    for backend in given.backends:
        with tempfile.TemporaryDirectory() as folder:
            ignored = shutil.ignore_patterns("out", ".recipe", "*.lock")
            recipes = shutil.copytree(ROOT / "recipes", Path(folder) / "recipes", ignore=ignored)
            command = [sys.executable, "-m", "recipelang", "run", recipes / "quickstart.recipe"]
            environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'backends'}"}
            for name in (backend, f"{backend}, again"):
                run = [*command, "--backend", backend]
                taken[name] = measure(run, folder=recipes, environment=environment)
                print(name, taken[name], flush=True)
    result = {
        "command": f"python -m benchmarks.quickstart --backends {' '.join(given.backends)}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(load, 1),
        "float32 products, GFLOP/s": round(gflops),
        "taken": {name: asdict(one) for name, one in taken.items()},
    }
    rows = [
        f"| {name} | {t.seconds:.0f} s | {t.cpu_seconds:.0f} s | {t.peak_mib:.0f} MiB |"
        for name, t in taken.items()
    ]
    head = "| backend | wall | CPU | peak memory |\n|---|---|---|---|"
    folder_ = Path(__file__).with_name("results")
    (folder_ / "quickstart.json").write_text(json.dumps(result, indent=2) + "\n")
    says = f"`{result['command']}`; {result['machine']}, load {load:.1f}, float32 products at "
    (folder_ / "quickstart.md").write_text(
        "\n".join([head, *rows, "", f"{says}{gflops:.0f} GFLOP/s before the run.", ""])
    )


if __name__ == "__main__":
    main()
