"""bits-per-byte: how many bits the model needs for a byte of text, whatever its tokenizer.

Example:
    >>> bits_per_byte.verb, bits_per_byte.direction
    ('bits-per-byte', 'min')
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.measure._fields import lower_is_better, scoring_cost, scoring_fields
from recipelang.ops.spec import OF, ON, Dataset, Model, operation

__all__ = ["bits_per_byte"]


@operation(
    kind="measure",
    result="Measured",
    determinism="repeatable",
    include=scoring_fields,
    result_type=lower_is_better,
    cost=scoring_cost,
    direction="min",
)
def bits_per_byte(
    model: Annotated[Model, OF, "the model"],
    data: Annotated[Dataset, ON, "the text it is scored on"],
) -> None:
    """Nats over all scored tokens, divided by ln 2 and by the UTF-8 bytes of those tokens.

    A text is cut into windows of `length` without overlap; the first token of a window is not
    scored and its bytes are not counted. Texts are scored without an end token, completions and
    turns with their terminator, which has no bytes.

        require bits-per-byte of student on unseen <= 1.2
    """
