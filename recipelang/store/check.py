"""Check a stored artifact against its manifest, byte by byte.

Example: ``check_artifact(store, artifact)`` is empty when all is well.
"""

from __future__ import annotations

from recipelang.store.artifact import Manifest
from recipelang.store.objects import hash_object
from recipelang.store.store import Store

__all__ = ["check_artifact"]


def check_artifact(store: Store, artifact: str) -> tuple[str, ...]:
    """What is wrong with an artifact, a sentence each; nothing is mended.

    Every object is hashed, and the manifest's tensors are looked for in what their shards hold.
    """
    manifest = store.manifest(artifact)
    if manifest is None:
        there = store.manifest_path(artifact).exists()
        return (f"the manifest {artifact[:12]} is {'damaged' if there else 'missing'}",)
    wrong: list[str] = []
    named = {digest: f"the file `{name}`" for name, digest in manifest.files.items()}
    named |= {shard: f"the shard {shard[:12]}" for shard in manifest.shards}
    for digest, what in sorted(named.items()):
        wrong += _check_object(store, manifest, digest, what)
    return tuple(wrong)


def _check_object(store: Store, manifest: Manifest, digest: str, what: str) -> list[str]:
    path = store.object_path(digest)
    if not path.is_file():
        return [f"{what} is missing"]
    hashed = hash_object(path, shard=digest in manifest.shards)
    if not hashed.name:
        return [f"{what} cannot be read"]
    starts = {(start, tensor) for (start, _), tensor in hashed.tensors.items()}
    wrong = [f"{what} has other bytes than its name says"] if hashed.name != digest else []
    return wrong + [
        f"the tensor `{name}` has other values than the manifest says"
        for name, tensor in sorted(manifest.tensors.items())
        if tensor.shard == digest and (tensor.offset, tensor.digest) not in starts
    ]
