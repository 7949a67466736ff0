"""Puts tensors into the store as canonical shards (see :mod:`recipelang.weights.writer`).

Equal tensors give equal objects.

Example:
    >>> stored = store_tensors(store, [Tensor("a", "F32", (2,), lambda: array)])  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipelang.store.artifact import StoredTensor
from recipelang.store.store import Store
from recipelang.types import DTYPE_BYTES, TensorInfo
from recipelang.weights.writer import ModelWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Tensor", "store_tensors"]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor to store; ``read`` gives its elements in C order, in the stored dtype, any shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]

    @property
    def info(self) -> TensorInfo:
        """Its type and shape."""
        return TensorInfo(self.dtype, self.shape)


def store_tensors(store: Store, tensors: Iterable[Tensor]) -> Mapping[str, StoredTensor]:
    """Write tensors to the store; one is in memory at a time.

    Raises RecipeError E0851, E0852; ValueError where a tensor is not what it says.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name)
    with store.temporary() as folder:
        writer = ModelWriter(folder, {tensor.name: tensor.info for tensor in ordered})
        try:
            for tensor in ordered:
                writer.write(tensor.name, 0, _checked(tensor))
            written = writer.finish()
        finally:
            writer.close()
        for shard in written.shards:
            store.adopt(shard.path, shard.digest)
    return written.tensors


def _checked(tensor: Tensor) -> NDArray[Any]:
    values = tensor.read()
    if values.nbytes != tensor.info.bytes or values.dtype.itemsize != DTYPE_BYTES[tensor.dtype]:
        raise ValueError(
            f"{tensor.name}: {values.dtype} x {values.size} is not {tensor.dtype} {tensor.shape}"
        )
    return values
