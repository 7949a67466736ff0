"""finetune: go on training a model on text, prompts with completions, or chats (supervised
fine-tuning).

Example:
    >>> finetune.origin
    'model'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import ON, OVER, SUBJECT, Cost, Dataset, Model, Typed, operation
from recipelang.ops.train._cost import training_cost
from recipelang.ops.train._fields import training_fields
from recipelang.ops.train._rules import check_training
from recipelang.types import DatasetType, ModelType

__all__ = ["finetune"]


def _type(step: Typed) -> ModelType:
    check_training(step, "model")
    found = step.one("model")
    return found if isinstance(found, ModelType) else ModelType()


def _cost(step: Typed) -> Cost:
    model, data = step.one("model"), step.one("data")
    if not isinstance(model, ModelType):
        return Cost()
    return training_cost(step, model, data if isinstance(data, DatasetType) else None)


@operation(
    kind="train",
    result="Model",
    origin="model",
    determinism="repeatable",
    include=training_fields,
    result_type=_type,
    cost=_cost,
)
def finetune(
    model: Annotated[Model, SUBJECT, "the model to start from"],
    data: Annotated[Dataset, ON, "what to train on"],
    over: Annotated[Dataset | None, OVER, "what to evaluate on while training"] = None,
) -> None:
    """Go on training a model on a dataset.

    The loss is the cross-entropy of the supervised tokens, summed and divided once by their number
    in the whole optimiser step, so `micro_batch` never changes a gradient. Supervised are the
    completions with their end, the assistant's turns with their terminator, or a whole text but its
    first token.

        finetune base on notes { adapter = lora(rank = 16, alpha = 32), epochs = 3 }
    """
