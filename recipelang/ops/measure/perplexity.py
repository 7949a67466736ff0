"""perplexity: the exponential of the mean loss a token.

Example:
    >>> perplexity.direction
    'min'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.measure._fields import lower_is_better, scoring_cost, scoring_fields
from recipelang.ops.spec import OF, ON, Dataset, Model, operation

__all__ = ["perplexity"]


@operation(
    kind="measure",
    result="Measured",
    determinism="repeatable",
    include=scoring_fields,
    result_type=lower_is_better,
    cost=scoring_cost,
    direction="min",
)
def perplexity(
    model: Annotated[Model, OF, "the model"],
    data: Annotated[Dataset, ON, "the text it is scored on"],
) -> None:
    """The exponential of the mean cross-entropy a token, over windows of `length` without overlap.

    It compares models of one tokenizer only; `bits-per-byte` compares any.

        require perplexity of student on notes.holdout <= 1.1 * (perplexity of small on
        notes.holdout)
    """
