"""Writes safetensors files from an open checkpoint, for what is published straight from its source.

The bytes are canonical: names sorted, one metadata entry, the header padded to eight bytes. (What
the store holds is copied instead, shard by shard.)

Example: ``write_weights(checkpoint, folder)`` makes ``model.safetensors`` or shards and an index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from recipelang.weights.checkpoint import Checkpoint

__all__ = ["write_tensors", "write_weights"]

SHARD_BYTES = 5 * 10**9
"""What Hugging Face writes into one shard by default."""
BLOCK = 1 << 22


def write_weights(model: Checkpoint, folder: Path) -> None:
    """All tensors of a model, in shards of at most 5 GB (a larger tensor has its own)."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in model.tensors.items():
        if shards[-1] and size + info.bytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.bytes
    if len(shards) == 1:
        write_tensors(model, shards[0], folder / "model.safetensors")
        return
    table: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_tensors(model, names, folder / file)
        table |= dict.fromkeys(names, file)
    total = sum(info.bytes for info in model.tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def header_bytes(model: Checkpoint, names: Sequence[str]) -> bytes:
    """The length and header of a file that holds these tensors in name order."""
    rows: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(names):
        info = model.tensors[name]
        rows[name] = {
            "dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, at + info.bytes],
        }  # fmt: skip
        at += info.bytes
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_tensors(model: Checkpoint, names: Sequence[str], path: Path) -> None:
    """One file with these tensors, written block by block. Raises RecipeError when one cannot be read."""
    import numpy as np

    with open(path, "wb") as file:
        file.write(header_bytes(model, names))
        for name in sorted(names):
            elements = model.tensors[name].elements
            for start in range(0, elements, BLOCK):
                block = model.read(name, start, min(start + BLOCK, elements))
                file.write(np.ascontiguousarray(block).view(np.uint8).data)
            model.release(name)
