"""An artifact's manifest: what a stored result is, independent of the bytes of any file.

The identity is the sha256 of the canonical JSON of everything but the places (``shard``,
``offset``), so sharding, header order and padding do not change it (safetensors files are not a
stable identity: equal tensors with several metadata entries are written with different bytes in
different processes).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from recipelang.canonical import canonical_json

__all__ = ["Manifest", "StoredTensor", "json_object"]

SCHEMA = "recipelang/artifact/1"


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor: ``digest`` is the sha256 (hex) of its little-endian C-order bytes, found in the
    object ``shard`` (hex name of a safetensors file, empty for a source's) at byte ``offset`` of
    that file."""

    dtype: str
    shape: tuple[int, ...]
    digest: str
    shard: str
    offset: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """``kind`` is ``model delta layers adapter adapted dataset tokens measurement table``.

    ``files`` maps names (config.json, tokenizer.json) to object digests. ``base`` is the artifact
    id of the model under an ``adapted`` one. ``values`` holds small JSON results (measurements).
    """

    kind: str
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict[str, StoredTensor])
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    base: str = ""
    values: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def identity(self) -> str:
        """The artifact id, sha256 hex."""
        return hashlib.sha256(canonical_json(self._document(places=False))).hexdigest()

    @property
    def shards(self) -> frozenset[str]:
        """The objects that hold the tensors; those of ``files`` are plain files."""
        return frozenset(tensor.shard for tensor in self.tensors.values() if tensor.shard)

    def to_json(self) -> bytes:
        """The manifest with places, canonical JSON, as the store keeps it."""
        return canonical_json(self._document(places=True))

    def _document(self, places: bool) -> dict[str, object]:
        tensors: dict[str, object] = {}
        for name, t in self.tensors.items():
            row: dict[str, object] = {"dtype": t.dtype, "shape": list(t.shape), "digest": t.digest}
            if places:
                row |= {"shard": t.shard, "offset": t.offset}
            tensors[name] = row
        return {
            "schema": SCHEMA, "kind": self.kind, "tensors": tensors, "files": dict(self.files),
            "base": self.base, "values": dict(self.values),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Parse what :meth:`to_json` wrote. Raises ValueError on anything else."""
        document = json_object(data)
        if document.get("schema") != SCHEMA:
            raise ValueError(f"not a manifest of schema {SCHEMA}")
        tensors = {
            name: StoredTensor(t["dtype"], tuple(t["shape"]), t["digest"], t["shard"], t["offset"])
            for name, t in document["tensors"].items()
        }
        return cls(
            document["kind"], tensors, document["files"], document["base"], document["values"]
        )


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError on anything else."""
    found: object = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return cast("dict[str, Any]", found)
