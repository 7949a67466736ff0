"""distill: train a student on what a teacher says of every next token.

Example:
    >>> distill.origin
    'into'
"""

from __future__ import annotations

from typing import Annotated

from recipelang.ops.spec import (
    INTO,
    ON,
    OVER,
    SUBJECT,
    Cost,
    Dataset,
    Fault,
    Model,
    Range,
    Typed,
    forms,
    operation,
)
from recipelang.ops.train._cost import training_cost
from recipelang.ops.train._fields import training_fields
from recipelang.ops.train._rules import check_training
from recipelang.types import DatasetType, ModelType
from recipelang.values import Form

__all__ = ["distill"]

FORWARD_KL = Form("forward_kl")


def _check_pair(teacher: ModelType, student: ModelType, at: str) -> None:
    a, b = teacher.tokenizer, student.tokenizer
    if a is not None and b is not None and a.digest != b.digest:
        from recipelang.weights.vocabulary import first_difference

        difference = first_difference(a, b)
        if difference:
            raise Fault(
                "E0661",
                "the teacher's tokenizer is not the student's, so their logits do not line up",
                at=at,
                label="another vocabulary",
                notes=(difference,),
                help="distil into a student that shares the teacher's tokenizer",
            )
    sizes = [(m.config or {}).get("vocab_size") for m in (teacher, student)]
    if None not in sizes and sizes[0] != sizes[1]:
        raise Fault(
            "E0661",
            f"the teacher has {sizes[0]} logits a position, the student {sizes[1]}",
            at=at,
            help="distil into a student of the same vocabulary size",
        )


def _type(step: Typed) -> ModelType:
    student = step.one("into")
    for i, teacher in enumerate(step.types.get("teachers", ())):
        if isinstance(teacher, ModelType) and isinstance(student, ModelType):
            _check_pair(teacher, student, f"teachers[{i}]")
    check_training(step, "into")
    return student if isinstance(student, ModelType) else ModelType()


def _cost(step: Typed) -> Cost:
    student, data = step.one("into"), step.one("data")
    if not isinstance(student, ModelType):
        return Cost()
    teachers = tuple(t for t in step.types.get("teachers", ()) if isinstance(t, ModelType))
    return training_cost(step, student, data if isinstance(data, DatasetType) else None, teachers)


@operation(
    kind="train",
    result="Model",
    origin="into",
    determinism="repeatable",
    include=training_fields,
    result_type=_type,
    cost=_cost,
)
def distill(
    teachers: Annotated[list[Model], SUBJECT, "the model to learn from, or a list of them"],
    into: Annotated[Model, INTO, "the student to start from"],
    data: Annotated[Dataset, ON, "the text on which the teacher is heard"],
    over: Annotated[Dataset | None, OVER, "what to evaluate on while training"] = None,
    objective: Annotated[
        Form,
        forms(package="recipelang.objectives", sums=True),
        "the loss, or a weighted sum of losses",
    ] = FORWARD_KL,
    temperature: Annotated[
        float,
        Range(0, open_low=True),
        "softens teacher and student; the loss is scaled by its square",
    ] = 1.0,
) -> None:
    """Train a student on the teacher's distribution over every next token.

    With several teachers the target is the mean of their distributions. The result is a new model
    whose origin is the student (Hinton, Vinyals & Dean 2015, arXiv 1503.02531).

        distill teacher into small on notes { objective = 0.7 * forward_kl + 0.3 * cross_entropy }
    """
