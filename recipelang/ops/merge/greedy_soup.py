"""greedy-soup: average the fine-tunes that help one another on held-out data (Wortsman et al. 2022,
arXiv 2203.05482, recipe 1).

Example:
    >>> greedy_soup.kind, [operand.name for operand in greedy_soup.operands]
    ('search', ['inputs', 'by', 'over'])
"""

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.ops.spec import (
    BY,
    METRIC,
    OVER,
    SUBJECT,
    Cost,
    Dataset,
    Measured,
    Model,
    Typed,
    operation,
)
from recipelang.weights.compatibility import merged_type, model_of

__all__ = ["greedy_soup"]


def soup_cost(typed: Typed) -> Cost:
    """The averages: of n candidates, n - 1 of two to n models are made to be measured, and the last
    one that was accepted is written. What the trials measure is not among it."""
    sizes = [model_of(type_).bytes or 0 for type_ in typed.types.get("inputs", ())]
    trials = sum(sum(sizes[:count]) for count in range(2, len(sizes) + 1))
    written = merged_type(typed).bytes or 0
    return Cost(bytes_read=trials + sum(sizes), bytes_written=written, memory_bytes=512 << 20)


@operation(
    kind="search",
    result="Model",
    determinism="repeatable",
    origin="common",
    result_type=merged_type,
    cost=soup_cost,
)
def greedy_soup(
    inputs: Annotated[list[Model], SUBJECT, "the candidates"],
    by: Annotated[Measured, BY, METRIC, "the metric; its direction says which way is better"],
    over: Annotated[Dataset, OVER, "the held-out data that it is measured on"],
    dtype: Annotated[
        Literal["f64", "f32", "bf16", "f16", "float64", "float32", "bfloat16", "float16"] | None,
        "how the result is stored; as the first candidate when left out",
    ] = None,
    nonfinite: Annotated[
        Literal["error", "allow"], "whether infinities and NaN in weights stop the soup"
    ] = "error",
) -> None:
    """The mean of the candidates that a greedy search accepts.

    Sort the candidates by the metric m, the best first and the earlier of equals before the later:
    c_1 ... c_n. Start with S = {c_1}; for i = 2 ... n, accept c_i (S := S + {c_i}) where the mean
    of S + {c_i} is not worse by m than the mean of S. The result is (sum over S of c) / |S|, and
    never worse by m than the best candidate.

    Means have the bits of a `linear-merge` of the same models: a sum in float32, rounded once. They
    are measured without being written; only the result is stored, and where one candidate alone is
    accepted, it is the result. The data should be none that anything was trained on. The run's
    report says what was accepted and what each trial measured.

        soup = greedy-soup [a, b, c] by bits-per-byte over notes.holdout
    """
