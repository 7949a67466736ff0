"""The search for a greedy soup over numbers: what is averaged are points, what is measured is how
far they are from a target."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipelang.run.greedy import Trial, greedy_search
from recipelang.run.soup_reports import SoupReport, read_soup, soup_line, soup_rows

POINTS = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=7)

slowly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def distance(points: list[float], chosen: tuple[int, ...]) -> float:
    """Of the mean of the chosen points to 1."""
    return abs(sum(points[i] for i in chosen) / len(chosen) - 1.0)


@slowly
@given(points=POINTS)
def test_it_is_never_worse_than_the_best_and_tries_each_of_the_others_once(
    points: list[float],
) -> None:
    """What the result measures is what the mean of the accepted does, and no candidate is
    better."""
    alone = [distance(points, (i,)) for i in range(len(points))]
    found = greedy_search(alone, "min", lambda chosen: distance(points, chosen))
    assert found.value == distance(points, found.accepted)
    assert found.value <= min(alone)
    assert sorted([found.best, *(t.candidate for t in found.trials)]) == list(range(len(points)))
    tried = [alone[i] for i in (found.best, *(t.candidate for t in found.trials))]
    assert tried == sorted(alone)


@slowly
@given(points=POINTS)
def test_the_other_direction_is_the_same_search(points: list[float]) -> None:
    """A metric whose larger values are better accepts what its negative does."""
    alone = [distance(points, (i,)) for i in range(len(points))]
    low = greedy_search(alone, "min", lambda chosen: distance(points, chosen))
    high = greedy_search([-a for a in alone], "max", lambda chosen: -distance(points, chosen))
    assert high.accepted == low.accepted
    assert high.value == -low.value


def test_one_candidate_is_the_result() -> None:
    """Nothing is measured again."""
    found = greedy_search([3.0], "min", lambda _: pytest.fail("measured"))
    assert (found.accepted, found.value, found.trials) == ((0,), 3.0, ())


def test_of_equals_the_earlier_is_first_and_an_equal_mean_is_accepted() -> None:
    """Ties are kept in the recipe's order, and a mean that is no worse is taken."""
    asked: list[tuple[int, ...]] = []

    def measure(chosen: tuple[int, ...]) -> float:
        asked.append(chosen)
        return 1.0

    found = greedy_search([1.0, 2.0, 1.0], "min", measure)
    assert found.best == 0
    assert asked == [(0, 2), (0, 1, 2)]
    assert found.accepted == (0, 1, 2)


def test_what_is_no_number_comes_last_and_is_never_accepted() -> None:
    """A candidate that measures not-a-number is tried last; a mean that does is refused."""
    found = greedy_search([nan, 2.0, inf], "min", lambda chosen: nan if 0 in chosen else 3.0)
    assert [(t.candidate, t.accepted) for t in found.trials] == [(2, False), (0, False)]
    assert found.accepted == (1,)
    rescued = greedy_search([nan, nan], "max", lambda _: 0.5)
    assert rescued.accepted == (0, 1)


def test_nothing_to_choose_from() -> None:
    """An empty list has no mean."""
    with pytest.raises(ValueError, match="nothing"):
        greedy_search([], "min", lambda _: 0.0)


def test_a_report_comes_back_from_json() -> None:
    """What is stored is read again, numbers that JSON lacks included; other documents are none."""
    search = greedy_search([2.0, nan, 1.0], "min", lambda chosen: 0.75 if len(chosen) == 2 else inf)
    report = SoupReport(("a", "b", "c"), ("1", "2", "3"), search)
    again = read_soup(report.to_json())
    assert again is not None
    assert again.search.trials == (Trial(0, 0.75, True), Trial(1, inf, False))
    assert again.search.accepted == (0, 2)
    assert again.renamed({"1": "first"}).names == ("first", "b", "c")
    assert soup_line(again) == "the mean of a and c, of 3 candidates, at 0.75"
    assert [row[0] for row in soup_rows(again)] == ["candidate", "c", "a", "b"]
    assert [row[3] for row in soup_rows(again)] == ["", "accepted", "accepted", "worse"]
    assert read_soup({"schema": "recipelang/merge-report/1"}) is None
    assert read_soup(None) is None
