"""A stored model, read tensor by tensor from its shards.

Example: ``StoredModel.open(store, artifact).read("model.norm.weight")``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import fault
from recipelang.store.artifact import Manifest
from recipelang.store.store import Store
from recipelang.types import TensorInfo
from recipelang.weights.safetensors import Entry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CONFIG", "StoredModel"]

CONFIG = "config.json"


@dataclass(frozen=True, eq=False)
class StoredModel:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` over an artifact of the store.

    Of an ``adapted`` artifact it is the adapter's tensors and files alone.
    """

    store: Store
    manifest: Manifest

    @classmethod
    def open(cls, store: Store, artifact: str) -> StoredModel:
        """Raises RecipeError E0761 when the store lacks the artifact."""
        manifest = store.manifest(artifact)
        if manifest is None:
            raise fault(
                "E0761", f"the store `{store.root}` lacks the artifact {artifact[:12]}",
                help="run the recipe that made it again",
            )  # fmt: skip
        return cls(store, manifest)

    @cached_property
    def config(self) -> Mapping[str, object]:
        """config.json, parsed."""
        digest = self.manifest.files.get(CONFIG)
        if digest is None:
            return {}
        found: Mapping[str, object] = json.loads(self.store.object_path(digest).read_bytes())
        return found

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The table, in name order."""
        rows = sorted(self.manifest.tensors.items())
        return {name: TensorInfo(t.dtype, t.shape) for name, t in rows}

    @cached_property
    def files(self) -> Mapping[str, Path | bytes]:
        """The auxiliary files, without config.json."""
        rows = self.manifest.files.items()
        return {name: self.store.object_path(digest) for name, digest in rows if name != CONFIG}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)``, 1-D, in the stored dtype. Raises RecipeError E0735."""
        from recipelang.weights.rawread import read_elements

        tensor = self.manifest.tensors[name]
        info = TensorInfo(tensor.dtype, tensor.shape)
        entry = Entry(info, tensor.offset, tensor.offset + info.bytes)
        return read_elements(self.store.object_path(tensor.shard), entry, start, stop)

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""
