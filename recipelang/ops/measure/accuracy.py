"""accuracy: the share of prompts that a model completes exactly as the dataset does.

Example:
    >>> accuracy.direction
    'max'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.measure._fields import Precision, check_pairs, scoring_cost
from recipelang.ops.spec import (
    DRAWS,
    OF,
    ON,
    Dataset,
    Examples,
    Fault,
    Model,
    Range,
    Typed,
    operation,
)
from recipelang.types import DatasetType, MeasuredType

__all__ = ["accuracy"]


def _type(step: Typed) -> MeasuredType:
    check_pairs(step, step.types.get("model", ()))
    data = step.one("data")
    if isinstance(data, DatasetType) and data.format == "text":
        raise Fault(
            "E0775",
            "`accuracy` compares completions, and a text has no prompt",
            at="data",
            help="use data with `prompt` and `completion`, or chats; or measure `bits-per-byte`",
        )
    return MeasuredType("max")


@operation(
    kind="measure",
    result="Measured",
    determinism="repeatable",
    result_type=_type,
    cost=scoring_cost,
    direction="max",
)
def accuracy(
    model: Annotated[Model, OF, "the model"],
    data: Annotated[Dataset, ON, "prompts with completions, or chats"],
    prompts: Annotated[
        Examples | None, Range(1), "how many are asked, from the start [all]"
    ] = None,
    precision: Precision = None,
    seed: Annotated[int, DRAWS, "keys the resamples of the interval"] = 0,
) -> None:
    """Exact match of the greedy completion, space at both ends aside.

    In a chat the last turn of the assistant is asked for. The model has to stop by itself: an
    answer that goes on after the expected one is wrong.

        require accuracy of student on exam >= 62%
    """
