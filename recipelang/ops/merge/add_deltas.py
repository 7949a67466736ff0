"""add-deltas: a sum of differences of models, `d + e` and `d - e` in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.spec import SUBJECT, WITH, Cost, Delta, Typed, operation
from recipelang.types import DeltaType
from recipelang.weights.compatibility import joined_type, model_of, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results


def add_deltas_result(typed: Typed) -> DeltaType:
    """The left delta's type. Raises Fault E0601 to E0603."""
    left, right = model_of(typed.one("left")), model_of(typed.one("right"))
    members = [("left", "the left delta", left), ("right", "the right delta", right)]
    return DeltaType(joined_type(members))


def add_deltas_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, typed.one("left") or DeltaType())


@operation(
    kind="weights",
    result="Delta",
    result_type=add_deltas_result,
    cost=add_deltas_cost,
    internal=True,
)
def add_deltas(
    left: Annotated[Delta, SUBJECT, "one difference"],
    right: Annotated[Delta, WITH, "another"],
    scale: Annotated[float, "the factor of the right one"] = 1.0,
) -> Kernel:
    """D + scale * E in float32."""

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        total = blocks["right"][0] * scale
        total += blocks["left"][0]
        return total

    return Kernel(combine)
