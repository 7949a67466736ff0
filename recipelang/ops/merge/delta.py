"""delta: the difference of two models, `a - b` in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.spec import FROM, OF, Cost, Model, Typed, operation
from recipelang.types import DeltaType
from recipelang.weights.compatibility import joined_type, model_of, streaming_cost
from recipelang.weights.joining import without_buffers
from recipelang.weights.kernel import Array, Block, Inputs, Kernel, Results


def delta_result(typed: Typed) -> DeltaType:
    """A delta of the first model's type and its tokens. Raises Fault E0601 to E0603, E0640."""
    left, right = model_of(typed.one("of")), model_of(typed.one("minus"))
    places = [typed.places.get(role, ("",))[0] or f"the {word} model"
              for role, word in (("of", "first"), ("minus", "second"))]  # fmt: skip
    joined = joined_type([("of", places[0], left), ("minus", places[1], right)])
    return DeltaType(without_buffers(joined, right))


def delta_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, typed.one("of") or DeltaType())


@operation(kind="weights", result="Delta", result_type=delta_result, cost=delta_cost, internal=True)
def delta(
    of: Annotated[Model, OF, "what is changed"],
    minus: Annotated[Model, FROM, "what it is compared with"],
) -> Kernel:
    """X - Y in float32."""

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        return blocks["of"][0] - blocks["minus"][0]

    return Kernel(combine)
