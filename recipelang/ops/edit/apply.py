"""apply: a model with an adapter in it."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.spec import SUBJECT, TO, Adapter, Cost, Model, Typed, operation
from recipelang.types import AdapterType, ModelType
from recipelang.weights.adapter import check_fits
from recipelang.weights.compatibility import model_of, streaming_cost
from recipelang.weights.kernel import Copy, Kernel
from recipelang.weights.kernels.low_rank import add_low_rank


def apply_result(typed: Typed) -> ModelType:
    """The model's type. Raises Fault E0610 where the adapter does not fit."""
    model, adapter = model_of(typed.one("model")), typed.one("adapter")
    if isinstance(adapter, AdapterType):
        check_fits(adapter, model, at="adapter")
    return model


def apply_cost(typed: Typed) -> Cost:
    """One pass, where the result is stored as a whole."""
    return streaming_cost(typed, model_of(typed.one("model")))


@operation(
    kind="weights", result="Model", origin="model", result_type=apply_result, cost=apply_cost
)
def apply(
    adapter: Annotated[Adapter, SUBJECT, "what is applied"],
    model: Annotated[Model, TO, "what it is applied to"],
) -> Kernel | Copy:
    """W + scale * B A for every adapted weight, in float32 and rounded once to the model's dtype.

    other = apply verses to base
    """
    change: Any = adapter
    pair = change.pair if change is not None else None
    return add_low_rank("adapter", pair) if pair else Copy("model")
