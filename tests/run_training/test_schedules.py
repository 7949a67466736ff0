"""Learning rates: exact tables."""

from __future__ import annotations

from math import cos, pi

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipelang.run.schedules import learning_rates, settings
from recipelang.values import Form, Quantity


def form(name: str, **args: float | Quantity) -> Form:
    """A schedule with these arguments."""
    return Form(name, tuple(args.items()))


def steps(n: int) -> Quantity:
    """So many steps."""
    return Quantity(n, "steps")


TABLES = [
    (form("constant"), 4, [1, 1, 1, 1]),
    (form("constant", warmup=steps(2)), 4, [0.5, 1, 1, 1]),
    (form("linear", warmup=steps(0)), 4, [1, 0.75, 0.5, 0.25]),
    (form("linear", warmup=steps(3)), 6, [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]),
    (form("linear", warmup=steps(0), final=0.5), 2, [1, 0.75]),
    (form("cosine", warmup=steps(0)), 4, [0.5 * (1 + cos(pi * t / 4)) for t in range(4)]),
    (form("wsd", warmup=steps(1), decay=steps(4)), 6, [1, 1, 1, 0.75, 0.5, 0.25]),
    (form("wsd", warmup=steps(1), decay=Quantity(0.5, "fraction"), final=0.2), 4, [1, 1, 1, 0.6]),
    (form("linear", warmup=steps(9)), 3, [1 / 3, 2 / 3, 1]),
]


@pytest.mark.parametrize(("schedule", "count", "table"), TABLES)
def test_tables(schedule: Form, count: int, table: list[float]) -> None:
    """Each shape is its formula, step by step."""
    assert learning_rates(schedule, 1.0, count) == pytest.approx(table, abs=1e-12)


@given(
    st.sampled_from(["constant", "linear", "cosine", "wsd"]),
    st.integers(1, 200),
    st.floats(0, 1),
    st.floats(1e-6, 1),
)
def test_bounds(name: str, count: int, warmup: float, peak: float) -> None:
    """A rate a step, never above the peak, never negative, and never zero at the first step."""
    rates = learning_rates(form(name, warmup=Quantity(warmup, "fraction")), peak, count)
    assert len(rates) == count
    assert all(0 <= rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[0] > 0


def test_a_share_is_rounded_up() -> None:
    """3 % of 200 steps are six of warm-up, and of 24 steps one, which is none."""
    rates = learning_rates(form("linear"), 1.0, 200)
    assert rates[:7] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])
    assert learning_rates(form("linear"), 1.0, 24)[0] == 1.0


def test_defaults_are_filled_in() -> None:
    """Arguments that a recipe leaves out have the declared defaults."""
    assert settings(Form("adamw", (("beta2", 0.95),))) == {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    assert settings(Form("lora"))["targets"] == ("all-linear",)
