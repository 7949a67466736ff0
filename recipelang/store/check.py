"""Check a stored artifact against its manifest, byte by byte.

Example: ``check_artifact(store, artifact)`` is empty when all is well.
"""

from __future__ import annotations

import hashlib
from math import prod
from pathlib import Path

from recipelang.store.artifact import Manifest, StoredTensor
from recipelang.store.store import BLOCK, Store, file_digest
from recipelang.types import DTYPE_BYTES

__all__ = ["check_artifact"]


def check_artifact(store: Store, artifact: str) -> tuple[str, ...]:
    """What is wrong with an artifact, a sentence each; nothing is mended.

    Every object is hashed, and every tensor within its shard.
    """
    manifest = store.manifest(artifact)
    if manifest is None:
        there = store.manifest_path(artifact).exists()
        return (f"the manifest {artifact[:12]} is {'damaged' if there else 'missing'}",)
    return (*_check_files(store, manifest), *_check_tensors(store, manifest))


def _check_files(store: Store, manifest: Manifest) -> list[str]:
    wrong: list[str] = []
    shards = {t.shard: f"the shard {t.shard[:12]}" for t in manifest.tensors.values() if t.shard}
    for name, digest in manifest.files.items():
        shards.setdefault(digest, f"the file `{name}`")
    for digest, what in sorted(shards.items()):
        path = store.object_path(digest)
        if not path.is_file():
            wrong.append(f"{what} is missing")
        elif file_digest(path) != digest:
            wrong.append(f"{what} has other bytes than its name says")
    return wrong


def _check_tensors(store: Store, manifest: Manifest) -> list[str]:
    wrong: list[str] = []
    for name, tensor in sorted(manifest.tensors.items()):
        path = store.object_path(tensor.shard)
        if tensor.shard and path.is_file() and _tensor_digest(path, tensor) != tensor.digest:
            wrong.append(f"the tensor `{name}` has other values than the manifest says")
    return wrong


def _tensor_digest(path: Path, tensor: StoredTensor) -> str:
    left = prod(tensor.shape) * DTYPE_BYTES[tensor.dtype]
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(tensor.offset)
        while left and (block := file.read(min(left, BLOCK))):
            hashed.update(block)
            left -= len(block)
    return hashed.hexdigest() if not left else ""
