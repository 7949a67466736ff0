"""reverse_kl: KL(student ‖ teacher), which keeps the student to what the teacher finds likely.

Example:
    >>> reverse_kl.needs_teacher
    True
"""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.objectives import Positions, objective
from recipelang.objectives._mixture import log_mixture, softened
from recipelang.ops.spec import Range

__all__ = ["reverse_kl"]


@objective(needs_teacher=True)
def reverse_kl(
    xp: Any,
    positions: Positions,
    student: Any,
    teachers: tuple[Any, ...],
    statistics: Any,
    *,
    temperature: Annotated[
        float, Range(0, open_low=True), "softens both; the step's by default"
    ] = 1.0,
) -> Any:
    """The divergence of the teacher from the student, weighted by the student (arXiv 2306.08543).

    With p = softmax(teacher / T) and q = softmax(student / T): T² Σ q (log q − log p), summed over
    positions. The gradient in the student's logits is T q (log(q / p) − KL).
    """
    log_p = log_mixture(xp, teachers, temperature)
    log_q = softened(xp, student, temperature)
    q = xp.exp(log_q)
    terms = q * xp.where(q > 0, log_q - log_p, 0.0)
    return temperature**2 * xp.sum(positions.mask * xp.sum(terms, axis=-1))
