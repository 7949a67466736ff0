"""Puts tensors into the store: canonical safetensors shards, written and hashed in one pass.

A shard's header has one metadata entry (which `transformers` asks for) and the tensors in name
order, padded with spaces to a multiple of 8 bytes; data follow in the same order. So equal tensors
give equal objects.

Example:
    >>> stored = store_tensors(store, [Tensor("a", "F32", (2,), lambda: array)])  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipelang.store.artifact import StoredTensor
from recipelang.store.store import Store
from recipelang.types import DTYPE_BYTES, TensorInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tensor", "store_tensors"]

MAX_SHARD = 4 * 2**30
"""Bytes of tensors in one shard, unless one tensor alone has more."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor to store; ``read`` gives its elements in C order, in the stored dtype, any shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]

    @property
    def bytes(self) -> int:
        """The stored size."""
        return TensorInfo(self.dtype, self.shape).bytes


def store_tensors(store: Store, tensors: Iterable[Tensor]) -> dict[str, StoredTensor]:
    """Write tensors to the store; one is in memory at a time. Raises RecipeError when the disk is
    full.
    """
    found: dict[str, StoredTensor] = {}
    shard: list[Tensor] = []
    size = 0
    for tensor in sorted(tensors, key=lambda t: t.name):
        if shard and size + tensor.bytes > MAX_SHARD:
            found |= _write(store, shard)
            shard, size = [], 0
        shard.append(tensor)
        size += tensor.bytes
    return found | _write(store, shard) if shard else found


def _write(store: Store, tensors: Sequence[Tensor]) -> dict[str, StoredTensor]:
    import numpy as np

    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for t in tensors:
        table[t.name] = {
            "dtype": t.dtype,
            "shape": list(t.shape),
            "data_offsets": [place, place + t.bytes],
        }
        place += t.bytes
    header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    start = 8 + len(header)
    whole = hashlib.sha256()
    rows: list[tuple[Tensor, str, int]] = []
    with store.temporary() as folder:
        path = folder / "shard"
        with path.open("wb") as file:
            for data in (len(header).to_bytes(8, "little"), header):
                file.write(data)
                whole.update(data)
            for t in tensors:
                values = np.ascontiguousarray(t.read()).reshape(-1)
                raw = values.view(np.uint8) if values.size else np.empty(0, np.uint8)
                if raw.nbytes != t.bytes or values.dtype.itemsize != DTYPE_BYTES[t.dtype]:
                    raise ValueError(
                        f"{t.name}: {values.dtype} x {values.size} is not {t.dtype} {t.shape}"
                    )
                rows.append((t, hashlib.sha256(raw.data).hexdigest(), start))
                file.write(raw.data)
                whole.update(raw.data)
                start += t.bytes
        shard = store.adopt(path, whole.hexdigest())
    return {t.name: StoredTensor(t.dtype, t.shape, digest, shard, at) for t, digest, at in rows}
