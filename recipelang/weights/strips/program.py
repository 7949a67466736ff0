"""From the nodes that lead to some arrays to instructions for the compiled library, and their run.

Example:
    >>> from recipelang.weights.strips.lazy import of
    >>> x = of(np.arange(3, dtype=np.float32))
    >>> Program.to(values=(x * 2 + 1,)).run(3).values      # doctest: +SKIP
    (array([1., 3., 5.], dtype=float32),)
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recipelang.native import library

if TYPE_CHECKING:
    from recipelang.weights.strips.lazy import Lazy

__all__ = ["Found", "Program", "operations"]

INSTRUCTION = struct.Struct("=6idQ")
DOUBLE = struct.Struct("=d")
NOWHERE = -1
"""The register of a node that gives no array."""


@cache
def operations() -> dict[str, int]:
    """The library's operations by name; none without the library."""
    found = library()
    if found is None:
        return {}
    text: bytes = found.strip_operations()
    names = text.decode().split()
    return {name: number for number, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class Found:
    """What a run gave: arrays, sums, and for each bracket how many magnitudes are above it and
    those that are inside."""

    values: tuple[NDArray[Any], ...]
    sums: tuple[float, ...]
    brackets: tuple[tuple[int, NDArray[Any]], ...]


class Program:
    """Instructions that give the ``values`` of some nodes, add up others, and compare the
    magnitudes of others with a bracket ``(node, low, high)``."""

    def __init__(
        self, values: Sequence[Lazy] = (), sums: Sequence[Lazy] = (),
        brackets: Sequence[tuple[Lazy, float, float]] = (),
    ) -> None:  # fmt: skip
        self._values = [node.dtype for node in values]
        self._sums = len(sums)
        self._brackets = [node.dtype for node, _, _ in brackets]
        self._inputs: list[NDArray[Any]] = []
        self._failures: list[Callable[[], Exception]] = []
        self._code: list[bytes] = []
        self._places: dict[int, int] = {}
        self._buffers, self._unused = 0, list[int]()
        order = _order([*values, *sums, *(node for node, _, _ in brackets)])
        self._loads = sum(node.op == "load" for node in order)
        self._translate(order, _takers(values, sums, brackets))

    def run(
        self, stop: int, start: int = 0, pieces: Iterable[tuple[int, int]] = (),
        totals: Sequence[float] = (),
    ) -> Found:  # fmt: skip
        """Over elements ``[start, stop)``, in these ``pieces`` of them where they are given: sums
        go on from ``totals``, over strips that begin with a piece. Raises what a check of its nodes
        found first."""
        found = library()
        assert found is not None
        values = [np.empty(stop - start, dtype) for dtype in self._values]
        kept = [np.empty(stop - start + 16, dtype) for dtype in self._brackets]
        sums = np.zeros(self._sums + 2 * len(kept))
        sums[: len(totals)] = totals
        flags = np.zeros(len(self._failures), np.uint8)
        space = SCRATCH.at_least(found.strip_scratch_bytes(self._loads, self._buffers))
        code, inputs = b"".join(self._code), _addresses(self._inputs)
        outputs = _addresses([*values, *kept])
        for first, last in pieces or ((start, stop),):
            found.run_strips(
                code, len(self._code), self._loads, self._buffers, inputs, outputs,
                _address(sums), _address(flags), start, first, last, space,
            )  # fmt: skip
        if flags.any():
            raise self._failures[int(flags.argmax())]()
        counts = [int(count) for count in sums[self._sums :]]
        return Found(
            tuple(values),
            tuple(sums[: self._sums].tolist()),
            tuple(
                (above, part[:inside].copy())
                for part, above, inside in zip(kept, counts[::2], counts[1::2], strict=True)
            ),
        )

    def _translate(self, order: Sequence[Lazy], takers: dict[int, list[tuple[Any, ...]]]) -> None:
        """One instruction a node, and behind it those that take it out."""
        same = {id(node): id(node.args[0]) for node in order if node.op == "same"}
        last: dict[int, int] = {}
        for at, node in enumerate(order):
            for arg in node.args:
                last[_first(same, id(arg))] = at
        names = operations()
        for at, node in enumerate(order):
            if node.op == "same":
                place = self._places[id(node)] = self._places[id(node.args[0])]
            else:
                args = [self._places[id(arg)] for arg in node.args]
                place = self._emit(names, node, args)
            for name, *fields in takers.get(id(node), ()):
                self._code.append(_instruction(names[name], 0, place, *fields))
            used = {_first(same, id(arg)) for arg in node.args} | {_first(same, id(node))}
            for key in used:
                if last.get(key, -1) <= at and self._places.get(key, 0) >= self._loads:
                    self._unused.append(self._places[key])
                    last[key] = len(order)

    def _emit(self, names: dict[str, int], node: Lazy, args: list[int]) -> int:
        number, word = node.number, node.word
        if node.op == "load":
            place = len(self._inputs)
            self._code.append(_instruction(names["load"], place, 0, place, node.dtype.itemsize))
            assert node.value is not None
            self._inputs.append(node.value)
            self._places[id(node)] = place
            return place
        if node.failure is not None:
            self._code.append(
                _instruction(names[node.op], 0, args[0], len(self._failures), word=word)
            )
            self._failures.append(node.failure)
            self._places[id(node)] = NOWHERE
            return NOWHERE
        if self._unused:
            place = self._unused.pop()
        else:
            place, self._buffers = self._loads + self._buffers, self._buffers + 1
        if node.op.endswith("_nv"):
            args = [0, *args]
        a, b, c = (*args, 0, 0, 0)[:3]
        self._code.append(_instruction(names[node.op], place, a, b, c, number, word))
        self._places[id(node)] = place
        return place


def _order(nodes: Sequence[Lazy]) -> list[Lazy]:
    """Everything that leads to these nodes, in the order in which it was asked for."""
    found: dict[int, Lazy] = {}
    open_ = list(nodes)
    while open_:
        node = open_.pop()
        if id(node) not in found:
            found[id(node)] = node
            open_.extend(node.args)
    return sorted(found.values(), key=lambda node: node.order)


def _first(same: dict[int, int], key: int) -> int:
    while key in same:
        key = same[key]
    return key


def _takers(
    values: Sequence[Lazy], sums: Sequence[Lazy], brackets: Sequence[tuple[Lazy, float, float]]
) -> dict[int, list[tuple[Any, ...]]]:
    """The instructions that take a node out: name, fields b and c, number, word."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for place, node in enumerate(values):
        found.setdefault(id(node), []).append(("store", place, node.dtype.itemsize))
    for place, node in enumerate(sums):
        found.setdefault(id(node), []).append((f"{node.dtype.str[1:]}_sum", place))
    for place, (node, low, high) in enumerate(brackets):
        (top,) = struct.unpack("=Q", DOUBLE.pack(high))
        where = (len(values) + place, len(sums) + 2 * place, low, top)
        found.setdefault(id(node), []).append((f"{node.dtype.str[1:]}_bracket", *where))
    return found


def _instruction(
    op: int, out: int, a: int = 0, b: int = 0, c: int = 0, number: float = 0.0, word: int = 0
) -> bytes:
    return INSTRUCTION.pack(op, out, a, b, c, 0, number, word)


class _Scratch(threading.local):
    """A thread's registers."""

    space: NDArray[np.uint8] = np.zeros(0, np.uint8)

    def at_least(self, size: int) -> int:
        """The address of so many bytes, aligned to a cache line."""
        if self.space.size < size + 64:
            self.space = np.empty(size + 64, np.uint8)
        return -(-_address(self.space) // 64) * 64


SCRATCH = _Scratch()


def _address(array: NDArray[Any]) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def _addresses(arrays: Sequence[NDArray[Any]]) -> bytes:
    return struct.pack(f"={len(arrays)}Q", *map(_address, arrays))
