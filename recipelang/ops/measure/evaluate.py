"""evaluate: one table of models by datasets, with a greedy continuation of some prompts.

Example:
    >>> evaluate.result
    'Table'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.measure._fields import check_pairs, scoring_cost, scoring_fields
from recipelang.ops.spec import (
    METRICS,
    ON,
    SUBJECT,
    Dataset,
    Fault,
    Model,
    Range,
    Tokens,
    Typed,
    operation,
)
from recipelang.types import DatasetType, TableType

__all__ = ["evaluate"]


def _type(step: Typed) -> TableType:
    check_pairs(step, step.types.get("models", ()))
    metrics = step.fields.get("metrics")
    if isinstance(metrics, tuple) and "accuracy" in metrics:
        for i, data in enumerate(step.types.get("data", ())):
            if isinstance(data, DatasetType) and data.format == "text":
                raise Fault(
                    "E0775",
                    "`accuracy` compares completions, and a text has no prompt",
                    at=f"data[{i}]",
                    help="leave `accuracy` out, or measure it on other data",
                )
    return TableType()


@operation(
    kind="evaluate",
    result="Table",
    determinism="repeatable",
    include=scoring_fields,
    result_type=_type,
    cost=scoring_cost,
)
def evaluate(
    models: Annotated[list[Model], SUBJECT, "the rows of the table"],
    data: Annotated[list[Dataset], ON, "its columns"],
    metrics: Annotated[list[str], METRICS, "what is measured in every cell"] = ("bits-per-byte",),  # type: ignore[assignment]
    samples: Annotated[list[str], "prompts that every model continues"] = (),  # type: ignore[assignment]
    sample_length: Annotated[Tokens, Range(1), "the most tokens of a continuation"] = 32,
) -> None:
    """Measure every model on every dataset, and let every model continue some prompts greedily.

    scores = evaluate [base, student] on notes.holdout { samples = ["friendship:"] }
    """
