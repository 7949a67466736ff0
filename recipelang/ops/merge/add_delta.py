"""add-delta: a model plus a difference of models, `a + 0.4 * d` in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.spec import SUBJECT, WITH, Adapter, Cost, Delta, Model, Typed, operation
from recipelang.types import AdapterType, ModelType
from recipelang.weights.adapter import check_fits
from recipelang.weights.compatibility import joined_type, model_of, streaming_cost
from recipelang.weights.kernel import Array, Block, Copy, Inputs, Kernel, Results
from recipelang.weights.kernels.low_rank import add_low_rank


def add_delta_result(typed: Typed) -> ModelType:
    """The model's type. Raises Fault E0601 to E0603, or E0610 for an adapter that does not fit."""
    model, change = model_of(typed.one("model")), typed.one("delta")
    if isinstance(change, AdapterType):
        check_fits(change, model, at="delta")
        return model
    places = [typed.places.get(role, ("",))[0] or f"the {role}" for role in ("model", "delta")]
    return joined_type([("model", places[0], model), ("delta", places[1], model_of(change))])


def add_delta_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, model_of(typed.one("model")))


@operation(
    kind="weights",
    result="Model",
    origin="model",
    result_type=add_delta_result,
    cost=add_delta_cost,
    internal=True,
)
def add_delta(
    model: Annotated[Model, SUBJECT, "what is changed"],
    delta: Annotated[Delta | Adapter, WITH, "the change"],
    scale: Annotated[float, "its factor"] = 1.0,
) -> Kernel | Copy:
    """M + scale * D in float32, rounded once to the model's dtype."""
    change: Any = delta
    if change is None:
        return Copy("model")
    if hasattr(change, "pair"):
        return add_low_rank("delta", change.pair, scale) if change.pair else Copy("model")

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        total = blocks["delta"][0] * scale
        total += blocks["model"][0]
        return total

    return Kernel(combine)
