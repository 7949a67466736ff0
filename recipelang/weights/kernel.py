"""What a weight operation is made of: statistics over a tensor, then one elementwise kernel over
its blocks.

A weight operation's function is called once for each tensor of its result, with the fields resolved
for that tensor, and returns a :class:`Kernel`, a :class:`MatrixKernel` or a :class:`Copy`; that of
an operation that gives an adapter is called once for each adapted weight, and returns a
:class:`MatrixKernel` of two results, A and B. All kernels see float32 blocks and give float32
blocks (float64 where the stored dtype is F64); the engine reads, widens, rounds to the result's
dtype and writes. The rounding is part of the operation's meaning also when operations are fused.

Blocks are cut by the tensor's shape alone (never by the memory budget or the number of threads), so
sums run in one order and a fused chain has the bits of the unfused one.

A kernel is plain array code over the namespace ``xp``: numpy on the host, and on a device numpy's
names over torch tensors or JAX arrays, where a block is the whole tensor. So a kernel

- calls ``xp.astype(x, dtype)``, ``xp.sum(x, axis=…)`` and so on, and of an array only ``dtype``,
  ``shape``, ``len(x)``, ``reshape``, indexing by slices and None, and operators: no ``x.astype``,
  ``x.size``, ``x.max()``, ``out=``, ``x[mask]`` or assignment to elements;
- writes dtypes as ``xp.float64`` or ``x.dtype``, never ``np.float32`` or a string;
- may assign in place (``x *= 2``) to what it has made itself, and goes on with the name ``x``,
  which JAX binds anew; never to an operand's block or to a view that it needs again;
- may mix arrays with Python numbers, which take the array's dtype, and floats with booleans;
- brings what it computed on the host with ``xp.asarray``, and takes a number out with ``float(x)``;
- takes a faster way that only numpy has behind ``xp is np`` or ``on_host(xp)``, with a general one
  beside it. On the host ``xp`` may be numpy's names over lazy arrays
  (:mod:`recipelang.weights.strips`), which numpy takes as its own.

A :class:`MatrixKernel` runs on the host everywhere, and may use all of numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = [
    "Block",
    "ColumnSums",
    "Copy",
    "Kernel",
    "Kth",
    "KthMagnitude",
    "Load",
    "MatrixKernel",
    "ModelKth",
    "Prepared",
    "Ranges",
    "Result",
    "RowSums",
    "Rows",
    "Statistic",
    "SumOf",
    "SumsOf",
    "on_host",
]

Array: TypeAlias = Any
"""An array of the namespace ``xp``."""

Inputs: TypeAlias = Mapping[str, tuple[Array, ...]]
"""Role -> the operands' blocks, each 1-D of ``stop - start`` float32 elements, same range of each
tensor."""


def on_host(xp: Any) -> bool:
    """Whether arrays of this namespace are the host's: numpy's, or lazy ones."""
    import numpy as np

    return xp is np or getattr(xp, "lazy", False) is True


@dataclass(frozen=True, slots=True)
class Block:
    """Elements ``[start, stop)`` of the flattened (C order) tensor of ``shape``: whole rows of its
    last axis (a 1-D tensor is one row)."""

    start: int
    stop: int
    shape: tuple[int, ...]


Value: TypeAlias = "Callable[[Any, Inputs, Block], Array]"
"""``value(xp, inputs, block)``: one number an element of the block, 1-D."""


@dataclass(frozen=True, slots=True)
class SumOf:
    """The sum over the tensor of a function of its blocks, accumulated in float64: a norm, a dot
    product, a count."""

    value: Value


@dataclass(frozen=True, slots=True)
class SumsOf:
    """Several sums like :class:`SumOf`'s that share work. ``value`` gives an iterable of 1-D
    arrays, each of which is summed before the next is asked for; the result is a tuple of
    floats."""

    value: Callable[[Any, Inputs, Block], Any]


@dataclass(frozen=True, slots=True)
class RowSums:
    """For each row of the last axis the float64 sum: (elements // shape[-1],). A 1-D tensor is one
    row."""

    value: Value


@dataclass(frozen=True, slots=True)
class ColumnSums:
    """For each place of the axes after the first, the float64 sum over the first axis:
    (elements // shape[0],)."""

    value: Value


@dataclass(frozen=True, slots=True)
class KthMagnitude:
    """The ``k``-th largest magnitude of an elementwise function over the tensor, ``1 <= k <=
    elements``."""

    value: Value
    k: int


@dataclass(frozen=True, slots=True)
class ModelKth:
    """The max(1, floor(share N))-th largest magnitude over all N elements of the tensors whose
    kernels ask for it, under one ``number``.

    The answer for a tensor is a :class:`Kth` whose ``last`` is its own: -1 where no equal of it is
    kept.
    """

    number: int
    value: Value
    share: float


@dataclass(frozen=True, slots=True)
class Kth:
    """The answer to :class:`KthMagnitude`: exactly ``k`` elements satisfy
    ``|x| > threshold or (|x| == threshold and index <= last)``: lowest index first among equals."""

    threshold: float
    last: int


Statistic: TypeAlias = "SumOf | SumsOf | RowSums | ColumnSums | KthMagnitude"
Result: TypeAlias = "float | Kth | tuple[float, ...] | Array"
Results: TypeAlias = tuple[tuple[Result, ...], ...]


@dataclass(frozen=True, slots=True)
class Kernel:
    """``levels``: each gives the statistics to take next, from the results of the levels before.

    ``combine(xp, inputs, block, results)`` gives the output block. With ``solve`` it gets
    ``solve(results)`` in the place of the results, which is computed once a tensor, on the host:
    the coefficients of a linear combination. Inputs that carry weight zero need not be read: name
    them in ``unread`` as ``(role, index)``; their blocks are then zeros. ``whole`` names tensors,
    as ``(role, index, tensor)``, that ``combine`` sees whole and in their shape, under the role
    ``whole``: the factors of a low-rank change, which are small. ``named`` gives operands, as
    ``(role, index, tensor)``, whose blocks are those of another tensor than the result's, of the
    same shape. ``model`` are statistics over all tensors of the step; their results come before
    those of the levels. ``copies``: all operands that are read are one
    tensor, and so is the result; no device is asked for that.
    """

    combine: Callable[[Any, Inputs, Block, Any], Array]
    levels: tuple[Callable[[Results], tuple[Statistic, ...]], ...] = ()
    unread: frozenset[tuple[str, int]] = frozenset()
    whole: tuple[tuple[str, int, str], ...] = ()
    named: tuple[tuple[str, int, str], ...] = ()
    model: tuple[ModelKth, ...] = ()
    solve: Callable[[Results], Any] | None = None
    copies: bool = False


Load: TypeAlias = "Callable[[str, int, int, int], Array]"
"""``load(role, index, first, last)``: rows ``[first, last)`` of an operand's matrix, read at that
moment, (last - first, columns) float32 or wider."""

Ranges: TypeAlias = "Sequence[tuple[int, int]]"
"""Row ranges ``(first, last)`` that follow each other and cover the operands' matrices."""

Rows: TypeAlias = "Callable[[int, int], Array]"
"""``rows(first, last)``: these rows of a result."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a :class:`MatrixKernel` is ready to give: the rows of each of its results. ``facts`` are
    numbers about them that a run may tell (the energy that was kept)."""

    results: tuple[Rows, ...]
    facts: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class MatrixKernel:
    """A kernel over whole matrices: decompositions. All operand tensors have one 2-D shape.

    ``prepare(xp, load, ranges)`` is called once and reads the operands in ``ranges``, as often as
    it needs; then the rows of the results are asked for in order, which may load again.
    ``memory_bytes`` is about what it holds at its peak, beside the operands' stored tensors.
    ``unread`` as in :class:`Kernel`: what it names is never loaded.
    """

    prepare: Callable[[Any, Load, Ranges], Prepared]
    memory_bytes: int
    unread: frozenset[tuple[str, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Copy:
    """The result tensor is the stored tensor ``name`` of an operand (rounded to the result's
    dtype), times ``factor`` where it is a floating-point one.

    ``name`` is empty for the same name.
    """

    role: str
    index: int = 0
    name: str = ""
    factor: float = 1.0
