"""Synthetic llama checkpoints for benchmarks: a base and fine-tunes of it, in bf16.

Weights are normal draws of standard deviation 0.02, fine-tunes add draws of 0.001; numbers repeat
every few million elements so that writing them takes seconds, which changes no time measured here.

Example: ``family(Path("models"), Size(2048, 5632, 16, 32000), fine_tunes=3)``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from recipelang.types import TensorInfo
from recipelang.weights.initial import table
from recipelang.weights.writer import ModelWriter

PERIOD = 1 << 22


@dataclass(frozen=True, slots=True)
class Size:
    """A llama's shape."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int

    def config(self) -> dict[str, object]:
        """config.json."""
        return {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": max(1, self.hidden // 256),
            "head_dim": 64,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": False,
        }


def family(folder: Path, size: Size, *, fine_tunes: int) -> list[Path]:
    """The folders of the base and of its fine-tunes."""
    config = size.config()
    tensors = table(config, "BF16")
    base = np.random.default_rng(0).standard_normal(PERIOD).astype(np.float32) * np.float32(0.02)
    paths: list[Path] = []
    for number in range(fine_tunes + 1):
        draws = base
        if number:
            noise = np.random.default_rng(number).standard_normal(PERIOD).astype(np.float32)
            draws = base + noise * np.float32(0.001)
        path = folder / ("base" if number == 0 else f"tuned{number}")
        _write(path, tensors, draws.astype(ml_dtypes.bfloat16))
        (path / "config.json").write_text(json.dumps(config))
        paths.append(path)
    return paths


def _write(folder: Path, tensors: dict[str, TensorInfo], draws: Any) -> None:
    writer = ModelWriter(folder, tensors)
    at = 0
    for name, info in tensors.items():
        for start in range(0, info.elements, PERIOD):
            count = min(PERIOD, info.elements - start)
            writer.write(name, start, np.roll(draws, -at)[:count])
            at = (at + 12_345) % PERIOD
    writer.finish()
