"""A model with an adapter in it, kept apart: W + scale * B A is computed when a tensor is read.

Reading it, applying it in a merge and publishing it give the same bits: rows are computed in the
blocks that the tensor's shape fixes, in float32, and rounded once to the stored dtype.

Example:
    >>> model = Adapted(base, adapter)                              # doctest: +SKIP
    >>> model.tensors == base.tensors                               # doctest: +SKIP
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.types import TensorInfo
from recipelang.weights.adapter import Pair, pairs
from recipelang.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Adapted"]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint`: ``base`` with ``adapter`` (PEFT names
    and configuration) in it."""

    base: Checkpoint
    adapter: Checkpoint

    @property
    def config(self) -> Mapping[str, object]:
        """The base's configuration."""
        return self.base.config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The base's table."""
        return self.base.tensors

    @property
    def files(self) -> Mapping[str, Path | bytes]:
        """The base's files."""
        return self.base.files

    @cached_property
    def pairs(self) -> Mapping[str, Pair]:
        """Weight name -> the low-rank pair that changes it."""
        return pairs(self.adapter.config, self.adapter.tensors)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)``, the same bits however the tensor is cut."""
        pair = self.pairs.get(name)
        if pair is None:
            return self.base.read(name, start, stop)
        import numpy as np

        from recipelang.weights.evaluate import blocks_of

        info = self.tensors[name]
        stop = info.elements if stop is None else stop
        parts = [
            self._block(name, pair, block.start, block.stop)[
                max(0, start - block.start) : stop - block.start
            ]
            for block in blocks_of(info)
            if block.start < stop and block.stop > start
        ]
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def release(self, name: str) -> None:
        """Pass it on."""
        self.base.release(name)

    def _block(self, name: str, pair: Pair, start: int, stop: int) -> NDArray[np.generic]:
        import numpy as np

        from recipelang.weights.kernel import Block
        from recipelang.weights.kernels.low_rank import WHOLE, add_low_rank
        from recipelang.weights.numbers import compute_dtype, narrow, widen

        info = self.tensors[name]
        dtype = compute_dtype(info.dtype)
        factors = tuple(
            widen(self.adapter.read(part), dtype).reshape(self.adapter.tensors[part].shape)
            for part in (pair.a, pair.b)
        )
        inputs = {"model": (widen(self.base.read(name, start, stop), dtype),), WHOLE: factors}
        wide = add_low_rank("adapter", pair).combine(np, inputs, Block(start, stop, info.shape), ())
        return narrow(wide, info.dtype)
