"""Bring an open model into the store: tensors hashed on the way into shards, then files, then a manifest.

Example: ``put_model(store, checkpoint)`` gives the artifact's id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipelang.store.artifact import Manifest, StoredTensor
from recipelang.store.files import translated
from recipelang.store.model import CONFIG
from recipelang.store.store import Store
from recipelang.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["config_bytes", "put_model", "tensor_digests"]

BLOCK = 1 << 22
Report = Callable[[int], None]


def config_bytes(config: Mapping[str, object]) -> bytes:
    """config.json as the store keeps it: equal configurations have equal bytes."""
    return (json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def put_model(
    store: Store, model: Checkpoint, *, kind: str = "model", base: str = "",
    report: Report = lambda done: None,
) -> str:  # fmt: skip
    """Store a checkpoint whole; returns its artifact id. ``report`` gets the bytes written so far.

    Raises RecipeError E0851, E0852.
    """
    with store.temporary() as folder, translated(store.root):
        tensors = _write_shard(store, model, folder / "shard", report)
    files = _put_files(store, model)
    if model.config:
        files[CONFIG] = store.put_bytes(config_bytes(model.config))
    return store.put_manifest(Manifest(kind, tensors, files, base))


def tensor_digests(store: Store, model: Checkpoint, report: Report = lambda done: None) -> str:
    """Store what a source is (table, digests, files) but not its weights; returns its artifact id."""
    tensors: dict[str, StoredTensor] = {}
    done = 0
    for name, info in model.tensors.items():
        hashed = hashlib.sha256()
        for block in _blocks(model, name):
            hashed.update(block)
            done += len(block)
            report(done)
        tensors[name] = StoredTensor(info.dtype, info.shape, hashed.hexdigest(), "", 0)
    files = _put_files(store, model)
    if model.config:
        files[CONFIG] = store.put_bytes(config_bytes(model.config))
    return store.put_manifest(Manifest("model", tensors, files))


def _put_files(store: Store, model: Checkpoint) -> dict[str, str]:
    return {
        name: store.put_bytes(content) if isinstance(content, bytes) else store.put_file(content)
        for name, content in model.files.items()
    }


def _write_shard(
    store: Store, model: Checkpoint, path: Path, report: Report
) -> dict[str, StoredTensor]:
    """One shard with all tensors in name order, hashed as it is written."""
    from recipelang.run.weights_file import header_bytes

    names = sorted(model.tensors)
    if not names:
        return {}
    found: list[tuple[str, int, str]] = []
    with open(path, "wb") as file:
        header = header_bytes(model, names)
        whole = hashlib.sha256(header)
        at = file.write(header)
        start = at
        for name in names:
            hashed, offset = hashlib.sha256(), at
            for block in _blocks(model, name):
                hashed.update(block)
                whole.update(block)
                at += file.write(block)
                report(at - start)
            found.append((name, offset, hashed.hexdigest()))
    shard = store.adopt(path, whole.hexdigest())
    rows: dict[str, StoredTensor] = {}
    for name, offset, digest in found:
        info = model.tensors[name]
        rows[name] = StoredTensor(info.dtype, info.shape, digest, shard, offset)
    return rows


def _blocks(model: Checkpoint, name: str) -> Iterator[memoryview[Any]]:
    """A tensor's bytes, some megabytes at a time."""
    import numpy as np

    elements = model.tensors[name].elements
    for start in range(0, elements, BLOCK):
        values = model.read(name, start, min(start + BLOCK, elements))
        yield np.ascontiguousarray(values).view(np.uint8).data
    model.release(name)
