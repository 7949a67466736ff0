"""best: the model of a list that a metric likes best.

Example:
    >>> best.kind
    'choose'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import (
    BY,
    METRIC,
    OF,
    OVER,
    Dataset,
    Fault,
    Measured,
    Model,
    Typed,
    operation,
)
from recipelang.types import ModelType, TokenizerType
from recipelang.weights.vocabulary import is_readable, same_ids

__all__ = ["best"]


def _type(step: Typed) -> ModelType:
    found = step.types.get("of", ())
    if not found:
        raise Fault(
            "E0573", "`best` has nothing to choose from", at="of", help="name at least one model"
        )
    first = found[0]
    if not isinstance(first, ModelType):
        return ModelType()
    for i, other in enumerate(found[1:], 1):
        if isinstance(other, ModelType):
            _check_alike(first, other, f"of[{i}]")
    return first


def _check_alike(first: ModelType, other: ModelType, at: str) -> None:
    """Candidates have one shape and one tokenizer, so that what follows does not depend on the
    winner.
    """
    if first.tensors is not None and other.tensors is not None:
        shapes = [
            {name: t.shape for name, t in m.tensors.items()} for m in (first, other) if m.tensors
        ]
        if shapes[0] != shapes[-1]:
            raise Fault(
                "E0663",
                "the candidates of `best` have different shapes",
                at=at,
                help="choose among models of one shape",
            )
    if not _alike(first.tokenizer, other.tokenizer):
        raise Fault(
            "E0663",
            "the candidates of `best` have different tokenizers",
            at=at,
            help="choose among models of one tokenizer",
        )


def _alike(a: TokenizerType | None, b: TokenizerType | None) -> bool:
    """Whether both give equal ids to equal tokens, however their files are written; one that is
    not known may be alike."""
    if a is None or b is None or a.digest == b.digest:
        return True
    return is_readable(a) and is_readable(b) and same_ids(a, b)


@operation(kind="choose", result="Model", origin="common", result_type=_type)
def best(
    of: Annotated[list[Model], OF, "the candidates"],
    by: Annotated[Measured, BY, METRIC, "the metric; its direction says which way is better"],
    over: Annotated[Dataset, OVER, "what it is measured on"],
) -> None:
    """The candidate with the best value of a metric; the first one among equals.

    When the recipe is lowered, `by` becomes the measured values of the candidates, in their order.

        teacher = best of teachers by perplexity over notes.holdout
    """
