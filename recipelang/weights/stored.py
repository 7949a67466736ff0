"""A model in the store: its manifest says which object holds each tensor, and where.

Example:
    >>> model = StoredModel.open(manifest, store.object_path)      # doctest: +SKIP
    >>> model.read("model.norm.weight").shape                      # doctest: +SKIP
    (576,)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.store.artifact import Manifest
from recipelang.types import TensorInfo
from recipelang.weights.safetensors import Entry
from recipelang.weights.strict_json import parse_object, read_small

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["StoredModel"]


@dataclass(frozen=True, eq=False)
class StoredModel:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` over a manifest. Open it with
    :meth:`open`.

    For an artifact of kind ``adapted`` the tensors are those of the adapter and ``config`` is its
    adapter_config.json.
    """

    manifest: Manifest
    object_path: Callable[[str], Path]
    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path | bytes]

    @classmethod
    def open(cls, manifest: Manifest, object_path: Callable[[str], Path]) -> StoredModel:
        """``object_path`` gives the file of an object by its digest. Raises RecipeError E0728."""
        name = "adapter_config.json" if "adapter_config.json" in manifest.files else "config.json"
        path = object_path(manifest.files[name])
        config = parse_object(read_small(path, "E0728"), str(path), "E0728")
        tensors = {n: TensorInfo(t.dtype, t.shape) for n, t in sorted(manifest.tensors.items())}
        files: dict[str, Path | bytes] = {
            n: object_path(digest) for n, digest in manifest.files.items() if n != name
        }
        return cls(manifest, object_path, config, tensors, files)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)`` of a tensor. Raises RecipeError E0735."""
        from recipelang.weights.rawread import read_elements

        row, info = self.manifest.tensors[name], self.tensors[name]
        entry = Entry(info, row.offset, row.offset + info.bytes)
        return read_elements(self.object_path(row.shard), entry, start, stop)

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""
