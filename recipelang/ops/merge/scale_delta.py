"""scale-delta: a number times a difference of models, `0.4 * d` in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.spec import SUBJECT, Cost, Delta, Typed, operation
from recipelang.types import DeltaType
from recipelang.weights.compatibility import model_of, streaming_cost
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results


def scale_delta_result(typed: Typed) -> DeltaType:
    """The same delta type."""
    return DeltaType(model_of(typed.one("delta")))


def scale_delta_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, typed.one("delta") or DeltaType())


@operation(
    kind="weights",
    result="Delta",
    result_type=scale_delta_result,
    cost=scale_delta_cost,
    internal=True,
    laws=("unit_factor",),
)
def scale_delta(
    delta: Annotated[Delta, SUBJECT, "the difference"],
    factor: Annotated[float, "what it is multiplied by"],
) -> Kernel:
    """factor * D in float32."""

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        return blocks["delta"][0] * factor

    return Kernel(combine)
