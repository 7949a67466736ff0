"""Small recipes over small checkpoints in folders: written, checked and run."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from recipelang.checking import check_text
from recipelang.diagnostics import Diagnostic
from recipelang.run.results import Outcome
from recipelang.run.running import RunOptions, run_recipe
from recipelang.types import TensorInfo
from recipelang.weights.rawread import read_elements
from recipelang.weights.safetensors import read_header

NAMES = {
    np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.int32): "I32",
}  # fmt: skip
CONFIG: Mapping[str, object] = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 4, "intermediate_size": 8,
    "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 6,
    "tie_word_embeddings": False,
}  # fmt: skip
SHAPES: Mapping[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (6, 4),
    **{f"model.layers.{i}.self_attn.q_proj.weight": (4, 4) for i in range(2)},
    **{f"model.layers.{i}.mlp.up_proj.weight": (8, 4) for i in range(2)},
    "model.norm.weight": (4,),
    "lm_head.weight": (6, 4),
}


def arrays_of(
    seed: int, shapes: Mapping[str, tuple[int, ...]] = SHAPES, dtype: Any = np.float32
) -> dict[str, Any]:
    """Tensors of normal draws."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def tuned(base: Mapping[str, Any], seed: int, spread: float = 0.05) -> dict[str, Any]:
    """A fine-tune: the tensors of a base with small draws added."""
    changes = arrays_of(seed, {name: array.shape for name, array in base.items()})
    return {n: (a + spread * changes[n]).astype(a.dtype) for n, a in base.items()}


def write_model(
    folder: Path,
    arrays: Mapping[str, Any],
    config: Mapping[str, object] = CONFIG,
    **changes: object,
) -> Path:
    """A model's folder; ``changes`` are keys of its configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    table = {name: TensorInfo(NAMES[array.dtype], array.shape) for name, array in arrays.items()}
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    (folder / "model.safetensors").write_bytes(header_of(table) + data)
    return folder


def header_of(table: Mapping[str, TensorInfo]) -> bytes:
    """The header of a safetensors file whose tensors lie in this order."""
    rows: dict[str, object] = {}
    at = 0
    for name, info in table.items():
        rows[name] = {
            "dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, at + info.bytes],
        }  # fmt: skip
        at += info.bytes
    text = json.dumps(rows).encode()
    return struct.pack("<Q", len(text)) + text


def write_hollow(
    folder: Path, tensors: Mapping[str, TensorInfo], config: Mapping[str, object] = CONFIG,
    **changes: object,
) -> Path:  # fmt: skip
    """A model's folder with a true header and a hole in place of the weights: it takes no space
    however large it says it is."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    header = header_of(tensors)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(info.bytes for info in tensors.values()))
    return folder


def models(*names: str, **origins: str) -> str:
    """Statements that bind folders to their names: ``models("base", a="base")``."""
    lines = [f'{name} = model "{name}"' for name in names]
    lines += [f'{name} = model "{name}" from {origin}' for name, origin in origins.items()]
    return "\n".join([*lines, ""])


def check(folder: Path, text: str) -> tuple[Diagnostic, ...]:
    """What the check of a recipe in this folder finds."""
    return tuple(check_text(text, folder=str(folder)).sink)


def run(folder: Path, text: str, *targets: str) -> Outcome:
    """A run of a recipe in this folder."""
    recipe = folder / "m.recipe"
    recipe.write_text(text)
    return run_recipe(recipe, RunOptions(targets))


def published(folder: Path, text: str, name: str = "m") -> dict[str, Any]:
    """The tensors that a binding publishes."""
    outcome = run(folder, f'{text}\npublish {name} to "out" {{ overwrite = true }}\n')
    assert outcome.exit_code == 0, [f"{d.code} {d.message}" for d in outcome.diagnostics]
    return load_folder(folder / "out")


def load_folder(folder: Path) -> dict[str, Any]:
    """All tensors of a folder."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in read_header(file).entries.items():
            found[name] = read_elements(file, entry).reshape(entry.info.shape)
    return found
