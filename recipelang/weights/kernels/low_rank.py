"""W + scale * B A: a weight with a low-rank change (LoRA, Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Any

from recipelang.weights.adapter import Pair
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results

__all__ = ["WHOLE", "add_low_rank", "low_rank_rows"]

WHOLE = "whole"
"""The role under which a kernel finds the tensors that it asked to see whole."""


def add_low_rank(role: str, pair: Pair, scale: float = 1.0) -> Kernel:
    """The kernel over role ``model``, with A (rank, in) and B (out, rank) whole from operand
    ``role``.

    Blocks are whole rows of W, cut by its shape alone, so each number is one dot product of length
    ``rank`` in float32 whatever the threads; it is multiplied by the scale and added to W in
    float32.
    """

    def combine(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        a, b = inputs[WHOLE]
        change = low_rank_rows(xp, a, b, block)
        change *= pair.scale * scale
        change += inputs["model"][0]
        return change

    return Kernel(combine, whole=((role, 0, pair.a), (role, 0, pair.b)))


def low_rank_rows(xp: Any, a: Array, b: Array, block: Block) -> Array:
    """The elements ``[start, stop)`` of B A, flattened."""
    columns = block.shape[-1]
    first, last = block.start // columns, -(-block.stop // columns)
    rows = (b[first:last] @ a).reshape(-1)
    return rows[block.start - first * columns : block.stop - first * columns]
