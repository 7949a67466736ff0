"""cross_entropy: minus the log-probability of the token that is there.

Example:
    >>> cross_entropy.needs_teacher
    False
"""

from __future__ import annotations

from typing import Any

from recipelang.objectives import Positions, objective

__all__ = ["cross_entropy"]


@objective()
def cross_entropy(
    xp: Any, positions: Positions, student: Any, teachers: tuple[Any, ...], statistics: Any
) -> Any:
    """The negative log-likelihood of the tokens of the dataset.

    With q = softmax(student): the sum over positions of −log q[target], divided by their number in
    the optimiser step. The gradient in the logits is q − onehot(target).
    """
    log_q = xp.log_softmax(student, axis=-1)
    of_target = xp.take_along_axis(log_q, positions.targets[:, None], axis=-1)[:, 0]
    return -xp.sum(positions.mask * of_target)
