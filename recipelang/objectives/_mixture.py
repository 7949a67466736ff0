"""Softened distributions, and the one that several teachers agree on: the mean of theirs, as
log-probabilities."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["log_mixture", "softened"]


def softened(xp: Any, logits: Any, temperature: float) -> Any:
    """``log_softmax(logits / temperature)``, (n, vocabulary)."""
    return xp.log_softmax(logits if temperature == 1.0 else logits / temperature, axis=-1)


def log_mixture(xp: Any, teachers: tuple[Any, ...], temperature: float) -> Any:
    """log of the mean over teachers of ``softmax(logits / temperature)``, (n, vocabulary), without
    gradient.

    With one teacher it is its log-softmax. Several are averaged as probabilities, by log-sum-exp.
    """
    logs = [xp.stop_gradient(softened(xp, t, temperature)) for t in teachers]
    if len(logs) == 1:
        return logs[0]
    top = logs[0]
    for other in logs[1:]:
        top = xp.maximum(top, other)
    total = xp.exp(logs[0] - top)
    for other in logs[1:]:
        total = total + xp.exp(other - top)
    return top + xp.log(total) - math.log(len(logs))
