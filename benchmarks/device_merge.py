"""Merges on an accelerator beside the same merges on the host's processors.

Rounds are interleaved (host, device, host, ...) after one round that is not counted, which fills
the page cache and compiles; figures are medians of wall time, from headers to synced and hashed
output. Device time is that of computing alone: the same merge of operands that are in the device's
memory. GB/s are of stored bytes, inputs and output, over the wall time.

    python -m benchmarks.device_merge --folder /var/tmp/merge --millions 300 --backend torch
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic import Size, family
from recipelang.backend import Backend, find
from recipelang.ops.registry import lookup
from recipelang.types import TensorInfo
from recipelang.weights.arrays import HOST, Arrays
from recipelang.weights.engine import run_region
from recipelang.weights.evaluate import Evaluation
from recipelang.weights.folder import Folder
from recipelang.weights.kernel import Block
from recipelang.weights.region import Operand, Step, make_step, source_of
from recipelang.weights.writer import ModelWriter

INPUTS = 3
MERGES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear-merge", {}),
    "ties": ("ties-merge", {"density": 0.5}),
    "dare-ties": ("dare-ties-merge", {"density": 0.5}),
    "della": ("della-merge", {"density": 0.5, "epsilon": 0.1}),
    "slerp": ("slerp-merge", {"t": 0.4}),
}
LARGEST = 64 << 20
"""Elements of the largest tensor whose computing is timed alone."""


def step_of(name: str, models: Sequence[Path]) -> Step:
    """The merge of these folders, the base first."""
    verb, fields = MERGES[name]
    operation = lookup(verb)
    assert operation is not None
    base, *tuned = (Folder.open(path) for path in models)
    inputs: tuple[Operand, ...] = tuple(tuned[:2] if name == "slerp" else tuned)
    roles: dict[str, tuple[Operand, ...]] = {"inputs": inputs}
    if operation.operand("base"):
        roles["base"] = (base,)
    return make_step(operation, roles, fields)


def merged(step: Step, folder: Path, arrays: Arrays) -> tuple[float, int]:
    """Seconds of wall time, and the bytes that were read and written."""
    start = time.perf_counter()
    writer = ModelWriter(folder, step.tensors)
    stats = run_region([(step, writer)], arrays=arrays)
    writer.finish()
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return seconds, stats.bytes_read + stats.bytes_written


class Resident:
    """A device's arrays without transfers: operands are there before the clock starts."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays, self._held = arrays, dict[int, Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arrays, name)

    def load(self, read: Any, dtype: str, start: int, stop: int) -> Any:
        """What was brought the first time."""
        key = id(read.args[0])
        if key not in self._held:
            self._held[key] = self._arrays.load(read, dtype, start, stop)
        return self._held[key]


def computing(step: Step, arrays: Arrays) -> float:
    """Seconds to compute every tensor, one after the other, with the operands on the device."""
    spent = 0.0
    memo: dict[tuple[int, str], Any] = {}

    def read(leaf: Any, start: int, stop: int) -> Any:
        return leaf.checkpoint.read(leaf.name, start, stop)

    with arrays.computing():
        for name, info in step.tensors.items():
            if info.elements > LARGEST:
                continue
            source, resident = source_of(step, name, memo), Resident(arrays)
            for timed in (False, True):
                evaluation = Evaluation([source], read, hold=True, arrays=resident)
                start = time.perf_counter()
                evaluation.prepare(source)
                made = evaluation.at(source, Block(0, info.elements, info.shape))
                arrays.fetch(made, info.dtype, 0, 1)  # after this everything is computed
                spent += (time.perf_counter() - start) * timed
    return spent


def peak(backend: Backend) -> Callable[[], int]:
    """A function that gives the peak of the device's memory since now, in bytes (JAX: since the
    process started)."""
    if backend.name == "torch":
        import torch

        if not torch.cuda.is_available():
            return lambda: 0
        torch.cuda.reset_peak_memory_stats()
        return lambda: int(torch.cuda.max_memory_allocated())
    import jax

    return lambda: int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def differences(step: Step, folder: Path, arrays: Arrays) -> tuple[float, float]:
    """The share of numbers that differ between host and device, and the largest difference in
    units of the last place of bf16."""
    paths = {"host": HOST, "device": arrays}
    shards: dict[str, Any] = {}
    for name, where in paths.items():
        writer = ModelWriter(folder / name, step.tensors, max_shard_bytes=1 << 40)
        run_region([(step, writer)], arrays=where)
        (shards[name],) = writer.finish().shards
    first, second = (
        np.fromfile(shard.path, np.uint16, offset=_header(shard.path)) for shard in shards.values()
    )
    for name in paths:
        shutil.rmtree(folder / name)
    apart = np.flatnonzero(first != second)
    if not apart.size:
        return 0.0, 0.0
    ordered = [_ordered(bits[apart]) for bits in (first, second)]
    return apart.size / first.size, float(np.abs(ordered[0] - ordered[1]).max())


def _header(path: Path) -> int:
    with path.open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def _ordered(bits: Any) -> Any:
    """Integers that order as the bf16 numbers of these bits do, one unit apart."""
    wide = bits.astype(np.int64)
    return np.where(wide & 0x8000, -(wide & 0x7FFF), wide)


def measure(name: str, models: Sequence[Path], folder: Path, backend: Backend, rounds: int) -> Any:
    """One row."""
    step, device = step_of(name, models), backend.arrays()
    for arrays in (HOST, device):
        merged(step, folder / "out", arrays)
    used = peak(backend)
    seconds: dict[str, list[float]] = {"host": [], "device": []}
    moved = 0
    for _ in range(rounds):
        for place, arrays in (("host", HOST), ("device", device)):
            spent, moved = merged(step, folder / "out", arrays)
            seconds[place].append(round(spent, 3))
    held = used()
    share, units = differences(step, folder, device)
    return {
        "merge": name,
        "seconds": seconds,
        "host_seconds": statistics.median(seconds["host"]),
        "device_seconds": statistics.median(seconds["device"]),
        "computing_seconds": round(computing(step, device), 4),
        "bytes_moved": moved,
        "peak_device_bytes": held,
        "share_different": share,
        "most_units_apart": units,
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    columns = ("merge", "host", "device", "computing alone", "ratio", "device GB/s", "peak GB",
               "numbers that differ", "units of bf16")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        wall = row["device_seconds"]
        lines.append(
            f"| {row['merge']} | {row['host_seconds']:.2f} s | {wall:.2f} s | "
            f"{row['computing_seconds']:.3f} s | {row['host_seconds'] / wall:.2f} | "
            f"{row['bytes_moved'] / wall / 1e9:.2f} | {row['peak_device_bytes'] / 1e9:.2f} | "
            f"{row['share_different']:.1e} | {row['most_units_apart']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Make the inputs, run the rounds, print the table, write results/device-merge.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints go")
    parser.add_argument("--millions", type=int, default=300, help="parameters, in millions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backend", default=None, help="torch or jax [the first there is]")
    parser.add_argument("--merges", nargs="*", default=list(MERGES), choices=list(MERGES))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"))
    given = parser.parse_args()
    backend = find(given.backend)
    layers = max(1, round((given.millions * 1e6 - 2 * 32000 * 1024) / 12.3e6))
    size = Size(hidden=1024, intermediate=3072, layers=layers, vocabulary=32000)
    place = given.folder / f"{given.millions}M"
    models = [place / name for name in ("base", *(f"tuned{i + 1}" for i in range(INPUTS)))]
    if not all((model / "config.json").exists() for model in models):
        models = family(place, size, fine_tunes=INPUTS)
    rows: list[Any] = []
    for name in given.merges:
        rows.append(measure(name, models, given.folder, backend, given.rounds))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    result = {
        "command": f"python -m benchmarks.device_merge --folder FOLDER --millions {given.millions} "
        f"--rounds {given.rounds} --backend {backend.name}",
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "device": backend.devices()[0].name,
        "versions": backend.version,
        "parameters": sum(_elements(Folder.open(models[0]).tensors)),
        "fine_tunes": INPUTS,
        "rows": rows,
    }
    print(f"\n{result['device']}, {result['machine']}, {result['versions']}\n\n{table(rows)}")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(given.folder / "out")
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "device-merge.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    kept[backend.name] = result
    file.write_text(json.dumps(kept, indent=2) + "\n")


def _elements(tensors: Mapping[str, TensorInfo]) -> Iterator[int]:
    return (info.elements for info in tensors.values())


if __name__ == "__main__":
    main()
