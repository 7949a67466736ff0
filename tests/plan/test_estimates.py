"""Plans: what their steps take, and how it is written."""

from __future__ import annotations

import pytest

from recipelang.ops.spec import Cost
from recipelang.plan.cost import calibrated, cpu_speed
from recipelang.plan.units import bytes_text, seconds_text
from tests.plan.toy import Store, example, planned


def test_estimates_add_up() -> None:
    """Times and disk are sums, memory is the largest; inside a region only the output is
    written."""
    plan = planned(example(), Store())
    by = {s.place: s for s in plan.steps}
    assert by["teacher"].estimate.seconds == 90
    assert by["floored"].estimate.disk_bytes == 0
    assert not by["floored"].stored
    assert by["student"].estimate.disk_bytes == 2 << 20
    assert plan.memory_bytes == 2 << 30
    assert plan.disk_bytes == 4 << 20
    assert 90 < plan.seconds < 91


def test_speed_is_that_of_earlier_steps() -> None:
    """Seconds of cached steps set the speed; without any the given one stays, short steps say
    nothing."""
    start = cpu_speed()
    assert start.flops > 0
    assert calibrated(start, [(Cost(flops=6e12), 2.0), (Cost(flops=2e12), 2.0)]).flops == 2e12
    assert calibrated(start, [(Cost(flops=6e12), 0.5), (Cost(), 9.0)]) == start


def test_known_seconds_change_the_estimate() -> None:
    """A stored training of half the speed doubles what the next is expected to take."""
    store = Store()
    store.finish(planned(example(), store), seconds=180.0)
    plan = planned(example(), store, "spare")
    assert [round(s.estimate.seconds, 3) for s in plan.to_run] == [3.0]
    both = planned(example(), store, "teacher", "spare")
    assert [round(s.estimate.seconds, 3) for s in both.to_run] == [6.0]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (227 << 20, "227 MiB"), (3 << 40, "3 TiB")]
)
def test_bytes_in_words(count: int, text: str) -> None:
    """Sizes have binary units and two or three digits."""
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "< 1 s"), (8, "8 s"), (90, "1.5 min"), (7200, "2 h"), (10 * 86400, "10 d")],
)
def test_seconds_in_words(seconds: float, text: str) -> None:
    """Durations have the unit that keeps them short."""
    assert seconds_text(seconds) == text
