"""ramplus-merge: ram-merge that enlarges what a model changed alone, the more of its changes are
shared with others (RAM+, Yuan et al. 2026, arXiv 2601.13572)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from recipelang.ops.merge._fields import merging
from recipelang.ops.spec import (
    BY_ORIGIN,
    FROM,
    SUBJECT,
    WITH,
    Cost,
    Model,
    PerTensor,
    Range,
    Typed,
    operation,
)  # fmt: skip
from recipelang.weights.compatibility import merged_type, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results, SumsOf
from recipelang.weights.kernels.overlap import changes, mean_change, touched


def ramplus_cost(typed: Typed) -> Cost:
    """One level of statistics."""
    return streaming_cost(typed, merged_type(typed), levels=1)


@operation(
    kind="weights",
    result="Model",
    origin="base",
    laws=("permutation_invariant", "unanimous", "keeps_base"),
    include=merging,
    result_type=merged_type,
    cost=ramplus_cost,
)
def ramplus_merge(
    inputs: Annotated[list[Model], SUBJECT, WITH, "the fine-tuned models"],
    base: Annotated[Model, FROM, BY_ORIGIN, "what the task vectors are taken from"],
    r: Annotated[PerTensor[float], Range(0), "growth by the ratio of shared to own changes"] = 0.1,
    alpha: Annotated[PerTensor[float], Range(0), "the ratio counts up to this"] = 0.2,
    epsilon: Annotated[PerTensor[float], Range(0), "changes up to this size count as none"] = 1e-5,
    scale: Annotated[PerTensor[float], "factor on the merged task vector"] = 1.0,
    **shared: Any,
) -> Kernel:
    """As `ram-merge`, but a change D_i that only model i has is multiplied by 1 + r * min(alpha,
    shared_i / own_i): the numbers of elements of the tensor that model i changed with others and
    alone.

    The paper counts over the whole model; this is tensor by tensor, as in mergekit, which computes
    the same in the stored dtype.

    Yuan et al. 2026, Reinforced Agent Merging, arXiv 2601.13572.

        agents = coder -> ramplus-merge with planner and searcher from base { r = 0.2 }
    """
    count = len(inputs)

    def counts(xp: Any, blocks: Inputs, block: Block) -> Iterable[Array]:
        found = changes(xp, blocks, count, epsilon)
        alone = touched(xp, found) == 1
        for _, where in found:
            yield where
            yield where & alone

    def solve(results: Results) -> tuple[float, ...]:
        numbers: Any = results[0][0] or (0.0,) * (2 * count)
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return tuple(_growth(changed, alone, r, alpha) for changed, alone in pairs)

    def combine(xp: Any, blocks: Inputs, block: Block, growths: tuple[float, ...]) -> Array:
        found = changes(xp, blocks, count, epsilon)
        shared_by_some = touched(xp, found) > 1
        total = mean_change(xp, found)
        total *= shared_by_some
        for (vector, _), growth in zip(found, growths, strict=True):
            vector *= ~shared_by_some
            vector *= growth
            total += vector
        if scale != 1:
            total *= scale
        total += blocks["base"][0]
        return total

    return Kernel(combine, (lambda results: (SumsOf(counts),),), solve=solve)


def _growth(changed: float, alone: float, r: float, alpha: float) -> float:
    """The factor of a model's own changes, of which there are ``alone`` among ``changed``.

    >>> _growth(11.0, 10.0, 0.5, 0.2)
    1.05
    """
    return 1 + r * min(alpha, (changed - alone) / max(alone, 1))
