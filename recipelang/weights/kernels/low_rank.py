"""A weight with an adapter's change: LoRA (Hu et al. 2021, arXiv 2106.09685), DoRA (Liu et al.
2024, arXiv 2402.09353), tensors that stand in place of the model's.

With W the weight that is changed, s the scale, and B A the product of the factors, transposed where
the weight is stored (in, out):

- LoRA: W' = W + s B A.
- DoRA: V = W + s B A and W' = m V / ||V||: each row of V (each column where it is transposed) is
  brought to the length that m gives it; a row of zeros stays zeros.
- biases: b' = b + s d.

All of it is float32 (float64 for F64 weights). Each number of B A is the sum of ``rank`` products
in order, on the host with one rounding an operation; norms are summed in float64.
"""

from __future__ import annotations

from typing import Any

from recipelang.weights.adapting import Change
from recipelang.weights.kernel import (
    Array,
    Block,
    ColumnSums,
    Copy,
    Inputs,
    Kernel,
    Results,
    on_host,
)

__all__ = ["WHOLE", "changed"]

WHOLE = "whole"
"""The role under which a kernel finds the tensors that it asked to see whole."""


def changed(role: str, change: Change, share: float = 1.0) -> Kernel | Copy:
    """The tensor of role ``model`` with the change that the adapter of ``role`` makes, W'; with a
    ``share``, W + share (W' - W).

    Factors, magnitudes and biases are seen whole. Blocks hold whole rows, so a row's norm is found
    in its block; norms of columns are statistics.
    """
    whole = tuple(name for name in (change.a, change.b, change.magnitude, change.shift) if name)
    if not whole and share == 1:
        return Copy(role, name=change.whole) if change.whole else Copy("model", name=change.of)
    by_columns = bool(change.magnitude) and change.transposed
    linear = not change.whole and not change.magnitude
    factor = change.scale * share if linear else change.scale

    def sum_(xp: Any, inputs: Inputs, block: Block) -> Array:
        start = inputs[role if change.whole else "model"][0]
        if change.shift:
            return start + inputs[WHOLE][0][block.start : block.stop] * factor
        if not change.a:
            return start
        total = _product(xp, change, inputs[WHOLE], block)
        total *= factor
        total += start
        return total

    def combine(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        value = sum_(xp, inputs, block)
        if change.magnitude:
            sums = results[0][0] if by_columns else None
            value = _brought_to(xp, value, inputs[WHOLE][2], sums, block)
        if share != 1 and not linear:
            value = (value - inputs["model"][0]) * share + inputs["model"][0]
        return value

    def squares(xp: Any, inputs: Inputs, block: Block) -> Array:
        return xp.square(xp.astype(sum_(xp, inputs, block), xp.float64))

    named = [(role, 0, change.whole)] if change.whole else []
    if change.of:
        named.append(("model", 0, change.of))
    return Kernel(
        combine,
        levels=(lambda results: (ColumnSums(squares),),) if by_columns else (),
        unread=frozenset({("model", 0)} if change.whole and share == 1 else ()),
        whole=tuple((role, 0, name) for name in whole),
        named=tuple(named),
    )


def _product(xp: Any, change: Change, whole: tuple[Array, ...], block: Block) -> Array:
    """The block's elements of B A, or of its transpose, flattened."""
    from recipelang.weights.strips.products import thin_product

    a, b = whole[:2]
    columns = block.shape[-1]
    first, last = block.start // columns, -(-block.stop // columns)
    left, right = (a[:, first:last].T, b.T) if change.transposed else (b[first:last], a)
    rows = thin_product(left, right) if on_host(xp) else left @ right
    return rows.reshape(-1)[block.start - first * columns : block.stop - first * columns]


def _brought_to(xp: Any, value: Array, magnitude: Array, sums: Array | None, block: Block) -> Array:
    """Rows of a block brought to the lengths of ``magnitude``; columns where the sums of their
    squares are given."""
    columns = block.shape[-1]
    rows = value.reshape(-1, columns)
    if sums is None:
        first = block.start // columns
        wanted = xp.astype(magnitude[first : first + len(rows), None], xp.float64)
        squares = xp.square(xp.astype(rows, xp.float64))
        norms = xp.sqrt(xp.sum(squares, axis=1, keepdims=True))
    else:
        wanted = xp.astype(magnitude[None, :], xp.float64)
        norms = xp.sqrt(xp.asarray(sums))[None, :]
    ratio = xp.where(norms > 0, wanted / xp.where(norms > 0, norms, 1), 0)
    return (rows * xp.astype(ratio, rows.dtype)).reshape(-1)
