"""A model that is computed when it is read: a step of weight operations in a checkpoint's clothes.

Nothing of it is written. The blocks that are computed depend on a tensor's shape alone, so what is
read has the bits that the step's result has when it is stored.

Example:
    >>> soup = Computed(make_step(lookup("linear-merge"), {"inputs": (a, b)}, {}))  # doctest: +SKIP
    >>> soup.read("model.norm.weight", 0, 64)                                       # doctest: +SKIP
    array([...], dtype=bfloat16)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from recipelang.types import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from recipelang.weights.evaluate import Evaluation
    from recipelang.weights.expression import Leaf, Source
    from recipelang.weights.region import Step

__all__ = ["Computed"]


@dataclass(frozen=True, eq=False)
class Computed:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint`: what ``step`` gives. The step takes no
    statistics over the whole model."""

    step: Step
    _prepared: dict[str, tuple[Source, Evaluation]] = field(
        default_factory=dict[str, "tuple[Source, Evaluation]"], init=False, repr=False
    )
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def config(self) -> Mapping[str, object]:
        """The configuration of the result."""
        return self.step.config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The table of the result."""
        return self.step.tensors

    @property
    def files(self) -> Mapping[str, Path | bytes]:
        """The files of the result."""
        return self.step.files

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)``, the same bits however the tensor is cut. Infinities and NaN
        are not looked for."""
        import numpy as np

        from recipelang.weights.blocks import blocks_of

        info = self.tensors[name]
        stop = info.elements if stop is None else stop
        source, evaluation = self._evaluation(name)
        parts = [
            evaluation.at(source, block)[max(0, start - block.start) : stop - block.start]
            for block in blocks_of(info, start, stop)
        ]
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def release(self, name: str) -> None:
        """Forget what was prepared for the tensor, and pass it on to the step's operands."""
        with self._lock:
            self._prepared.pop(name, None)
        _release(self.step, name)

    def _evaluation(self, name: str) -> tuple[Source, Evaluation]:
        """The tensor's evaluation, its statistics taken until it is released."""
        from recipelang.weights.evaluate import Evaluation
        from recipelang.weights.region import source_of

        with self._lock:
            found = self._prepared.get(name)
        if found is None:
            source = source_of(self.step, name, {})
            evaluation = Evaluation([source], _read, hold=False)
            evaluation.prepare(source)
            found = source, evaluation
            with self._lock:
                self._prepared[name] = found
        return found


def _read(leaf: Leaf, start: int, stop: int) -> NDArray[np.generic]:
    return leaf.checkpoint.read(leaf.name, start, stop)


def _release(step: Step, name: str) -> None:
    """Pass a tensor's release on to the checkpoints under a step that have it."""
    from recipelang.weights.region import Step

    for operand in (operand for items in step.operands.values() for operand in items):
        if isinstance(operand, Step):
            _release(operand, name)
        elif name in operand.tensors:
            operand.release(name)
