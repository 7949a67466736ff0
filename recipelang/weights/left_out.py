"""What an extracted adapter does not hold: the tensors that a fine-tune changed, and that are no
adapted weights (norms, biases, embeddings).

Example:
    >>> left_out(make_step(lookup("extract-adapter"), models, {"rank": 8}))  # doctest: +SKIP
    ('model.norm.weight',)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipelang.weights.blocks import blocks_of
from recipelang.weights.evaluate import Evaluation
from recipelang.weights.expression import Combine, Leaf, Source
from recipelang.weights.joining import is_buffer
from recipelang.weights.metadata import FLOATS
from recipelang.weights.model_statistics import asks_for_model
from recipelang.weights.needs import walk
from recipelang.weights.numbers import compute_dtype, widen
from recipelang.weights.region import Step, inputs_of
from recipelang.weights.sharing import only_one

__all__ = ["left_out"]


def left_out(step: Step) -> tuple[str, ...]:
    """The tensors, in name order, that an extraction's model has other numbers in than its base and
    that its adapter does not change.

    Each is read up to its first block with a difference, those known to be one not at all. What a
    statistic over a whole model made is taken to differ.
    """
    tables = [step.operands[role][0].tensors for role in ("model", "base")]
    infos = {name: info for table in tables for name, info in table.items()}
    names = [
        name for name, info in sorted(infos.items())
        if name not in step.factors and info.dtype in FLOATS and not is_buffer(name, info.shape)
    ]  # fmt: skip
    return tuple(name for name in names if _differs(inputs_of(step, name, {})))


def _differs(inputs: Mapping[str, tuple[Source | None, ...]]) -> bool:
    (model,), (base,) = inputs["model"], inputs["base"]
    if model is None or base is None or only_one(inputs, frozenset()) is not None:
        return (model is None) != (base is None)
    nodes = [node for source in (model, base) for node in walk(source)]
    if any(isinstance(node, Combine) and asks_for_model(node) for node in nodes):
        return True
    try:
        with closing(Evaluation([model, base], _read, hold=False)) as evaluation:
            for source in (model, base):
                evaluation.prepare(source)
            return any(
                not _equal(*((evaluation.at(s, block), s.info.dtype) for s in (model, base)))
                for block in blocks_of(base.info)
            )
    finally:
        for node in nodes:
            if isinstance(node, Leaf):
                node.checkpoint.release(node.name)


def _equal(a: tuple[NDArray[Any], str], b: tuple[NDArray[Any], str]) -> bool:
    """Whether two stored blocks, each with its dtype, hold equal numbers."""
    if a[1] == b[1] and np.array_equal(a[0].view(np.uint8), b[0].view(np.uint8)):
        return True
    left, right = (widen(values, compute_dtype(dtype)) for values, dtype in (a, b))
    return np.array_equal(left, right, equal_nan=True)


def _read(leaf: Leaf, start: int, stop: int) -> NDArray[Any]:
    return leaf.checkpoint.read(leaf.name, start, stop)
