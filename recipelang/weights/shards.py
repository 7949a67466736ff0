"""Where each tensor goes in the canonical safetensors files of a model.

Example:
    >>> layout({"a": TensorInfo("F32", (2,)), "b": TensorInfo("U8", (3,))}, 100)[0].bytes
    163
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from recipelang.types import TensorInfo

__all__ = ["ShardLayout", "index_json", "layout", "shard_name"]


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """A file: its ``header`` (with the eight bytes of length), tensors in order, and their offsets
    in bytes from the start of the file."""

    name: str
    header: bytes
    tensors: tuple[str, ...]
    offsets: Mapping[str, int]
    bytes: int


def layout(tensors: Mapping[str, TensorInfo], max_shard_bytes: int) -> tuple[ShardLayout, ...]:
    """Tensors in name order, cut into files of at most ``max_shard_bytes`` (more only for one
    tensor).

    One file is ``model.safetensors``, several are ``model-00001-of-00002.safetensors`` and so on.
    """
    groups: list[list[str]] = [[]]
    size = 0
    for name in sorted(tensors):
        if groups[-1] and size + tensors[name].bytes > max_shard_bytes:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += tensors[name].bytes
    count = len(groups)
    return tuple(
        _shard(
            shard_name(i, count),
            {name: tensors[name] for name in group},
        )
        for i, group in enumerate(groups, 1)
    )


def shard_name(number: int, count: int) -> str:
    """The name of a file, from 1, of as many as there are."""
    return "model.safetensors" if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def index_json(tensors: Mapping[str, TensorInfo], files: Mapping[str, str]) -> bytes:
    """model.safetensors.index.json: ``files`` holds each tensor's file."""
    size = sum(info.bytes for info in tensors.values())
    document = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
    return (json.dumps(document, indent=2) + "\n").encode()


def _shard(name: str, tensors: Mapping[str, TensorInfo]) -> ShardLayout:
    """Offsets are aligned for every dtype: wider types first would be another order, so names
    decide and safetensors' own rule (no holes) is kept; readers here copy, they do not need
    alignment."""
    document: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    relative: dict[str, int] = {}
    for tensor, info in tensors.items():
        document[tensor] = {
            "dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, at + info.bytes],
        }  # fmt: skip
        relative[tensor] = at
        at += info.bytes
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    offsets = {tensor: len(header) + start for tensor, start in relative.items()}
    return ShardLayout(name, header, tuple(tensors), offsets, len(header) + at)
