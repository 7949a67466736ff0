"""`compat = mergekit`: mergekit's own rules, against float32 transcriptions of their formulas, on
models that differ much, little and hardly at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ops_merge import reference_mergekit as reference
from tests.ops_merge.merging import merged
from tests.weights.models import Memory

SHAPES = {"w": (24, 16), "x": (3, 5, 4), "y": (7,)}
WEIGHTS = (0.3, 0.9, 0.5)
COLUMNS = {"flatten": False, "row_wise": True}

Rule = Callable[[Any, Any], Any]
"""``rule(base, models)`` of three models."""


def family(spread: float) -> tuple[Memory, list[Memory]]:
    """A base and models that differ from it by normal draws of this size."""
    rng = np.random.default_rng(5)
    base = {n: rng.standard_normal(s).astype(np.float32) * np.float32(0.02)
            for n, s in SHAPES.items()}  # fmt: skip
    models = [
        {n: a + rng.standard_normal(a.shape).astype(np.float32) * np.float32(spread)
         for n, a in base.items()}
        for _ in range(3)
    ]  # fmt: skip
    return Memory(base), [Memory(m) for m in models]


def two(function: Any, *args: Any, **fields: Any) -> Rule:
    """A rule for the first two models."""
    return lambda base, models: function(models[0], models[1], *args, **fields)


def nuslerp(with_base: bool, **axes: bool) -> Rule:
    """The rule of nuslerp."""
    return lambda base, models: reference.nuslerp(
        models[0], models[1], WEIGHTS[:2], base if with_base else None, **axes
    )


def multislerp(with_base: bool, **fields: bool) -> Rule:
    """The rule of multislerp."""
    return lambda base, models: reference.multislerp(
        models, WEIGHTS, base if with_base else None, **fields
    )


Case = tuple[str, int, bool, dict[str, Any], Rule]
CASES: list[Case] = [
    ("slerp", 2, False, {"t": 0.3}, two(reference.slerp, 0.3)),
    ("nearswap", 2, False, {"t": 1e-3}, two(reference.nearswap, 1e-3)),
    ("nearswap", 2, False, {"t": 3e-7}, two(reference.nearswap, 3e-7)),
    *(("nuslerp", 2, b, {"weight": WEIGHTS[:2], **axes}, nuslerp(b, **axes))
      for b in (False, True) for axes in ({}, {"flatten": False}, COLUMNS)),
    *(("multislerp", 3, b, {"weight": WEIGHTS, **more}, multislerp(b, **more))
      for b in (False, True) for more in ({}, {"normalize": False})),
    ("karcher", 3, False, {"iterations": 2},
     lambda base, models: reference.karcher(models, 2)),
    ("sce", 3, True, {}, reference.sce),
    ("sce", 3, True, {"select": 0.29}, partial(reference.sce, select=0.29)),
    ("model-stock", 3, True, {}, reference.model_stock),
    ("model-stock", 3, True, {"by_row": True}, partial(reference.model_stock, by_row=True)),
    ("ram", 3, True, {}, partial(reference.ramplus, r=0.0)),
    ("ramplus", 3, True, {"epsilon": 2e-3, "r": 0.5, "alpha": 0.9},
     partial(reference.ramplus, epsilon=2e-3, r=0.5, alpha=0.9)),
]  # fmt: skip


def errors(case: Case, spread: float, compat: str, folder: Path) -> float:
    """The largest difference to mergekit's rule."""
    verb, count, with_base, fields, rule = case
    base, models = family(spread)
    origin = base if with_base else None
    got = merged(folder, f"{verb}-merge", models[:count], origin, compat=compat, **fields)
    return max(
        float(np.abs(got[n] - rule(base.arrays[n], [m.arrays[n] for m in models])).max())
        for n in SHAPES
    )


def spreads(verb: str) -> tuple[float, ...]:
    """karcher's float32 cosines of models that hardly differ are all rounding."""
    return (0.02, 1e-3) if verb == "karcher" else (0.02, 1e-3, 1e-6)


@pytest.mark.parametrize(
    ("case", "spread"),
    [
        pytest.param(case, spread, id=f"{case[0]}-{case[2]}-{case[3]}-{spread}")
        for case in CASES
        for spread in spreads(case[0])
    ],
)
def test_the_rule_is_mergekits(case: Case, spread: float, tmp_path: Path) -> None:
    """Up to a few roundings of float32 at the weights' size."""
    assert errors(case, spread, "mergekit", tmp_path) < 3e-8


@pytest.mark.parametrize(
    ("verb", "spread"),
    [("slerp", 4e-4), ("nearswap", 1e-6), ("sce", 1e-6), ("model-stock", 1e-6)],
)
def test_ours_is_another(verb: str, spread: float, tmp_path: Path) -> None:
    """Where the rules differ, `compat` is what makes the difference."""
    case = next(c for c in reversed(CASES) if c[0] == verb)
    assert errors(case, spread, "none", tmp_path / "a") > 3 * errors(
        case, spread, "mergekit", tmp_path / "b"
    )


def test_fusion_with_mergekits_probabilities(tmp_path: Path) -> None:
    """Models that differ enough for float32 divergences."""
    a, b, _ = family(0.02)[1]
    got = merged(tmp_path, "fusion-merge", (a, b), compat="mergekit")
    for name in ("w", "x"):
        expected = reference.fusion(a.arrays[name], b.arrays[name])
        np.testing.assert_allclose(got[name], expected, atol=1e-8)


def test_a_weight_of_zero_leaves_the_other_model_its_weight(tmp_path: Path) -> None:
    """multislerp ignores the weight of a model that is alone, not beside one that weighs
    nothing."""
    base, (a, b, _) = family(0.02)
    fields = {"weight": (0.5, 0.0), "normalize": False, "compat": "mergekit"}
    got = merged(tmp_path, "multislerp-merge", (a, b), base, **fields)
    for name in SHAPES:
        start = base.arrays[name]
        expected = start + 0.5 * (a.arrays[name] - start)
        np.testing.assert_allclose(got[name], expected, atol=3e-8)


def test_where_directions_cancel(tmp_path: Path) -> None:
    """karcher stays at the first model's direction, model-stock leaves [0, 1]."""
    x = np.array([1.0, 2.0, -1.0], np.float32)
    models = [Memory({"w": x}), Memory({"w": -3 * x})]
    got = merged(tmp_path, "karcher-merge", models, compat="mergekit")["w"]
    np.testing.assert_allclose(got, 2 * x, rtol=1e-6)
    zero, left = np.zeros(2, np.float32), np.array([1.0, 0.1], np.float32)
    right = np.array([-0.9, 0.1], np.float32)
    models, base = [Memory({"w": left}), Memory({"w": right})], Memory({"w": zero})
    got = merged(tmp_path, "model-stock-merge", models, base, compat="mergekit")["w"]
    np.testing.assert_allclose(got, reference.model_stock(zero, [left, right]), rtol=1e-4)
    assert got[1] < -5
