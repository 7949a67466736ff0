"""part: one side of a split; recipes write `notes.train`.

Example:
    >>> part.internal
    True
"""

from __future__ import annotations

from typing import Annotated, Literal

from recipelang.ops.spec import OF, Dataset, Typed, operation
from recipelang.types import DatasetType, SplitType

__all__ = ["part"]


def _type(step: Typed) -> DatasetType:
    found = step.one("of")
    return found.of if isinstance(found, SplitType) else DatasetType()


@operation(kind="data", result="Dataset", result_type=_type, internal=True)
def part(
    of: Annotated[Dataset, OF, "the split"],
    name: Annotated[Literal["train", "holdout"], "which part"] = "train",
) -> None:
    """One side of a split, reached as `.train` and `.holdout`."""
