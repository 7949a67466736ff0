"""A model with an adapter in it, kept apart: a tensor is computed when it is read.

Reading it, applying it in a merge and publishing it give the same bits: all are the step ``apply``,
whose blocks the tensor's shape fixes.

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
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.computed import Computed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recipelang.weights.region import Step

__all__ = ["Adapted"]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint`: ``base`` with ``adapter`` (PEFT names
    and configuration) in it."""

    base: Checkpoint
    adapter: Checkpoint

    @cached_property
    def step(self) -> Step:
        """The step that it stands for. Raises RecipeError E0610, E0614, E0733."""
        from recipelang.ops.registry import lookup
        from recipelang.weights.region import make_step

        apply = lookup("apply")
        assert apply is not None
        return make_step(apply, {"adapter": (self.adapter,), "model": (self.base,)}, {})

    @cached_property
    def _computed(self) -> Computed:
        return Computed(self.step)

    @property
    def config(self) -> Mapping[str, object]:
        """The base's configuration, with what the adapter changes in it."""
        return self.step.config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The base's table, with what the adapter changes in it."""
        return self.step.tensors

    @property
    def files(self) -> Mapping[str, Path | bytes]:
        """The base's files."""
        return self.step.files

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)``, the same bits however the tensor is cut; of a tensor that the
        adapter leaves as it is, the base's own."""
        source = self._computed if name in self.step.changes else self.base
        return source.read(name, start, stop)

    def release(self, name: str) -> None:
        """Forget the tensor's factors, and pass it on."""
        self._computed.release(name)
