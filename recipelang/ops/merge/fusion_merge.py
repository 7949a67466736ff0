"""fusion-merge: take from another model the weights whose change matters most (Arcee Fusion of
mergekit, which has no paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from recipelang.ops.merge._fields import as_mergekit, base_is_subject, check_pair, merging
from recipelang.ops.spec import SUBJECT, WITH, Cost, Model, Typed, operation
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import (
    Array,
    Block,
    Inputs,
    Kernel,
    KthMagnitude,
    Results,
    RowSums,
    Value,
)
from recipelang.weights.kernels.gram import single


def fusion_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0542 unless there are two models, E0601 to E0603."""
    check_pair(typed, "fusion-merge")
    return merged_type(typed)


def fusion_cost(typed: Typed) -> Cost:
    """Two levels of statistics."""
    return streaming_cost(typed, merged_type(typed), levels=2)


@operation(
    kind="weights",
    result="Model",
    origin="common",
    laws=("unanimous",),
    include=merging,
    refuses=base_is_subject("fusion-merge"),
    result_type=fusion_result,
    cost=fusion_cost,
)
def fusion_merge(
    inputs: Annotated[
        list[Model], SUBJECT, WITH, "two models: a, the subject, and b, which it takes weights from"
    ],
    **shared: Any,
) -> Kernel:
    """R = b where I >= T, else a. The importance of an element is I = |b - a| * KL(softmax(b) ||
    softmax(a)), the softmax over the element's row of the last axis; the threshold is T = M + 1.5
    (Q3 - Q1) over the I of the tensor, with quartiles Q1, M, Q3 the elements floor(q (N - 1)) of I
    in ascending order.

    Divergences are summed in float64, importances are float32, quartiles are exact. A row of length
    one has divergence 0. mergekit adds 1e-8 to probabilities, and draws a million elements for the
    quartiles of larger tensors; `compat` has no such draw.

    From mergekit's Arcee Fusion, which has no paper.

        fused = a -> fusion-merge with b
    """
    first: Any = inputs[0]
    elements: int = first.elements
    if elements == 0:
        return single(0, 2)
    terms = _terms_mergekit if as_mergekit(shared) else _terms
    ranks = [elements - (elements - 1) * quarters // 4 for quarters in (1, 2, 3)]

    def divergences(results: Results) -> tuple[RowSums, ...]:
        return (RowSums(lambda xp, inputs, block: terms(xp, *_rows(inputs, block))),)

    def quartiles(results: Results) -> tuple[KthMagnitude, ...]:
        importance = _importance(results[0][0])
        return tuple(KthMagnitude(importance, k) for k in ranks)

    def solve(results: Results) -> _Outliers:
        low, middle, high = (_threshold(kth) for kth in results[1])
        return _Outliers(_importance(results[0][0]), middle + 1.5 * (high - low))

    def combine(xp: Any, inputs: Inputs, block: Block, outliers: _Outliers) -> Array:
        a, b = inputs["inputs"]
        taken = outliers.importance(xp, inputs, block) >= outliers.threshold
        total = b * taken
        total += a * ~taken
        return total

    return Kernel(combine, (divergences, quartiles), solve=solve)


@dataclass(frozen=True, slots=True)
class _Outliers:
    """Elements whose importance reaches the threshold."""

    importance: Value
    threshold: float


def _threshold(kth: Any) -> float:
    found: float = kth.threshold
    return found


def _rows(inputs: Inputs, block: Block) -> tuple[Array, Array]:
    """The blocks of a and b as rows of the last axis."""
    width = block.shape[-1] if block.shape else 1
    a, b = inputs["inputs"]
    return a.reshape(-1, width), b.reshape(-1, width)


def _importance(divergences: Any) -> Value:
    """|b - a| times the row's divergence, which is not negative but by rounding."""

    def importance(xp: Any, inputs: Inputs, block: Block) -> Array:
        a, b = _rows(inputs, block)
        first = block.start // a.shape[-1]
        rows = xp.asarray(divergences[first : first + len(a)])
        change = xp.abs(b - a)
        change *= xp.astype(xp.maximum(rows, 0)[:, None], change.dtype)
        return change.reshape(-1)

    return importance


def _terms(xp: Any, a: Array, b: Array) -> Array:
    """p (log p - log q) with p = softmax(b), q = softmax(a), flat float64."""
    log_p, log_q = _log_softmax(xp, b), _log_softmax(xp, a)
    terms = log_p - log_q
    terms *= xp.exp(log_p)
    return terms.reshape(-1)


def _log_softmax(xp: Any, rows: Array) -> Array:
    wide = xp.astype(rows, xp.float64)
    wide -= xp.max(wide, axis=-1, keepdims=True)
    wide -= xp.log(xp.sum(xp.exp(wide), axis=-1, keepdims=True))
    return wide


def _terms_mergekit(xp: Any, a: Array, b: Array) -> Array:
    p, q = (_softmax(xp, rows) + 1e-8 for rows in (b, a))
    return (p * xp.log(p / q)).reshape(-1)


def _softmax(xp: Any, rows: Array) -> Array:
    found = xp.exp(rows - xp.max(rows, axis=-1, keepdims=True))
    found /= xp.sum(found, axis=-1, keepdims=True)
    return found
