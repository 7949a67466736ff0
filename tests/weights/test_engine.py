"""The engine: fused is step by step, and neither budget nor threads change a bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recipelang.diagnostics import RecipeError
from recipelang.ops.registry import lookup
from recipelang.weights import blocks, looks
from recipelang.weights.engine import RegionProgress, run_region
from recipelang.weights.region import Operand, Step, make_step
from recipelang.weights.writer import ModelWriter
from tests.weights.models import Memory, bits, compute, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (300, 40),
    "model.layers.0.mlp.w": (64, 33),
    "model.layers.0.norm": (33,),
    "model.layers.1.mlp.w": (64, 33),
    "model.norm.weight": (40,),
    "model.scalar": (),
}


def step(verb: str, operands: dict[str, tuple[Operand, ...]], **fields: Any) -> Step:
    """A step of this verb."""
    found = lookup(verb)
    assert found is not None
    return make_step(found, operands, fields)


def chain(store: Any = None) -> tuple[Step, list[Memory]]:
    """Four merges: ties, slerp, task arithmetic, linear. ``store`` turns each result into a
    checkpoint."""
    keep = store or (lambda made: made)
    base = random_model(0, SHAPES)
    a, b, c, d = (near(base, i) for i in range(1, 5))
    first = keep(step("ties-merge", {"inputs": (a, b), "base": (base,)}, density=0.4))
    second = keep(step("slerp-merge", {"inputs": (first, c)}, t=0.3))
    third = keep(
        step("task-arithmetic-merge", {"inputs": (second, d), "base": (base,)}, weight=(0.5, 0.7))
    )
    last = step("ties-merge", {"inputs": (third, first), "base": (base,)}, density=0.7, dtype="f16")
    return last, [base, a, b, c, d]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that every tensor has several, and samples are used."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 500)
    monkeypatch.setattr(looks, "KEEP_ALL", 1000)
    monkeypatch.setattr(looks, "SAMPLE_ELEMENTS", 16)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("budget", "threads"), [(1 << 30, 1), (1 << 30, 3), (1 << 15, 2), (0, 2)])
def test_fused_is_step_by_step(budget: int, threads: int, tmp_path: Path) -> None:
    """A chain of four merges in one region has the bits of four runs, for any budget and thread
    count."""
    number = iter(range(9))

    def stored(made: Step) -> Memory:
        arrays, _ = compute(made, tmp_path / str(next(number)))
        return Memory(arrays, made.config)

    expected, _ = compute(chain(stored)[0], tmp_path / "steps", threads=1)
    made, _ = chain()
    got, stats = compute(made, tmp_path / "fused", budget_bytes=budget, threads=threads)
    assert all(bits(got[name]) == bits(expected[name]) for name in SHAPES)
    assert {a.dtype for a in got.values()} == {np.dtype(np.float16)}
    if budget == 1 << 30:
        assert set(stats.passes) == {1.0}
    else:
        assert max(stats.passes) > 1


def test_inputs_are_read_once(tmp_path: Path) -> None:
    """Where a tensor's inputs fit the budget, each input of the chain is read exactly once."""
    made, inputs = chain()
    for model in inputs:
        model.counts.clear()
    _, stats = compute(made, tmp_path)
    for model in inputs:
        assert model.counts == {n: a.size for n, a in model.arrays.items()}
    assert stats.bytes_read == sum(a.nbytes for m in inputs for a in m.arrays.values())


def test_without_statistics_everything_streams(tmp_path: Path) -> None:
    """A linear merge reads once whatever the budget."""
    base = random_model(0, SHAPES)
    made = step("linear-merge", {"inputs": (base, near(base, 1))})
    _, stats = compute(made, tmp_path, budget_bytes=0)
    assert stats.passes == (1.0, 1.0)


def test_several_outputs_share_a_region(tmp_path: Path) -> None:
    """An intermediate that is a target itself is written beside the last result."""
    base = random_model(0, SHAPES)
    middle = step("linear-merge", {"inputs": (base, near(base, 1))})
    last = step("cast", {"model": (middle,)}, dtype="f32")
    writers = [ModelWriter(tmp_path / n, s.tensors) for n, s in (("m", middle), ("l", last))]
    run_region([(middle, writers[0]), (last, writers[1])])
    tables = [w.finish().tensors for w in writers]
    alone = ModelWriter(tmp_path / "a", middle.tensors)
    run_region([(middle, alone)])
    assert alone.finish().tensors == tables[0]
    assert {t.dtype for t in tables[1].values()} == {"F32"}


def test_a_killed_merge_goes_on(tmp_path: Path) -> None:
    """Tensors that the writer has are not computed again, and the result has the same bits."""
    made, inputs = chain()
    whole = ModelWriter(tmp_path / "whole", made.tensors)
    run_region([(made, whole)])
    expected = whole.finish()
    killed = ModelWriter(tmp_path / "killed", made.tensors, identity="k")
    stop = RuntimeError("killed")

    def report(progress: RegionProgress) -> None:
        if progress.tensors == 3:
            raise stop

    with pytest.raises(RuntimeError, match="killed"):
        run_region([(made, killed)], threads=1, report=report)
    killed.close()
    for model in inputs:
        model.counts.clear()
    again = ModelWriter(tmp_path / "killed", made.tensors, identity="k")
    assert sum(again.finished(name) for name in made.tensors) == 3
    run_region([(made, again)])
    assert again.finish().shards[0].digest == expected.shards[0].digest
    assert len(inputs[0].counts) == len(SHAPES) - 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_weights_stop_a_merge(bad: float, tmp_path: Path) -> None:
    """An infinity or NaN in an input is E0620 that names the tensor; `nonfinite = allow` lets it
    through."""
    a, b = random_model(1, SHAPES), random_model(2, SHAPES)
    a.arrays["model.layers.1.mlp.w"][3, 4] = bad
    with pytest.raises(RecipeError, match=r"E0620.*model\.layers\.1\.mlp\.w"):
        compute(step("linear-merge", {"inputs": (a, b)}), tmp_path / "x")
    got, _ = compute(
        step("ties-merge", {"inputs": (a, b), "base": (b,)}, nonfinite="allow"), tmp_path / "y"
    )
    assert np.count_nonzero(~np.isfinite(got["model.layers.0.mlp.w"].astype(np.float32))) == 0


def test_overflow_of_the_result_stops_a_cast(tmp_path: Path) -> None:
    """A number that does not fit f16 is E0620; one that is only rounded is not."""
    model = Memory({"w": np.array([1.0, 70000.0], np.float32)})
    with pytest.raises(RecipeError, match="E0620"):
        compute(step("cast", {"model": (model,)}, dtype="f16"), tmp_path / "x")
    fine, _ = compute(step("cast", {"model": (model,)}, dtype="bf16"), tmp_path / "y")
    assert fine["w"].astype(np.float32).tolist() == [1.0, 70144.0]


def test_integer_tensors_must_be_equal(tmp_path: Path) -> None:
    """What is not floating-point is copied where it is equal in all inputs, and is E0621
    otherwise."""

    def model(number: int) -> Memory:
        return Memory({"w": np.ones(3, np.float32), "ids": np.array([1, number], np.int64)})

    merged, _ = compute(step("linear-merge", {"inputs": (model(2), model(2))}), tmp_path / "x")
    assert merged["ids"].tolist() == [1, 2]
    with pytest.raises(RecipeError, match=r"E0621.*ids"):
        compute(step("linear-merge", {"inputs": (model(2), model(3))}), tmp_path / "y")


def test_mixed_dtypes_take_the_subject_s(tmp_path: Path) -> None:
    """Inputs of several dtypes are widened, and the result has the subject's dtype."""
    base = random_model(0, SHAPES, "F32")
    wide = Memory({n: x.astype(np.float64) for n, x in base.arrays.items()}, base.config)
    half = near(random_model(0, SHAPES, "BF16"), 1)
    got, _ = compute(step("linear-merge", {"inputs": (half, wide)}), tmp_path)
    assert {a.dtype for a in got.values()} == {half.arrays["model.norm.weight"].dtype}
