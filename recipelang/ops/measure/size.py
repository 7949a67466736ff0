"""size: the number of a model's parameters.

Example:
    >>> size.direction
    'min'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import OF, Model, operation
from recipelang.types import MeasuredType

__all__ = ["size"]


@operation(
    kind="measure", result="Measured", result_type=lambda step: MeasuredType("min"), direction="min"
)
def size(model: Annotated[Model, OF, "the model"]) -> None:
    """The number of parameters; tied weights count once.

    require size of student <= 115M
    """
