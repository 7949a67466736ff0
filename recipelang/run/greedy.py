"""The greedy search for a soup (Wortsman et al. 2022, arXiv 2203.05482, recipe 1), whatever is
averaged and measured.

Example:
    >>> points = [3.0, 9.0, 5.0]
    >>> def distance(chosen):
    ...     return abs(sum(points[i] for i in chosen) / len(chosen) - 4.0)
    >>> found = greedy_search([distance([i]) for i in range(3)], "min", distance)
    >>> found.accepted, found.value
    ((0, 2), 0.0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Search", "Trial", "greedy_search"]


@dataclass(frozen=True, slots=True)
class Trial:
    """The mean of what had been accepted and one more ``candidate`` (its place in the list): what
    it measured, and whether that was not worse."""

    candidate: int
    value: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class Search:
    """A finished search: the candidates' own ``values`` in their order, which way is better
    (``min`` or ``max``), the best candidate, and the trials of the others in the order in which
    they were made."""

    direction: str
    values: tuple[float, ...]
    best: int
    trials: tuple[Trial, ...]

    @property
    def accepted(self) -> tuple[int, ...]:
        """The candidates that the result is the mean of, in ascending order."""
        return tuple(sorted([self.best, *(t.candidate for t in self.trials if t.accepted)]))

    @property
    def value(self) -> float:
        """What the result measures."""
        found = [t.value for t in self.trials if t.accepted]
        return found[-1] if found else self.values[self.best]


def greedy_search(
    values: Sequence[float], direction: str, measure: Callable[[tuple[int, ...]], float]
) -> Search:
    """Sort the candidates by their values, the earlier of equals first, not-a-number last; accept
    each in turn where the mean with it is not worse than the mean without.

    ``measure`` gives the value of the mean of some candidates, whose places are in ascending order.
    A mean that measures not-a-number is never accepted. Raises ValueError without candidates.
    """
    if not values:
        raise ValueError("nothing to choose from")
    sign = 1 if direction == "min" else -1
    order = sorted(range(len(values)), key=lambda i: (_is_nan(values[i]), sign * values[i], i))
    accepted, reached = order[:1], values[order[0]]
    trials: list[Trial] = []
    for candidate in order[1:]:
        value = measure(tuple(sorted([*accepted, candidate])))
        taken = not _is_nan(value) and (_is_nan(reached) or sign * value <= sign * reached)
        trials.append(Trial(candidate, value, taken))
        if taken:
            accepted, reached = [*accepted, candidate], value
    return Search(direction, tuple(values), order[0], tuple(trials))


def _is_nan(value: float) -> bool:
    return value != value
