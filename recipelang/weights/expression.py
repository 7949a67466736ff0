"""What gives a tensor of a region: an expression over stored tensors, which the engine evaluates
block by block.

Example:
    >>> from recipelang.types import TensorInfo
    >>> leaf = Leaf(checkpoint, "model.norm.weight", TensorInfo("BF16", (576,)))  # doctest: +SKIP
    >>> Cast(leaf, TensorInfo("F32", (576,)), allow=False)                        # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from recipelang.types import TensorInfo
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.kernel import Kernel, MatrixKernel

if TYPE_CHECKING:
    from recipelang.weights.region import Step
    from recipelang.weights.rows import RowMap

__all__ = ["Aligned", "Cast", "Combine", "Equal", "Leaf", "Source"]


@dataclass(frozen=True, eq=False)
class Leaf:
    """A stored tensor."""

    checkpoint: Checkpoint
    name: str
    info: TensorInfo


@dataclass(frozen=True, eq=False)
class Cast:
    """A tensor rounded to another dtype."""

    source: Source
    info: TensorInfo
    allow: bool


@dataclass(frozen=True, eq=False)
class Equal:
    """A tensor that is no floating-point one and must be the same in all sources."""

    sources: tuple[Source, ...]
    info: TensorInfo


@dataclass(frozen=True, eq=False)
class Aligned:
    """A tensor whose rows are put into the order of the result's tokens: the first of the
    ``sources`` is the model's own, the others give rows that it lacks, in the order of the map's
    donors."""

    sources: tuple[Source, ...]
    rows: RowMap
    info: TensorInfo


@dataclass(frozen=True, eq=False)
class Combine:
    """A kernel over operand tensors of one shape, None where an operand has no such tensor.
    ``whole`` are the tensors that it sees whole. ``allow`` lets infinities and NaN through.
    ``name`` is the tensor's of ``step``; ``part`` says which of a matrix kernel's results it is.
    """

    kernel: Kernel | MatrixKernel
    inputs: Mapping[str, tuple[Source | None, ...]]
    info: TensorInfo
    whole: tuple[Leaf, ...] = ()
    allow: bool = False
    verb: str = ""
    step: Step | None = None
    name: str = ""
    part: int = 0

    @cached_property
    def sources(self) -> tuple[Source, ...]:
        """The operand tensors that are read, in order."""
        return tuple(
            source for role, items in self.inputs.items() for i, source in enumerate(items)
            if source is not None and (role, i) not in self.kernel.unread
        )  # fmt: skip


Source: TypeAlias = "Leaf | Cast | Equal | Aligned | Combine"
