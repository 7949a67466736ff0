"""Takes the figures of a merge while its blocks stream past, at little cost.

Infinities and NaN are counted in every block (free where the merge refuses them anyway). Norms, dot
products and signs are summed over a fixed sample that depends on the tensor's shape alone: of every
8th block (of every 4th, 2nd or each where a tensor has few) a run of 2,048 elements whose place
moves on from block to block, so that all columns of a matrix are met; tensors of at most 8,192
elements are taken whole. That is about one element in 256 of a large tensor. Sums are in float32
over 8,192 elements (float64 for F64), in float64 across them, and leave out elements where any of
the numbers is not finite.

A killed merge goes on at its last finished tensor, so the sums of finished tensors are kept in a
journal beside the shards.

Example:
    >>> watcher = Watcher(watched_step(step), folder / "report.jsonl")  # doctest: +SKIP
    >>> run_region([(step, writer)], watchers={writer: watcher})  # doctest: +SKIP
    >>> merge_report("ties-merge", names, base, watcher.sums.values(), 290)  # doctest: +SKIP
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from recipelang.store.files import translated
from recipelang.types import DeltaType, ModelType
from recipelang.weights.figures import InputSums, TensorSums
from recipelang.weights.joining import is_buffer
from recipelang.weights.kernel import Block
from recipelang.weights.numbers import FLOATS, all_finite, widen
from recipelang.weights.region import Cast, Combine, Memo, Operand, Source, Step, is_adapter

__all__ = ["Place", "Watcher", "compared", "watched_step"]

Place: TypeAlias = tuple[str, int]
"""An operand of a step: its role, and which one of that role."""
STRETCH, EVERY, LEAST, RUN, WHOLE = 1 << 16, 8, 4, 2048, 8192
"""Every 8th stretch of 65,536 elements is sampled, or more often for 4 of a tensor, by a run of
2,048 elements; tensors of up to 8,192 are taken whole. Sums are taken of 8,192 elements at a time,
which stay in the first caches, and for which BLAS does not start threads of its own (as it does
above 10,000)."""


def watched_step(operand: Operand) -> Step | None:
    """The step whose operands a result is compared with: the nearest below it that has several.

    Steps that only change one model (a cast, an adapter, a delta) are looked through where tensors
    keep their names and shapes. None for what is made of one model alone, and for deltas.
    """
    if not isinstance(operand, Step) or not isinstance(operand.type, ModelType):
        return None
    models = [operand.operands[role][i] for role, i in _models(operand)]
    if len(models) == 1 and _shapes(models[0]) == _shapes(operand):
        below = watched_step(models[0])
        if below is not None:
            return below
    return operand if sum(len(items) for items in operand.operands.values()) > 1 else None


def compared(step: Step) -> tuple[tuple[Place, ...], Place | None]:
    """The model operands that are inputs, and the base."""
    places = _models(step)
    base = next((place for place in places if place[0] == "base"), None)
    return tuple(place for place in places if place != base), base


def _models(step: Step) -> list[Place]:
    return [
        (role, i)
        for role, items in step.operands.items()
        for i, item in enumerate(items)
        if not is_adapter(item)
        and not (isinstance(item, Step) and isinstance(item.type, DeltaType))
    ]


def _shapes(operand: Operand) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in operand.tensors.items()}


class Watcher:
    """Watches one result of a region. ``journal`` is a file for the sums of finished tensors; what
    an earlier run of the same merge left there is taken over."""

    def __init__(self, step: Step, journal: Path) -> None:
        self.step = step
        self.sums: dict[str, TensorSums] = _read_journal(journal)
        self._inputs, self._base = compared(step)
        self._journal, self._lock = journal, threading.Lock()
        self._memo: Memo = {}
        self._operands: dict[int, Place] = {}

    def begin(self, memo: Memo) -> None:
        """The region's sources are all in ``memo``."""
        self._memo = memo
        places: dict[int, Place] = {}
        for role, items in self.step.operands.items():
            for i, item in enumerate(items):
                places.setdefault(id(item), (role, i))
        for (operand, _), source in memo.items():
            if operand in places:
                self._operands.setdefault(id(source), places[operand])

    def tensor(self, name: str, source: Source) -> _Tensor:
        """What takes the blocks of a tensor of the result, which ``source`` gives."""
        found = self._sources(name) if source.info.dtype in FLOATS else {}
        found = {at: one for at, one in found.items() if one.info.shape == source.info.shape}
        base = found.get(self._base) if self._base is not None else None
        return _Tensor(name, source, [found.get(p) for p in self._inputs], base, self._finished)

    def _sources(self, name: str) -> dict[Place, Source]:
        """What the step reads for a tensor, by operand."""
        made = self._memo.get((id(self.step), name))
        if made is None:
            return {}
        for copied in _copied(made, self.step):
            if id(copied) in self._operands:
                return {self._operands[id(copied)]: copied}
        if not isinstance(made, Combine):
            return {}
        return {
            (role, i): source
            for role, items in made.inputs.items()
            for i, source in enumerate(items)
            if source is not None and (role, i) not in made.kernel.unread
        }

    def _finished(self, sums: TensorSums) -> None:
        line = json.dumps(sums.to_json()) + "\n"
        with self._lock, translated(self._journal):
            self.sums[sums.name] = sums
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(line)


def _copied(made: Source, step: Step) -> tuple[Source, ...]:
    """What a tensor may be a copy of: itself, or what it is a rounding or a multiple of."""
    match made:
        case Cast():
            return (made, made.source)
        case Combine() if made.step is not step:
            return (made, *made.sources)
        case _:
            return (made,)


def _read_journal(path: Path) -> dict[str, TensorSums]:
    """A line that was cut off, or that another version wrote, is as good as none."""
    found: dict[str, TensorSums] = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            sums = TensorSums.from_json(json.loads(line))
        except (ValueError, TypeError):
            continue
        found[sums.name] = sums
    return found


class _Tensor:
    """Adds up one tensor; called with each of its blocks in order, by one thread."""

    def __init__(
        self, name: str, source: Source, inputs: Sequence[Source | None], base: Source | None,
        finished: Callable[[TensorSums], None],
    ) -> None:  # fmt: skip
        self._name, self._info, self._finished = name, source.info, finished
        self._inputs, self._base = inputs, base
        self._read = [source for source in (*inputs, base) if source is not None]
        # What is refused needs no count, and infinities of a causal mask are meant.
        refused = isinstance(source, Cast | Combine) and not source.allow
        self._counts = not refused and not is_buffer(name, source.info.shape)
        self._whole = source.info.elements <= WHOLE
        self._every = max(1, min(EVERY, source.info.elements // STRETCH // LEAST))
        self._stretches, self._left = 0, source.info.elements
        self._sums = _Sums(sum(i is not None for i in inputs), base is not None)
        self._nonfinite = 0

    def __call__(
        self, block: Block, result: NDArray[Any],
        stored: Callable[[Source, int, int], NDArray[Any]],
    ) -> None:  # fmt: skip
        """``result`` is as stored; ``stored(source, start, stop)`` gives elements of the same block
        of what it was made from."""
        if self._counts and not all_finite(result, self._info.dtype):
            self._nonfinite += int(np.count_nonzero(~np.isfinite(result)))
        for start in range(0, result.size, STRETCH) if self._sums.count else ():
            stop = min(start + STRETCH, result.size)
            if self._stretches % self._every == 0:
                if not self._whole:
                    start += self._stretches // self._every * RUN % (stop - start)
                    stop = min(start + RUN, stop)
                read = [stored(source, start, stop) for source in self._read]
                self._sums.take([result[start:stop], *read])
            self._stretches += 1
        self._left -= result.size
        if self._left == 0:
            self._finished(self._result())

    def _result(self) -> TensorSums:
        sums, based = self._sums, self._base is not None and self._sums.count > 0
        sums.flush()
        found = iter(sums.inputs())
        return TensorSums(
            self._name, self._info.elements, sums.sampled, self._nonfinite,
            float(sums.products[0, 0]), float(sums.products[2, 0]),
            sums.conflicts if based and sums.count > 1 else None,
            sums.equal[-1] if based else None,
            tuple(None if source is None else next(found) for source in self._inputs),
        )  # fmt: skip


class _Sums:
    """Sums over elements of a result and of ``count`` inputs, with a base or without.

    ``products`` (4, 1 + count) holds, of the result and then of each input, the square, the product
    with the result, and both again of the differences to the base. ``equal`` says of each input,
    and of the base, whether the result is the same everywhere.
    """

    def __init__(self, count: int, based: bool) -> None:
        self.count, self.based = count, based
        self.sampled = self.conflicts = 0
        self.products = np.zeros((4, 1 + count))
        self.equal = [True] * (count + 1 if based else count)
        self._rows: NDArray[Any] | None = None
        self._filled = 0

    def inputs(self) -> list[InputSums]:
        """Those of each input."""
        squares, dots, changes, change_dots = self.products[:, 1:].tolist()
        found = zip(squares, dots, changes, change_dots, self.equal, strict=False)
        return [InputSums(*sums) for sums in found]

    def take(self, stored: Sequence[NDArray[Any]]) -> None:
        """Some elements (at most ``WHOLE``) of the result, of each input and of the base, in stored
        dtypes."""
        if self._rows is None:
            wide = any(values.dtype == np.float64 for values in stored)
            self._rows = np.empty((len(stored), WHOLE), np.float64 if wide else np.float32)
        size = stored[0].size
        if self._filled + size > WHOLE:
            self.flush()
        for row, values in zip(self._rows, stored, strict=True):
            row[self._filled : self._filled + size] = widen(values, row.dtype)
        self._filled += size

    def flush(self) -> None:
        """Add up what was taken, at once: a call of numpy costs as much as a thousand elements."""
        if self._rows is None:
            return
        rows, self._filled = self._rows[:, : self._filled], 0
        for i, still in enumerate(self.equal):
            self.equal[i] = still and np.array_equal(rows[0], rows[1 + i])
        with np.errstate(over="ignore", invalid="ignore"):
            products, conflicts = self._products(rows)
            if not np.isfinite(products).all():
                # Squares overflow float32, and what is not finite in one has no place in any.
                rows = rows[:, np.isfinite(rows).all(axis=0)].astype(np.float64)
                products, conflicts = self._products(rows)
        self.products += products
        self.conflicts += conflicts
        self.sampled += rows.shape[1]

    def _products(self, rows: NDArray[Any]) -> tuple[NDArray[np.float64], int]:
        """As :attr:`products`, and the number of elements in conflict."""
        products, conflicts = np.zeros_like(self.products), 0
        models = rows[:-1] if self.based else rows
        products[0], products[1] = np.vecdot(models, models), np.vecdot(models, models[0])
        if self.based:
            changes = models - rows[-1]
            products[2], products[3] = np.vecdot(changes, changes), np.vecdot(changes, changes[0])
            conflicts = _conflicts(changes[1:])
        return products, conflicts


def _conflicts(changes: NDArray[Any]) -> int:
    """Elements where some change is positive and some is negative."""
    most = least = changes[0]
    for row in changes[1:]:
        most, least = np.maximum(most, row), np.minimum(least, row)
    return int(np.count_nonzero((most > 0) & (least < 0)))
