"""Fields that vary by depth and by name."""

from __future__ import annotations

import pytest

from recipelang.values import Form
from recipelang.weights.varying import check_patterns, resolve

RAMP = Form("gradient", (("0", 0.0), ("1", 0.5), ("2", 2.0)))
STACKS = {"model.layers": 5}
PER = Form("per", (("self_attn", 0.3), ("mlp", RAMP), ("*norm.weight", 0.9)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", 0.0),
        ("model.layers.0.mlp.x", 0.0),
        ("model.layers.2.mlp.x", 0.5),
        ("model.layers.3.mlp.x", 1.25),
        ("model.layers.4.mlp.x", 2.0),
        ("model.norm.weight", 2.0),
        ("lm_head.weight", 2.0),
    ],
)
def test_gradient_is_piecewise_linear_over_depth(name: str, expected: float) -> None:
    """Layer i of L stands at i / (L - 1); what is before the layers takes the first value, after
    the last."""
    assert resolve(RAMP, name, stacks=STACKS, default=None) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.1.self_attn.q_proj.weight", 0.3),
        ("model.layers.2.mlp.up_proj.weight", 0.5),
        ("model.norm.weight", 0.9),
        ("model.mlpx.weight", 7.0),
    ],
)
def test_first_matching_pattern_wins(name: str, expected: float) -> None:
    """Whole components without `*`, a glob over the name with it, the default where nothing
    matches."""
    assert resolve(PER, name, stacks=STACKS, default=7.0) == expected


def test_patterns_that_match_nothing_are_found() -> None:
    """A pattern without any tensor is reported, inside per-input tuples too."""
    names = ["model.layers.0.self_attn.q_proj.weight", "model.norm.weight"]
    assert check_patterns((1.0, PER), names) == "mlp"
    assert check_patterns(PER, [*names, "model.layers.0.mlp.x"]) is None
    assert resolve((RAMP, 2.0), "lm_head.weight", stacks=STACKS, default=None) == (2.0, 2.0)
