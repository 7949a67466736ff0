"""split: cut a dataset into two parts that share no row.

Example:
    >>> split.result
    'Split'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import DRAWS, SUBJECT, Dataset, Fault, Typed, operation, units
from recipelang.types import DatasetType, SplitType
from recipelang.values import Quantity

__all__ = ["split"]

FIVE_PERCENT = Quantity(0.05, "fraction")


def _type(step: Typed) -> SplitType:
    data, holdout = step.one("data"), step.fields.get("holdout")
    if isinstance(holdout, Quantity):
        share = holdout.unit == "fraction"
        if holdout.value <= 0 or (share and holdout.value >= 1):
            raise Fault(
                "E0567",
                "`holdout` leaves one part without rows",
                at="holdout",
                help="write a share such as `5%`, or a number of examples",
            )
    if not isinstance(data, DatasetType):
        return SplitType(DatasetType())
    if data.take_tokens is not None:
        raise Fault(
            "E0568",
            "a dataset cut to a number of tokens cannot be split: its rows are not known",
            at="data",
            help="take examples instead: `take = 500 examples`",
        )
    if data.rows is not None and data.rows < 2:
        raise Fault(
            "E0782",
            "a dataset of fewer than two rows cannot be split",
            at="data",
            help="add rows, or use the dataset whole",
        )
    return SplitType(
        DatasetType(data.columns, data.format, None, data.length, data.bytes, None, data.template)
    )


@operation(kind="data", result="Split", result_type=_type)
def split(
    data: Annotated[Dataset, SUBJECT, "what to split"],
    holdout: Annotated[
        Quantity, units("fraction", "examples"), "share or number of rows of `.holdout`"
    ] = FIVE_PERCENT,
    seed: Annotated[int, DRAWS, "keys which rows are held out"] = 0,
) -> None:
    """Cut a dataset into `.train` and `.holdout`, by row, keeping the order.

    Rows that are equal go to the same part, so no held-out row was trained on.

        notes = split (dataset "notes.jsonl") { holdout = 5% }
    """
