"""loss: nats a token, averaged over all scored tokens of a dataset.

Example:
    >>> loss.direction
    'min'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.measure._fields import lower_is_better, scoring_cost, scoring_fields
from recipelang.ops.spec import OF, ON, Dataset, Model, operation

__all__ = ["loss"]


@operation(
    kind="measure",
    result="Measured",
    determinism="repeatable",
    include=scoring_fields,
    result_type=lower_is_better,
    cost=scoring_cost,
    direction="min",
)
def loss(
    model: Annotated[Model, OF, "the model"],
    data: Annotated[Dataset, ON, "the text it is scored on"],
) -> None:
    """The mean cross-entropy in nats a token, over windows of `length` without overlap.

    require loss of student on notes.holdout <= 2.5
    """
