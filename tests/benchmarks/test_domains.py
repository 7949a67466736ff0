"""The table of merges by domain: what resampled windows say of means and of differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.domains import BASE, DOMAINS, SIBLINGS, add_means, markdown
from benchmarks.windows import Sums, interval, mean, resampled_means

COUNT = 40
Sizes = dict[str, dict[str, Sums]]


def sums(level: float, spread: float = 0.0, seed: int = 0) -> dict[str, Sums]:
    """Windows of three datasets, hard and easy ones in the same places for all models: ``level``
    times what they take, and noise of a model's own."""
    rng, own = np.random.default_rng(5), np.random.default_rng(seed)
    found: dict[str, Sums] = {}
    for data in DOMAINS:
        hard = rng.uniform(0.5, 4.0, COUNT) * 1000
        noise = 1 + spread * own.standard_normal(COUNT)
        found[data] = Sums(tuple((level * hard * noise).tolist()), (1000.0,) * COUNT)
    return found


def table(models: Sizes) -> dict[str, Any]:
    """The rows that `recipe run` gives of these models."""
    return {
        name: {
            "domains": {
                domain: {"value": found[data].bits_per_byte, "low": 0.0, "high": 9.0, "count": 99}
                for data, domain in DOMAINS.items()
            }
        }
        for name, found in models.items()
    }


@pytest.fixture
def models() -> Sizes:
    """A base, three fine-tunes of which the second is the best, and three merges."""
    return {
        BASE: sums(1.2), SIBLINGS[0]: sums(1.1), SIBLINGS[1]: sums(1.0), SIBLINGS[2]: sums(1.15),
        "clear": sums(0.98), "near": sums(0.999, 0.05, 3), "worse": sums(1.3),
    }  # fmt: skip


def test_the_mean_weighs_datasets_alike_and_windows_by_bytes() -> None:
    """Bits over bytes within a dataset, then the plain mean."""
    found = {"d": Sums((10.0, 2.0), (4.0, 2.0)), "e": Sums((9.0,), (3.0,))}
    assert mean(found) == (12 / 6 + 3) / 2


def test_resampled_means_have_the_spread_of_a_mean() -> None:
    """The standard deviation of a mean of independent windows, around their mean."""
    found = sums(1.0)
    drawn = resampled_means(found)
    errors = [np.std(each.bits) / 1000 / COUNT**0.5 for each in found.values()]
    wanted = float(np.sqrt(np.square(errors).sum())) / len(found)
    np.testing.assert_allclose(drawn.std(), wanted, rtol=0.03)
    np.testing.assert_allclose(drawn.mean(), mean(found), rtol=0.01)
    low, high = interval(drawn)
    np.testing.assert_allclose(high - low, 2 * 1.96 * wanted, rtol=0.05)


def test_two_models_are_resampled_alike(models: Sizes) -> None:
    """So the interval of a difference is far narrower than those of the means."""
    clear, best = resampled_means(models["clear"]), resampled_means(models[SIBLINGS[1]])
    np.testing.assert_allclose(clear, 0.98 * best, rtol=1e-12)
    low, high = interval(clear - best)
    assert low < high < 0
    assert high - low < 0.05 * np.subtract(*interval(best)[::-1])


def test_rows_get_means_and_differences_to_the_best_fine_tune(models: Sizes) -> None:
    """A difference is told from chance where its interval lies on one side of 0."""
    rows = table(models)
    add_means(rows, models)
    assert {row["difference"]["to"] for row in rows.values()} == {SIBLINGS[1]}
    assert rows[SIBLINGS[1]]["difference"]["value"] == rows[SIBLINGS[1]]["difference"]["high"] == 0
    assert rows["clear"]["difference"]["high"] < 0
    near = rows["near"]["difference"]
    assert near["low"] < 0 < near["high"]
    assert rows["worse"]["difference"]["low"] > 0
    for row in rows.values():
        assert row["mean"]["low"] < row["mean"]["value"] < row["mean"]["high"]


def test_windows_that_are_not_those_of_the_table(models: Sizes) -> None:
    """They are refused, by model and dataset."""
    rows = table(models)
    rows["near"]["domains"]["satire"]["value"] += 0.01
    with pytest.raises(ValueError, match="the windows of near on unseen_satire"):
        add_means(rows, models)


def test_the_table_says_what_is_decided(models: Sizes) -> None:
    """Merges by their means; how many are lower, and how many of those surely."""
    rows = table(models)
    add_means(rows, models)
    soup = {"candidates": [{"name": name} for name in SIBLINGS], "accepted": [0, 1, 2]}
    text = markdown({"rows": rows, "soup": soup, "command": "python -m benchmarks.domains"})
    lines = text.splitlines()
    assert lines[0].endswith("| mean | mean, less that of spanish |")
    names = [line.split(" | ")[0].strip("| ") for line in lines[2 : 2 + len(models)]]
    assert names == [BASE, *SIBLINGS, "clear", "near", "worse"]
    assert [line.count("|") for line in lines[: 2 + len(models)]] == [len(DOMAINS) + 4] * 9
    clear = rows["clear"]["difference"]
    assert f"{clear['value']:+.3f} [{clear['low']:+.3f}, {clear['high']:+.3f}] |" in text
    ahead = sum(rows[m]["difference"]["value"] < 0 for m in ("clear", "near", "worse"))
    assert f"{ahead} of the 3 merges have a lower mean than every fine-tune, 1 of them" in text
    assert "40 windows of 256 tokens a domain" in text
