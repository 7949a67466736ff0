"""Statistics of a block in one program: the sums and the brackets of several at once.

Example: ``add(accumulators, inputs, block, [(0, 1000)])``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recipelang.weights.kernel import Block, Inputs
from recipelang.weights.statistics import (
    Accumulator,
    ColumnAccumulator,
    KthAccumulator,
    SumAccumulator,
)
from recipelang.weights.strips.lazy import XP, Lazy, concrete, convert, of, wrapped
from recipelang.weights.strips.program import Program

__all__ = ["add"]


def add(
    accumulators: Sequence[Accumulator], inputs: Inputs, block: Block,
    pieces: Sequence[tuple[int, int]],
) -> None:  # fmt: skip
    """Have each take a block, whose sums begin anew with each of the ``pieces`` of it: numpy's
    blocks."""
    sums: list[Lazy] = []
    totals: list[float] = []
    brackets: list[tuple[Lazy, float, float]] = []
    summed: list[tuple[SumAccumulator, int]] = []
    compared: list[KthAccumulator] = []
    for one in accumulators:
        values = one.value(XP, inputs, block)
        if isinstance(one, SumAccumulator):
            terms = [_node(term) for term in one.terms(values)]
            summed.append((one, len(terms)))
            totals += one.totals or [0.0] * len(terms)
            sums += terms
        elif isinstance(one, KthAccumulator) and one.bracket is not None:
            compared.append(one)
            brackets.append((_node(values), *one.bracket))
        elif isinstance(one, ColumnAccumulator):
            found = concrete(values)
            for first, last in pieces:
                one.add(block.start + first, found[first:last])
        else:
            one.add(block.start, concrete(values))
    if not sums and not brackets:
        return
    ran = Program(sums=sums, brackets=brackets).run(
        block.stop - block.start, pieces=pieces, totals=totals
    )
    results = iter(ran.sums)
    for adder, count in summed:
        adder.totals = [next(results) for _ in range(count)]
    for comparer, (above, inside) in zip(compared, ran.brackets, strict=True):
        comparer.add_compared(block.start, above, inside)


def _node(values: Any) -> Lazy:
    node = of(values)
    return node if node.dtype.kind == "f" else wrapped(convert(node, XP.float64))
