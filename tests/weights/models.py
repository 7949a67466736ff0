"""Small checkpoints for tests: folders on disk and models in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from recipelang.types import TensorInfo
from recipelang.weights.engine import RegionStats, run_region
from recipelang.weights.numbers import compute_dtype, narrow
from recipelang.weights.region import Operand
from recipelang.weights.writer import ModelWriter

NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64", np.dtype(np.float16): "F16",
         np.dtype(ml_dtypes.bfloat16): "BF16", np.dtype(np.int64): "I64"}  # fmt: skip


@dataclass(eq=False)
class Memory:
    """A checkpoint over arrays that counts how many elements were read of each tensor."""

    arrays: Mapping[str, Any]
    config: Mapping[str, object] = field(default_factory=lambda: {"num_hidden_layers": 3})
    files: Mapping[str, Path | bytes] = field(default_factory=dict[str, "Path | bytes"])
    counts: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The table."""
        return {n: TensorInfo(NAMES[a.dtype], a.shape) for n, a in sorted(self.arrays.items())}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        """A range of a tensor."""
        part = self.arrays[name].reshape(-1)[start:stop]
        self.counts[name] = self.counts.get(name, 0) + part.size
        return part

    def release(self, name: str) -> None:
        """Nothing is kept."""


def random_model(
    seed: int, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16", spread: float = 0.02
) -> Memory:
    """A model of normal draws."""
    rng, wide = np.random.default_rng(seed), compute_dtype(dtype)
    return Memory(
        {
            n: narrow(rng.standard_normal(s).astype(wide) * wide.type(spread), dtype)
            for n, s in shapes.items()
        }
    )


def near(base: Memory, seed: int, spread: float = 0.002) -> Memory:
    """A fine-tune of a model: its weights plus small draws."""
    rng = np.random.default_rng(seed)

    def moved(a: Any) -> Any:
        wide = np.float64 if a.dtype == np.float64 else np.float32
        return (a.astype(wide) + rng.standard_normal(a.shape).astype(wide) * wide(spread)).astype(
            a.dtype
        )

    return Memory({n: moved(a) for n, a in base.arrays.items()}, base.config)


def compute(step: Operand, folder: Path, **options: Any) -> tuple[dict[str, Any], RegionStats]:
    """The arrays of a step's result, through the writer and the reader."""
    from recipelang.weights.rawread import read_elements
    from recipelang.weights.safetensors import read_header

    writer = ModelWriter(folder, step.tensors)
    stats = run_region([(step, writer)], **options)
    written = writer.finish()
    arrays: dict[str, Any] = {}
    for shard in written.shards:
        for name, entry in read_header(shard.path).entries.items():
            arrays[name] = read_elements(shard.path, entry).reshape(entry.info.shape)
    return arrays, stats


def write_folder(folder: Path, model: Any, config: Mapping[str, object]) -> Path:
    """A Hugging Face folder of the model."""
    writer = ModelWriter(folder, model.tensors)
    run_region([(model, writer)])
    writer.finish()
    (folder / "config.json").write_text(json.dumps(dict(config)))
    return folder


def bits(array: Any) -> bytes:
    """The bytes, for equality of NaN and signed zeros too."""
    return bytes(np.ascontiguousarray(array).view(np.uint8).tobytes())
