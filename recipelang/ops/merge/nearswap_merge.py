"""nearswap-merge: move each weight of a model towards another's by at most a given amount
(alchemonaut's NearSwap, which has no paper)."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.merge._fields import as_mergekit, base_is_subject, check_pair, merging
from recipelang.ops.spec import SUBJECT, WITH, Cost, Model, PerTensor, Range, Typed, operation
from recipelang.types import ModelType
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results
from recipelang.weights.kernels.gram import single


def nearswap_result(typed: Typed) -> ModelType:
    """The subject's type. Raises Fault E0542 unless there are two models, E0601 to E0603."""
    check_pair(typed, "nearswap-merge")
    return merged_type(typed)


def nearswap_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, merged_type(typed))


@operation(
    kind="weights",
    result="Model",
    origin="common",
    laws=("unanimous",),
    include=merging,
    refuses=base_is_subject("nearswap-merge"),
    result_type=nearswap_result,
    cost=nearswap_cost,
)
def nearswap_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "two models: a, the subject, and b"],
    t: Annotated[PerTensor[float], Range(0), "the most that a weight moves; 0 gives a"],
    **shared: Any,
) -> Kernel:
    """R = a + clip(b - a, -t, t): where the two differ by t or less it is b, elsewhere a moved by t
    towards b. The result is the float32 number nearest to that.

    mergekit writes w b + (1 - w) a with w = min(1, t / max(|b - a|, 1e-6)), which takes only part
    of differences below 1e-6 where t is smaller still.

    From alchemonaut's NearSwap, which has no paper.

        nudged = a -> nearswap-merge with b { t = 0.0001 }
    """
    if t == 0:
        return single(0, 2)
    moved = _mergekit if as_mergekit(shared) else _moved

    def combine(xp: Any, inputs: Inputs, block: Block, results: Results) -> Array:
        a, b = inputs["inputs"]
        return moved(xp, a, b, t)

    return Kernel(combine)


def _moved(xp: Any, a: Array, b: Array, t: float) -> Array:
    """b cut to [a - t, a + t]: rounding keeps order, so this rounds the exact value once."""
    return xp.minimum(xp.maximum(b, a - t), a + t)


def _mergekit(xp: Any, a: Array, b: Array, t: float) -> Array:
    share = xp.minimum(t / xp.maximum(xp.abs(a - b), 1e-6), 1)
    total = b * share
    total += a * (1 - share)
    return total
