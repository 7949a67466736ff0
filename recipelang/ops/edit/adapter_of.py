"""adapter-of: the adapter inside a model that was fine-tuned with one."""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import SUBJECT, Cost, Model, Typed, operation
from recipelang.types import AdapterType
from recipelang.weights.compatibility import model_of


def adapter_of_result(typed: Typed) -> AdapterType:
    """An adapter for the model's base; its tensors are known when it was trained."""
    return AdapterType(base=model_of(typed.one("model")))


@operation(
    kind="source", result="Adapter", origin="model", result_type=adapter_of_result,
    cost=lambda typed: Cost(),
)  # fmt: skip
def adapter_of(
    model: Annotated[Model, SUBJECT, "a model fine-tuned with `adapter = lora(…)`"],
) -> None:
    """The low-rank matrices alone, which `publish` writes as PEFT files.

    publish (adapter-of other) to "out/verses"
    """
