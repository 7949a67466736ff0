"""apply: a model with an adapter in it."""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.ops.spec import SUBJECT, TO, Adapter, Cost, Model, Typed, operation
from recipelang.types import AdapterType, ModelType
from recipelang.weights.adapting import adapted_type
from recipelang.weights.compatibility import model_of, streaming_cost
from recipelang.weights.kernel import Copy, Kernel
from recipelang.weights.kernels.low_rank import changed


def apply_result(typed: Typed) -> ModelType:
    """The model's type, with another number of tokens or a head of its own where the adapter
    brings them. Raises Fault E0610 where the adapter does not fit, E0614."""
    model, adapter = model_of(typed.one("model")), typed.one("adapter")
    if isinstance(adapter, AdapterType):
        return adapted_type(adapter, model, at="adapter")
    return model


def apply_cost(typed: Typed) -> Cost:
    """One pass, where the result is stored as a whole."""
    return streaming_cost(typed, apply_result(typed))


@operation(
    kind="weights", result="Model", origin="model", result_type=apply_result, cost=apply_cost
)
def apply(
    adapter: Annotated[Adapter, SUBJECT, "what is applied"],
    model: Annotated[Model, TO, "what it is applied to"],
) -> Kernel | Copy:
    """LoRA: W' = W + s B A, with s = alpha / rank (alpha / sqrt(rank) for rsLoRA). DoRA: each row
    of W + s B A is brought to the length that the adapter has learnt for it. Embeddings, biases and
    Conv1D weights alike; tensors of `modules_to_save` replace the model's. In float32, and rounded
    once to the model's dtype.

    A head that was the embedding (`tie_word_embeddings`) becomes one of its own where the adapter
    changes only one of the two, as it was in training.

        verses = adapter "adapters/verses" from base
        other = apply verses to base
    """
    change: Any = adapter
    return changed("adapter", change.change) if change.change else Copy("model")
