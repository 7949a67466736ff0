"""Computes one tensor of a region: statistics first, then its blocks in order.

Where the stored tensors it needs fit the budget they are read once and held; otherwise they are
read block by block, once for each level of statistics and once for the result. Blocks depend on the
tensor's shape alone, so both ways give the same bits. On a device a tensor is one block, and what
it needs is held there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recipelang.diagnostics import fault
from recipelang.types import TensorInfo
from recipelang.weights.arrays import HOST, Arrays
from recipelang.weights.blocks import block_rows, blocks_of, row_ranges
from recipelang.weights.expression import Aligned, Cast, Combine, Equal, Leaf, Source
from recipelang.weights.gather import (
    Gather,
    aligned_rows,
    by_ranges,
    columns_of,
    mean_row,
)
from recipelang.weights.kernel import (
    Array,
    Block,
    Inputs,
    MatrixKernel,
    Prepared,
    Result,
    Value,
)
from recipelang.weights.kernels.low_rank import WHOLE
from recipelang.weights.looks import Look, take_level
from recipelang.weights.needs import made_whole, operands_of, walk
from recipelang.weights.numbers import compute_dtype
from recipelang.weights.strips.arrays import host

__all__ = ["Evaluation", "ModelResults", "Read"]

QUIETLY = np.errstate(divide="ignore", over="ignore", invalid="ignore")
"""Infinities and NaN are found by looking at what was read and made, not by numpy's warnings."""
FEW_LEAVES = 4
"""Of more stored tensors than these, blocks are smaller: what is in memory stays the same."""
WHERE = "find out where they come from"
ALLOWED = f"{WHERE}; `nonfinite = allow` merges them as they are"

Read = Callable[[Leaf, int, int], NDArray[Any]]
ModelResults: TypeAlias = "Mapping[int, Mapping[str, tuple[Result, ...]]]"
"""``id(step)`` -> tensor -> the answers to its kernel's statistics over the whole model."""
Watch = Callable[[Block, NDArray[Any], Callable[[Source, int, int], NDArray[Any]]], None]
"""Takes each block of a result, with what gives elements ``[start, stop)`` of the same block of a
source under it, as stored."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A whole tensor in memory, in its stored dtype."""

    values: Array


class Evaluation:
    """The evaluation of one source, or of several that share their kernels. ``read`` reads stored
    ranges; ``hold`` keeps what was read; ``known`` are statistics over whole models; ``arrays`` say
    where it is computed. ``facts`` is what matrix kernels told."""

    def __init__(
        self, sources: Sequence[Source], read: Read, *, hold: bool,
        known: ModelResults | None = None, arrays: Arrays | None = None,
    ) -> None:  # fmt: skip
        self.facts: dict[str, float] = {}
        self._read = read
        arrays = host() if arrays is None else arrays
        self._arrays, self._xp = arrays, arrays.xp
        self._known = known or {}
        self._held: dict[int, _Held] = {}
        self._results: dict[int, Any] = {}
        self._whole: dict[int, tuple[Array, ...]] = {}
        self._prepared: dict[int, Prepared] = {}
        self._means: dict[int, NDArray[Any]] = {}
        self._recent: dict[int, tuple[Block, NDArray[Any]]] = {}
        self._hold = hold
        nodes = (node for source in sources for node in walk(source))
        leaves = {id(node): node for node in nodes if isinstance(node, Leaf)}
        self._at_once = max(1, arrays.blocks_at_once * FEW_LEAVES // max(FEW_LEAVES, len(leaves)))
        if hold:
            for key, leaf in leaves.items():
                self._held[key] = _Held(self._load(leaf, 0, leaf.info.elements))

    def blocks(
        self, source: Source, watch: Watch | None = None
    ) -> Iterator[tuple[Block, NDArray[Any]]]:
        """A result's blocks in order, in the stored dtype; ``watch`` sees numpy's blocks, however
        many are computed at once. Raises RecipeError E0620, E0621."""
        self.prepare(source)
        for block in self._blocks(source.info):
            seen: dict[int, Array] = {}
            result = self._stored(source, block, seen, check=True)
            for part, values in self._on_host(result, block, source.info):
                if watch is not None:
                    for piece in blocks_of(source.info, part.start, part.stop):
                        here = values[piece.start - part.start : piece.stop - part.start]
                        watch(piece, here, partial(self._looked_at, piece, block, seen))
                yield part, values

    def prepare(self, source: Source) -> None:
        """Take all statistics under a source, and read what kernels want whole."""
        for node in walk(source):
            self._prepare(node)

    def at(self, source: Source, block: Block) -> NDArray[Any]:
        """One of a result's blocks, unchecked, after :meth:`prepare`."""
        return self._made(source, block, check=False)

    def close(self) -> None:
        """Forget what was held and prepared. Without it that would stay until a collection of
        cycles: the kernels' results load through this evaluation."""
        for kept in (
            self._held, self._results, self._whole, self._prepared, self._means, self._recent,
        ):  # fmt: skip
            kept.clear()

    def prepare_operands(self, node: Combine) -> None:
        """Take the statistics of everything under a node, so that its operands can be looked at."""
        for below in walk(node):
            if below is not node:
                self._prepare(below)

    def values(self, node: Combine, value: Value) -> Iterator[tuple[Block, Array]]:
        """A function of a node's operands, block by block."""
        for block in self._blocks(node.info):
            yield block, value(self._xp, self._inputs(node, block, {}, check=False), block)

    def _blocks(self, info: TensorInfo) -> Iterable[Block]:
        if self._arrays.whole:
            return (Block(0, info.elements, info.shape),)
        return blocks_of(info, at_once=self._at_once)

    def _load(self, leaf: Leaf, start: int, stop: int) -> Array:
        return self._arrays.load(partial(self._read, leaf), leaf.info.dtype, start, stop)

    def _on_host(
        self, result: Array, block: Block, info: TensorInfo
    ) -> Iterator[tuple[Block, NDArray[Any]]]:
        """A block of the result on the host, cut into the host's blocks."""
        coming = self._arrays.unload(result, info.dtype)
        here: NDArray[Any] = next(coming)
        if not self._arrays.whole:
            yield block, here
            return
        for part in blocks_of(info):
            size = part.stop - part.start
            while len(here) < size:
                rest = here.copy()  # what came before is overwritten by what comes
                here = np.concatenate((rest, next(coming)))
            yield part, here[:size]
            here = here[size:]

    def _looked_at(
        self, part: Block, block: Block, seen: dict[int, Array], source: Source, start: int,
        stop: int,
    ) -> NDArray[Any]:  # fmt: skip
        """Elements of a part of a block of what a result was made from, on the host, in its stored
        dtype."""
        stored = self._stored(source, block, seen, check=False)
        at = part.start - block.start
        return self._arrays.fetch(stored, source.info.dtype, at + start, at + stop)

    def _made(self, source: Source, block: Block, *, check: bool) -> NDArray[Any]:
        """A block on the host, in its stored dtype."""
        stored = self._stored(source, block, {}, check=check)
        return next(self._arrays.unload(stored, source.info.dtype))

    @QUIETLY
    def _prepare(self, node: Source) -> None:
        """Do what must be done before a node's blocks are asked for; its operands are prepared."""
        if isinstance(node, Combine):
            self._prepare_kernel(node)
        elif isinstance(node, Aligned):
            self._prepare_rows(node)

    def _prepare_kernel(self, node: Combine) -> None:
        """Take the statistics of a kernel, level after level, and read what it wants whole."""
        if isinstance(node.kernel, MatrixKernel):
            if id(node.kernel) not in self._prepared:
                info = node.sources[0].info
                made = node.kernel.prepare(np, partial(self._rows, node), row_ranges(info))
                self._prepared[id(node.kernel)] = made
                self.facts |= made.facts
            return
        dtype = _compute(node)
        self._whole[id(node)] = tuple(
            self._arrays.widen(self._load(leaf, 0, leaf.info.elements), dtype).reshape(
                leaf.info.shape
            )
            for leaf in node.whole
        )
        results: tuple[tuple[Result, ...], ...] = ()
        if node.kernel.model:
            results = (self._known[id(node.step)][node.name],)
        for level in node.kernel.levels:
            results = (*results, self._level(node, level(results)))
        solve = node.kernel.solve
        self._results[id(node)] = results if solve is None else solve(results)

    def _rows(self, node: Combine, role: str, index: int, first: int, last: int) -> NDArray[Any]:
        """Rows of an operand's matrix, wide."""
        source = node.inputs[role][index]
        assert source is not None
        columns = source.info.shape[1]
        stored = self._range(source, first * columns, last * columns, check=True)
        if isinstance(source, Leaf | Aligned) and not node.allow:
            what = f"an input of `{node.verb}`, which decomposes it"
            stored = HOST.checked(stored, source.info.dtype, _failure(source, what, WHERE))
        rows: NDArray[Any] = HOST.widen(stored, _compute(node)).reshape(-1, columns)
        return rows

    def _prepare_rows(self, node: Aligned) -> None:
        """Hold what rows are taken from here and there, and take the mean for padding."""
        for source in made_whole(node) if self._hold else ():
            if id(source) not in self._held:
                parts = [self._made(source, b, check=True) for b in blocks_of(source.info)]
                self._held[id(source)] = _Held(np.concatenate(parts))
        if node.rows.pads and node.info.elements:
            columns = columns_of(node.info)
            step = block_rows(columns)
            self._means[id(node)] = mean_row(
                node.rows, lambda first, last: self._aligned(node, first, last, check=False), step,
                dtype=node.info.dtype, columns=columns,
            )  # fmt: skip

    def _level(self, node: Combine, statistics: tuple[Any, ...]) -> tuple[Result, ...]:
        def inputs(block: Block) -> Inputs:
            return self._inputs(node, block, {}, check=False)

        def few(block: Block) -> Inputs:
            with self._on_numpy():
                return inputs(block)

        look = Look(node.info, self._arrays, tuple(self._blocks(node.info)), inputs, few)
        return take_level(look, statistics)

    @contextmanager
    def _on_numpy(self) -> Generator[None]:
        """For a few elements: noting what is asked for would cost more."""
        kept = self._arrays, self._xp
        self._arrays, self._xp = HOST, HOST.xp
        try:
            yield
        finally:
            self._arrays, self._xp = kept

    def _inputs(
        self, node: Combine, block: Block, seen: dict[int, Array], *, check: bool
    ) -> Inputs:
        """Role -> the operands' blocks, wide; zeros where a tensor is not read."""
        dtype = _compute(node)
        unread = node.kernel.unread
        inputs: dict[str, tuple[Any, ...]] = {}
        for role, items in node.inputs.items():
            blocks: list[Any] = []
            for i, source in enumerate(items):
                if source is None or (role, i) in unread:
                    blocks.append(self._arrays.zeros(block.stop - block.start, dtype))
                else:
                    stored = self._stored(source, block, seen, check=check)
                    if check and isinstance(source, Leaf | Aligned) and not node.allow:
                        failure = _failure(source, f"an input of `{node.verb}`")
                        stored = self._arrays.checked(stored, source.info.dtype, failure)
                    blocks.append(self._arrays.widen(stored, dtype))
            inputs[role] = tuple(blocks)
        inputs[WHOLE] = self._whole.get(id(node), ())
        return inputs

    def _stored(
        self, source: Source, block: Block, seen: dict[int, Array], *, check: bool
    ) -> Array:
        """A block in the stored dtype; ``seen`` shares it between its users."""
        found = seen.get(id(source))
        if found is None:
            found = seen[id(source)] = self._make(source, block, seen, check=check)
        return found

    def _make(self, source: Source, block: Block, seen: dict[int, Array], *, check: bool) -> Array:
        held = self._held.get(id(source))
        if held is not None:
            return held.values[block.start : block.stop]
        match source:
            case Leaf():
                return self._load(source, block.start, block.stop)
            case Aligned():
                columns = columns_of(source.info)
                first, last = block.start // columns, -(-block.stop // columns)
                part = self._aligned(source, first, last, check=check).reshape(-1)
                return part[block.start - first * columns : block.stop - first * columns]
            case Cast():
                stored = self._stored(source.source, block, seen, check=check)
                wide = self._arrays.widen(stored, compute_dtype(source.source.info.dtype))
                result = self._arrays.narrow(wide, source.info.dtype)
                verb, allow = "cast", source.allow
            case Equal():
                return self._equal(source, block, seen, check=check)
            case Combine():
                result = self._combined(source, block, seen, check=check)
                verb, allow = source.verb, source.allow
        if check and not allow:
            failure = _failure(source, f"the result of `{verb}`")
            result = self._arrays.checked(result, source.info.dtype, failure)
        return result

    @QUIETLY
    def _combined(
        self, node: Combine, block: Block, seen: dict[int, Array], *, check: bool
    ) -> Array:
        if isinstance(node.kernel, MatrixKernel):
            columns = node.info.shape[1]
            rows = self._prepared[id(node.kernel)].results[node.part]
            # A product's last bit depends on how many rows it has: they are numpy's everywhere.
            parts = blocks_of(node.info, block.start, block.stop)
            made = np.concatenate([rows(b.start // columns, b.stop // columns) for b in parts])
            return self._arrays.narrow(made.reshape(-1), node.info.dtype)
        inputs = self._inputs(node, block, seen, check=check)
        wide = node.kernel.combine(self._xp, inputs, block, self._results[id(node)])
        return self._arrays.narrow(wide, node.info.dtype)

    def _aligned(self, node: Aligned, first: int, last: int, *, check: bool) -> NDArray[Any]:
        """Rows ``[first, last)`` of an aligned tensor, of shape (rows, columns)."""
        columns = columns_of(node.info)

        def gather(source: Source) -> Gather:
            held = self._held.get(id(source))
            if held is not None:
                table = held.values.reshape(-1, columns)
                return lambda rows: table[rows]
            read = partial(self._range, source, check=check)
            return lambda rows: by_ranges(read, rows, columns)

        return aligned_rows(
            node.rows, [gather(s) for s in node.sources], first, last, dtype=node.info.dtype,
            columns=columns, mean=self._means.get(id(node)),
        )  # fmt: skip

    def _range(self, source: Source, start: int, stop: int, *, check: bool) -> NDArray[Any]:
        """Elements ``[start, stop)``; of a computed tensor they are cut from its own blocks, so
        that they have the bits that it has when it is written."""
        held = self._held.get(id(source))
        if held is not None:
            kept: NDArray[Any] = held.values[start:stop]
            return kept
        if isinstance(source, Leaf):
            return self._read(source, start, stop)
        parts: list[NDArray[Any]] = []
        for block in blocks_of(source.info, start, stop):
            recent = self._recent.get(id(source))
            if recent is None or recent[0] != block:
                values = self._made(source, block, check=check)
                recent = self._recent[id(source)] = (block, values)
            parts.append(recent[1][max(0, start - block.start) : stop - block.start])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _equal(self, source: Equal, block: Block, seen: dict[int, Array], *, check: bool) -> Array:
        first, *others = (self._stored(s, block, seen, check=check) for s in source.sources)
        for other in others:
            if not np.array_equal(first, other):
                raise fault(
                    "E0621",
                    f"`{_name(source)}` is a {source.info.dtype} tensor that differs between the "
                    "models, and only floating-point tensors are merged",
                )
        return first


def _failure(source: Source, what: str, help: str = ALLOWED) -> Callable[[], Exception]:
    message = f"`{_name(source)}` holds infinities or NaN in {what}"
    return lambda: fault("E0620", message, help=help)


def _compute(node: Combine) -> np.dtype[Any]:
    """float64 where an operand or the result is F64, else float32."""
    wide = node.info.dtype == "F64" or any(s.info.dtype == "F64" for s in node.sources)
    return np.dtype(np.float64 if wide else np.float32)


def _name(source: Source) -> str:
    while not isinstance(source, Leaf):
        operands = operands_of(source)
        if not operands:
            return "a tensor"
        source = operands[0]
    return source.name
