"""A checkpoint in another dtype: what ``model "…" { dtype = bf16 }`` reads. Each number is rounded
once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.types import TensorInfo
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.config import set_dtype

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Rounded"]

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, eq=False)
class Rounded:
    """``base`` with every floating-point tensor in ``dtype`` (a safetensors name)."""

    base: Checkpoint
    dtype: str

    @property
    def config(self) -> Mapping[str, object]:
        """The configuration, which names the dtype."""
        return set_dtype(self.base.config, self.dtype)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The table in the new dtype."""
        return self._table

    @cached_property
    def _table(self) -> Mapping[str, TensorInfo]:
        return {
            name: TensorInfo(self.dtype if info.dtype in FLOATS else info.dtype, info.shape)
            for name, info in self.base.tensors.items()
        }

    @property
    def files(self) -> Mapping[str, Path | bytes]:
        """The base's files."""
        return self.base.files

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)``, rounded to nearest even."""
        from recipelang.weights.numbers import compute_dtype, narrow, widen

        values = self.base.read(name, start, stop)
        stored, wanted = self.base.tensors[name].dtype, self.tensors[name].dtype
        return values if stored == wanted else narrow(widen(values, compute_dtype(stored)), wanted)

    def release(self, name: str) -> None:
        """Pass it on."""
        self.base.release(name)
