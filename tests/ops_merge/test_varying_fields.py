"""Every field that may vary by tensor, of every merge: what `per` and `gradient` give for a tensor
is what the plain number gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Operation
from recipelang.values import Form
from recipelang.weights.region import Operand, make_step
from tests.conformance.merge_cases import merge_verbs
from tests.weights.models import bits, compute, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (7, 6),
    "model.layers.0.a": (9, 8),
    "model.layers.2.a": (9, 8),
    "model.norm.weight": (6,),
}
LAST = ("model.layers.2.a", "model.norm.weight")
"""What stands at the end of the layers, and behind them."""
VALUES: dict[str, tuple[Any, Any]] = {
    "weight": ((0.3, 1.0, 0.6), (1.0, 0.3, 0.6)), "density": (0.5, 0.3), "gamma": (0.1, 0.3),
    "epsilon": (0.2, 0.1), "scale": (1.0, 0.5), "t": (0.3, 0.6), "select": (0.5, 0.2),
    "r": (0.1, 0.4), "alpha": (0.2, 0.5), "rank_share": (0.3, 0.8), "flatten": (True, False),
    "row_wise": (False, True), "by_row": (False, True), "factor": (0.3, 0.6),
    "ram-merge epsilon": (1e-3, 2e-3), "ramplus-merge epsilon": (1e-3, 2e-3),
    "nearswap-merge t": (5e-4, 1e-3),
}  # fmt: skip
"""Two values of a field, of one verb or of all; of a weight those of three inputs."""
BESIDE: dict[str, dict[str, Any]] = {
    "epsilon": {"density": 0.5}, "row_wise": {"flatten": False},
    "alpha": {"r": 2.0, "epsilon": 2e-3}, "r": {"alpha": 2.0, "epsilon": 2e-3},
}  # fmt: skip
"""What a field needs to have an effect."""
MERGES = [verb for verb in merge_verbs() if verb.endswith("-merge")]


def operation(verb: str) -> Operation:
    """The operation of a verb."""
    found = lookup(verb)
    assert found is not None
    return found


def fields() -> list[tuple[str, str]]:
    """Merge and field."""
    return [(v, f.name) for v in MERGES for f in operation(v).fields if f.per_tensor]


def operands(verb: str) -> dict[str, tuple[Operand, ...]]:
    """Three inputs, or two where the merge takes no more, and a base where it needs one."""
    base = random_model(3, SHAPES, "F32")
    tuned = tuple(near(base, seed) for seed in (4, 5, 6))
    base_spec = operation(verb).operand("base")
    roles: dict[str, tuple[Operand, ...]] = {"inputs": tuned}
    if base_spec is not None and base_spec.by_origin:
        roles["base"] = (base,)
    try:
        make_step(operation(verb), roles, {"t": 0.3} if operation(verb).field("t") else {})
    except RecipeError:
        roles["inputs"] = tuned[:2]
    return roles


def test_there_are_such_fields() -> None:
    """Of nearly every merge, weights and densities among them."""
    assert len({verb for verb, _ in fields()}) >= len(MERGES) - 1
    assert {name for _, name in fields()} >= {"weight", "density", "scale", "t", "gamma", "select"}


@pytest.mark.parametrize(("verb", "field"), fields())
def test_a_tensor_gets_its_number(verb: str, field: str, tmp_path: Path) -> None:
    """By pattern and by depth, in the block and on each input."""
    roles = operands(verb)
    one, other = VALUES.get(f"{verb} {field}") or VALUES[field]
    required = {"t": 0.3} if operation(verb).field("t") else {}

    def result(name: str, form: Callable[[Any, Any], Any]) -> dict[str, Any]:
        value = form(one, other)
        if isinstance(one, tuple):
            count = len(roles["inputs"])
            value = tuple(form(a, b) for a, b in zip(one[:count], other[:count], strict=True))
        given = {**required, **BESIDE.get(field, {}), field: value}
        given = {n: v for n, v in given.items() if operation(verb).field(n)}
        return compute(make_step(operation(verb), roles, given), tmp_path / name)[0]

    first, second = result("first", lambda a, _: a), result("second", lambda _, b: b)
    assert any(bits(first[name]) != bits(second[name]) for name in LAST)
    varied = [result("per", lambda a, b: Form("per", (*((n, b) for n in LAST), ("*", a))))]
    if not isinstance(one, bool):
        varied.append(result("gradient", lambda a, b: Form("gradient", (("0", a), ("1", b)))))
    for got in varied:
        for name in SHAPES:
            assert bits(got[name]) == bits((second if name in LAST else first)[name])
