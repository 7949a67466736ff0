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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from recipelang.types import TensorInfo
from recipelang.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recipelang.weights.evaluate import Evaluation
    from recipelang.weights.expression import Source
    from recipelang.weights.region import Step

__all__ = ["Adapted"]


@dataclass(frozen=True, eq=False)
class Adapted:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint`: ``base`` with ``adapter`` (PEFT names
    and configuration) in it."""

    base: Checkpoint
    adapter: Checkpoint
    _prepared: dict[str, tuple[Source, Evaluation]] = field(
        default_factory=dict[str, "tuple[Source, Evaluation]"], init=False, repr=False
    )
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @cached_property
    def step(self) -> Step:
        """The step that it stands for. Raises RecipeError E0610, E0614, E0733."""
        from recipelang.ops.registry import lookup
        from recipelang.weights.region import make_step

        apply = lookup("apply")
        assert apply is not None
        return make_step(apply, {"adapter": (self.adapter,), "model": (self.base,)}, {})

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
        """Elements ``[start, stop)``, the same bits however the tensor is cut."""
        if name not in self.step.changes:
            return self.base.read(name, start, stop)
        import numpy as np

        from recipelang.weights.evaluate import blocks_of

        info = self.tensors[name]
        stop = info.elements if stop is None else stop
        source, evaluation = self._evaluation(name)
        parts = [
            evaluation.at(source, block)[max(0, start - block.start) : stop - block.start]
            for block in blocks_of(info)
            if block.start < stop and block.stop > start
        ]
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def release(self, name: str) -> None:
        """Forget the tensor's factors, and pass it on."""
        with self._lock:
            self._prepared.pop(name, None)
        if name in self.base.tensors:
            self.base.release(name)

    def _evaluation(self, name: str) -> tuple[Source, Evaluation]:
        """The tensor's evaluation, its factors read and its statistics taken until it is
        released."""
        from recipelang.weights.evaluate import Evaluation
        from recipelang.weights.region import source_of

        with self._lock:
            found = self._prepared.get(name)
        if found is None:
            source = source_of(self.step, name, {})
            evaluation = Evaluation(
                [source], lambda leaf, start, stop: leaf.checkpoint.read(leaf.name, start, stop),
                hold=False,
            )  # fmt: skip
            evaluation.prepare(source)
            found = source, evaluation
            with self._lock:
                self._prepared[name] = found
        return found
