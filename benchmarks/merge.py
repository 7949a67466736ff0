"""Merges against the machine's limit: reading all inputs and writing and syncing as many bytes as
the output.

Rounds are interleaved (limit, linear, ties, limit, ...), and the figure is the ratio of medians.
Inputs are in the page cache for all of them.

    python -m benchmarks.merge --folder /var/tmp/merge --millions 300 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.synthetic import Size, family

INPUTS = 3
CHUNK = 1 << 22


def limit(folder: Path, models: list[Path]) -> None:
    """Read every input once, write and sync as many bytes as one of them."""
    buffer = bytearray(CHUNK)
    for model in models:
        with (model / "model.safetensors").open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    size = (models[0] / "model.safetensors").stat().st_size
    with (folder / "limit").open("wb", buffering=0) as file:
        for start in range(0, size, CHUNK):
            file.write(memoryview(buffer)[: min(CHUNK, size - start)])
        os.fsync(file.fileno())
    (folder / "limit").unlink()


def merge(folder: Path, models: list[Path], verb: str) -> None:
    """The merge, from headers to synced and hashed output."""
    from recipelang.ops.registry import lookup
    from recipelang.weights.engine import run_region
    from recipelang.weights.folder import Folder
    from recipelang.weights.region import Operand, make_step
    from recipelang.weights.writer import ModelWriter

    base, *tuned = (Folder.open(path) for path in models)
    operation = lookup(verb)
    assert operation is not None
    roles: dict[str, tuple[Operand, ...]] = {"inputs": tuple(tuned)}
    if operation.operand("base"):
        roles["base"] = (base,)
    step = make_step(operation, roles, {})
    writer = ModelWriter(folder / "out", step.tensors)
    run_region([(step, writer)])
    writer.finish()
    shutil.rmtree(folder / "out")


def timed(run: Callable[[], None]) -> float:
    """Seconds of wall time."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Make the inputs, run the rounds, write results/merge.json and results/merge.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints go")
    parser.add_argument(
        "--millions", type=int, default=300, help="parameters of a model, in millions"
    )
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    layers = max(1, round((given.millions * 1e6 - 2 * 32000 * 1024) / 12.3e6))
    size = Size(hidden=1024, intermediate=3072, layers=layers, vocabulary=32000)
    models = family(given.folder / f"{given.millions}M", size, fine_tunes=INPUTS)
    stored = (models[0] / "model.safetensors").stat().st_size
    runs: dict[str, Callable[[], None]] = {
        "limit of linear": lambda: limit(given.folder, models[1:]),
        "linear-merge": lambda: merge(given.folder, models, "linear-merge"),
        "limit of ties": lambda: limit(given.folder, models),
        "ties-merge": lambda: merge(given.folder, models, "ties-merge"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(given.rounds):
        for name, run in runs.items():
            seconds[name].append(timed(run))
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {v: median[f"{v}-merge"] / median[f"limit of {v}"] for v in ("linear", "ties")}
    result = {
        "command": f"python -m benchmarks.merge --folder FOLDER --millions {given.millions} "
        f"--rounds {given.rounds}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": os.getloadavg()[0],
        "model_bytes": stored,
        "fine_tunes": INPUTS,
        "seconds": {name: [round(s, 3) for s in values] for name, values in seconds.items()},
        "ratios": {v: round(r, 2) for v, r in ratios.items()},
    }
    folder = Path(__file__).with_name("results")
    (folder / "merge.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = [
        f"| {v}-merge | {stored / 1e9:.2f} GB x {INPUTS} | {median[f'{v}-merge']:.2f} s | "
        f"{median[f'limit of {v}']:.2f} s | {r:.2f} |"
        for v, r in ratios.items()
    ]
    columns = ("merge", "fine-tunes", "median", "reading all inputs, writing and syncing", "ratio")
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"
    (folder / "merge.md").write_text(
        "\n".join([head, *rows, "", f"`{result['command']}`; load {result['load']:.1f}.", ""])
    )
    print("\n".join([head, *rows]))


if __name__ == "__main__":
    main()
