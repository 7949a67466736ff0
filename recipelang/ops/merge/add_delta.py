"""add-delta: a model plus a difference of models, `a + 0.4 * d` in a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.spec import SUBJECT, WITH, Adapter, Cost, Delta, Fault, Model, Typed, operation
from recipelang.types import AdapterType, ModelType
from recipelang.weights.adapting import adapted_type
from recipelang.weights.compatibility import joined_type, model_of, streaming_cost
from recipelang.weights.kernel import Array, Block, Copy, Inputs, Kernel, Results
from recipelang.weights.kernels.low_rank import changed


def add_delta_result(typed: Typed) -> ModelType:
    """The model's type. Raises Fault E0601 to E0603; for an adapter E0610, E0614, and E0615 where a
    part of what has another shape is asked for."""
    model, change = model_of(typed.one("model")), typed.one("delta")
    if isinstance(change, AdapterType):
        adapted = adapted_type(change, model, at="delta")
        if typed.fields.get("scale") != 1 and _table(adapted) != _table(model):
            raise Fault(
                "E0615", "the adapter changes the model's shape, and no part of that can be added",
                at="delta", help="apply all of it: `apply a to m`",
            )  # fmt: skip
        return adapted
    places = [typed.places.get(role, ("",))[0] or f"the {role}" for role in ("model", "delta")]
    return joined_type([("model", places[0], model), ("delta", places[1], model_of(change))])


def _table(model: ModelType) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in (model.tensors or {}).items()}


def add_delta_cost(typed: Typed) -> Cost:
    """One pass."""
    return streaming_cost(typed, add_delta_result(typed))


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
    """M + scale * D in float32, rounded once to the model's dtype. An adapter's D is what it makes
    of M, less M."""
    change: Any = delta
    if change is None:
        return Copy("model")
    if hasattr(change, "change"):
        return changed("delta", change.change, scale) if change.change else Copy("model")

    def combine(xp: Any, blocks: Inputs, block: Block, results: Results) -> Array:
        total = blocks["delta"][0] * scale
        total += blocks["model"][0]
        return total

    return Kernel(combine)
