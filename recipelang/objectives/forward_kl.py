"""forward_kl: KL(teacher ‖ student), which makes the student cover all that the teacher would say.

Example:
    >>> forward_kl.needs_teacher
    True
"""

from __future__ import annotations

from typing import Annotated, Any

from recipelang.objectives import Positions, objective
from recipelang.objectives._mixture import log_mixture, softened
from recipelang.ops.spec import Range

__all__ = ["forward_kl"]


@objective(needs_teacher=True)
def forward_kl(
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
    """The divergence of the student from the teacher, weighted by the teacher (arXiv 1503.02531).

    With p = softmax(teacher / T) and q = softmax(student / T): T² Σ p (log p − log q), summed over
    positions. The gradient in the student's logits is T (q − p); the factor T² keeps its size when
    T changes.
    """
    log_p = log_mixture(xp, teachers, temperature)
    log_q = softened(xp, student, temperature)
    p = xp.exp(log_p)
    terms = p * xp.where(p > 0, log_p - log_q, 0.0)
    return temperature**2 * xp.sum(positions.mask * xp.sum(terms, axis=-1))
