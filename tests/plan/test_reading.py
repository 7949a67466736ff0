"""What a plan says of reading: each level of statistics reads again what cannot be held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipelang.checking import check_text
from recipelang.ops.registry import lookup, verbs
from recipelang.ops.spec import Cost, Operation, Typed
from recipelang.plan.cost import Speed
from recipelang.plan.limits import Machine
from recipelang.plan.make import make_plan
from recipelang.types import TensorInfo
from recipelang.weights import compatibility
from recipelang.weights.kernel import Kernel
from recipelang.weights.metadata import checkpoint_type
from recipelang.weights.region import Combine, make_step, source_of
from tests.merging.projects import models, write_hollow
from tests.plan.toy import Store
from tests.weights.models import compute, near, random_model

SHAPES = {"model.layers.0.w": (40, 30), "model.norm.weight": (30,)}
PAIRS = {"slerp-merge", "nuslerp-merge", "nearswap-merge", "fusion-merge"}
REQUIRED: dict[str, dict[str, Any]] = {"slerp-merge": {"t": 0.3}, "nearswap-merge": {"t": 0.001}}
VARIANTS: list[dict[str, Any]] = [
    {"rescale": "none"}, {"rescale": "inverse"}, {"rescale": "l1"}, {"by_row": True},
    {"flatten": False}, {"flatten": False, "row_wise": True}, {"select": 0.3},
    {"trim": "model"}, {"density": 1.0}, {"density": 1.0, "trim": "model"},
    {"normalize": True},
]  # fmt: skip


def cases() -> list[tuple[str, dict[str, Any]]]:
    """Every merge with elementwise kernels, and what of its fields changes its statistics."""
    found: list[tuple[str, dict[str, Any]]] = []
    for verb in sorted(verbs()):
        operation = lookup(verb)
        if not verb.endswith("-merge") or operation is None or operation.determinism != "exact":
            continue
        known = {field.name for field in operation.fields}
        found += [(verb, fields) for fields in ({}, *VARIANTS) if known >= fields.keys()]
    return found


def merge(verb: str, fields: dict[str, Any]) -> tuple[Operation, Any, Cost]:
    """An operation, a step of it on models in memory, and what it says that it costs."""
    operation = lookup(verb)
    assert operation is not None
    assert operation.cost is not None
    base = random_model(0, SHAPES)
    tuned = [near(base, i) for i in range(1, 3 if verb in PAIRS else 4)]
    roles = {"inputs": tuned}
    spec = operation.operand("base")
    if spec is not None and spec.by_origin:
        roles["base"] = [base]
    step = make_step(operation, roles, {**REQUIRED.get(verb, {}), **fields})
    types = {role: tuple(checkpoint_type(m) for m in given) for role, given in roles.items()}
    return operation, step, operation.cost(Typed(types, dict(step.fields)))


@pytest.mark.parametrize(("verb", "fields"), cases(), ids=str)
def test_a_merge_says_how_often_it_looks_at_its_operands(verb: str, fields: dict[str, Any]) -> None:
    """The levels in its cost are those of its kernel."""
    _, step, cost = merge(verb, fields)
    source = source_of(step, "model.layers.0.w", {})
    assert isinstance(source, Combine)
    assert isinstance(source.kernel, Kernel)
    assert cost.levels == len(source.kernel.levels)
    assert cost.looks == 2 * len(source.kernel.model)


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize(
    ("verb", "fields"),
    [("linear-merge", {}), ("slerp-merge", {}), ("multislerp-merge", {}), ("sce-merge", {}),
     ("dare-merge", {"rescale": "l1"}), ("ties-merge", {"trim": "model"})],
    ids=str,
)  # fmt: skip
def test_what_is_read_is_what_was_said(
    verb: str, fields: dict[str, Any], fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte: once where a tensor's operands fit into the budget, else for every level. (Not
    with k-th magnitudes: their sample is all of a tensor this small.)"""
    budget = 1 << 20 if fits else 1
    monkeypatch.setattr(compatibility, "BUDGET", budget)
    _, step, cost = merge(verb, fields)
    _, stats = compute(step, tmp_path, budget_bytes=budget)
    assert stats.bytes_read == cost.bytes_read


def test_a_chain_of_merges_reads_for_all_of_its_levels(tmp_path: Path) -> None:
    """A TIES merge and an arc above it look three times at tensors of 2 GiB; small ones are held.
    What only the arc takes is read twice."""
    large, small = TensorInfo("BF16", (1 << 15, 1 << 15)), TensorInfo("BF16", (64, 64))
    names = "base", "a", "b", "c"
    for name in names:
        write_hollow(tmp_path / name, {"model.w": large, "model.x": small}, {"model_type": "toy"})
    text = models("base", a="base", b="base", c="base") + (
        "m = ties-merge a with b\nn = m -> slerp-merge with c { t = 0.5 }\n"
    )
    program = check_text(text, folder=str(tmp_path)).program
    assert program is not None
    plan = make_plan(
        program, ("n",), Store(), speed=Speed(bytes=1), machine=lambda name: Machine()
    )  # fmt: skip
    read = 3 * 3 * large.bytes + 2 * large.bytes + 4 * small.bytes
    assert plan.seconds == read + large.bytes + small.bytes
