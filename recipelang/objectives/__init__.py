"""Training objectives: one file each, pure functions on arrays.

The file ``objectives/forward_kl.py`` defines ``forward_kl``. The protocol:

``terms(xp, positions, student, teachers, statistics, **parameters) -> numerator``
    The plain sum over the given positions of the objective, a scalar of the namespace. The loop
    divides once by the count of the whole optimiser step, so a batch split never changes a
    gradient.
``count(batch) -> float``
    On the host, from the masks: what the numerator is divided by, summed over the step's batches
    [the number of supervised positions].
``statistics(xp, positions, student, teachers, **parameters) -> dict[str, array]`` (optional)
    Sums over positions that ``terms`` needs reduced over the whole step, as KTO does; the loop
    takes them in a pass without gradients before the first ``terms``, and hands their totals over.

Array arguments: ``positions.targets`` (n,) int, ``positions.mask`` (n,) float (0 on padding),
``positions.rows`` (n,) int: the row in the batch; ``student`` (n, vocabulary) logits in float32 or
wider; ``teachers`` a tuple of the same. Positions are the supervised ones of a micro-batch or any
chunk of them (unit ``token``), or the whole micro-batch's (unit ``sequence``).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from recipelang.values import Attr, Form

if TYPE_CHECKING:
    from recipelang.data.batch import Batch

__all__ = ["Objective", "Positions", "Term", "objective", "resolve"]


class Positions(NamedTuple):
    """The positions an objective sees; arrays of the backend, all of shape (n,)."""

    targets: Any
    mask: Any
    rows: Any


def supervised_positions(batch: Batch) -> float:
    """The number of supervised positions of a batch."""
    return float(batch.supervised.sum())


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective's declaration; ``terms`` is the decorated function, whose keyword-only
    parameters are its fields.
    """

    name: str
    terms: Callable[..., Any]
    needs_teacher: bool
    unit: Literal["token", "sequence"]
    count: Callable[[Batch], float]
    statistics: Callable[..., Mapping[str, Any]] | None
    doc: str


def objective(
    *, needs_teacher: bool = False, unit: Literal["token", "sequence"] = "token",
    count: Callable[[Batch], float] = supervised_positions,
    statistics: Callable[..., Mapping[str, Any]] | None = None,
) -> Callable[[Callable[..., Any]], Objective]:  # fmt: skip
    """Declare the objective of a file; the function's name is the objective's."""

    def declare(function: Callable[..., Any]) -> Objective:
        doc = inspect.cleandoc(function.__doc__ or "")
        return Objective(function.__name__, function, needs_teacher, unit, count, statistics, doc)

    return declare


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of an objective: ``weight * numerator(parameters) / count``."""

    weight: float
    objective: Objective
    parameters: Mapping[str, Attr]


def resolve(form: Form, temperature: float | None = None) -> tuple[Term, ...]:
    """The weighted terms of an objective's form.

    ``sum`` holds its terms as arguments ``"0"``, ``"1"``, ..., each a form ``term(weight = w, of =
    f)``. ``temperature`` is handed to the objectives that have that parameter and do not set it.
    """
    if form.name == "sum":
        parts: list[Term] = []
        for _, part in form.args:
            assert isinstance(part, Form)
            inner, weight = part.get("of"), part.get("weight", 1.0)
            assert isinstance(inner, Form)
            assert isinstance(weight, int | float)
            parts += [
                Term(t.weight * weight, t.objective, t.parameters)
                for t in resolve(inner, temperature)
            ]
        return tuple(parts)
    module = importlib.import_module(f"recipelang.objectives.{form.name}")
    found: Objective = getattr(module, form.name)
    parameters: dict[str, Attr] = dict(form.args)
    accepted = inspect.signature(found.terms).parameters
    if temperature is not None and "temperature" in accepted:
        parameters.setdefault("temperature", temperature)
    return (Term(1.0, found, parameters),)
