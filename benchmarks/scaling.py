"""How merges grow: from 2 to 32 inputs, and from 1 to 16 GiB a model, in time and in memory.

Weights are tiled in memory (a few million numbers over and over), so that a machine needs no
hundreds of gigabytes for its inputs; the result is computed by the engine and written and synced as
always. Each figure is of a process of its own, start-up included.

    python -m benchmarks.scaling --folder FOLDER
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import Taken, measure
from recipelang.types import TensorInfo
from recipelang.weights.initial import table

ROOT = Path(__file__).parents[1]
TILE = 1 << 22
LAYER_BYTES = 121_643_008
"""What a layer of the llama below takes in bfloat16."""
VERBS = ("linear-merge", "ties-merge")
INPUTS = (2, 4, 8, 16, 32)
GIBS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, eq=False)
class Tiled:
    """A checkpoint in bfloat16 whose tensors repeat the same numbers, of one draw for each
    ``seed``."""

    seed: int
    layers: int
    files: Mapping[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])

    @property
    def config(self) -> dict[str, object]:
        """config.json."""
        return {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048,
            "intermediate_size": 8192, "num_hidden_layers": self.layers, "head_dim": 64,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000,
            "tie_word_embeddings": True,
        }  # fmt: skip

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The table."""
        return table(self.config, "BF16")

    @cached_property
    def _tile(self) -> NDArray[Any]:
        import ml_dtypes

        base = np.random.default_rng(0).standard_normal(TILE).astype(np.float32) * 0.02
        own = np.random.default_rng(self.seed).standard_normal(TILE).astype(np.float32) * 0.001
        tile = (base + own if self.seed else base).astype(ml_dtypes.bfloat16)
        return np.concatenate((tile, tile))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """A copy of elements ``[start, stop)``, as a file's reader gives it."""
        stop = self.tensors[name].elements if stop is None else stop
        found = np.empty(stop - start, self._tile.dtype)
        for at in range(start, stop, TILE):
            size = min(TILE, stop - at)
            found[at - start : at - start + size] = self._tile[at % TILE : at % TILE + size]
        return found

    def release(self, name: str) -> None:
        """Nothing is kept."""


def merge(verb: str, inputs: int, layers: int, folder: Path) -> None:
    """One merge, in this process."""
    from recipelang.ops.registry import lookup
    from recipelang.weights.engine import run_region
    from recipelang.weights.region import make_step
    from recipelang.weights.writer import ModelWriter

    operation = lookup(verb)
    assert operation is not None
    base, *tuned = (Tiled(seed, layers) for seed in range(inputs + 1))
    operands: dict[str, Any] = {"inputs": tuple(tuned)}
    if verb != "linear-merge":
        operands["base"] = (base,)
    step = make_step(operation, operands, {})
    writer = ModelWriter(folder, step.tensors)
    run_region([(step, writer)])
    writer.finish()


def rows() -> Iterator[tuple[str, int, int]]:
    """Verb, number of inputs, layers (1 GiB a model is about nine)."""
    for verb in VERBS:
        for inputs in INPUTS:
            yield verb, inputs, 4
        for gib in GIBS:
            yield verb, 3, gib * (1 << 30) // LAYER_BYTES


def report(found: list[tuple[str, int, float, Taken]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| merge | inputs | a model | wall | CPU | CPU for a GB read | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for verb, inputs, size, taken in found:
        read = size * (inputs + (verb != "linear-merge"))
        lines.append(
            f"| {verb} | {inputs} | {size:.2f} GB | {taken.seconds:.1f} s | "
            f"{taken.cpu_seconds:.1f} s | {taken.cpu_seconds / read:.2f} s | "
            f"{taken.peak_mib:.0f} MiB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the rows, write results/scaling.json and results/scaling.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where results go (18 GB)")
    folder = parser.parse_args().folder / "scaling"
    found: list[tuple[str, int, float, Taken]] = []
    for verb, inputs, layers in rows():
        shutil.rmtree(folder, ignore_errors=True)
        code = f"from benchmarks.scaling import *; merge({verb!r}, {inputs}, {layers}, "
        taken = measure([sys.executable, "-c", f"{code}Path({str(folder)!r}))"], folder=ROOT)
        size = sum(info.bytes for info in Tiled(0, layers).tensors.values()) / 1e9
        found.append((verb, inputs, size, taken))
        print(report(found[-1:]).splitlines()[-1], flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    command = "python -m benchmarks.scaling --folder FOLDER"
    result = {
        "command": command,
        "machine": platform.machine(),
        "rows": [[verb, inputs, size, asdict(taken)] for verb, inputs, size, taken in found],
    }
    results = Path(__file__).with_name("results")
    (results / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")
    (results / "scaling.md").write_text(f"{report(found)}\n\n`{command}`.\n")


if __name__ == "__main__":
    main()
