"""Kernels over whole matrices: what they load, when they run beside each other, and what they
share."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

from recipelang.ops.spec import SUBJECT, WITH, Model, Typed, operation
from recipelang.types import ModelType
from recipelang.weights import blocks
from recipelang.weights.compatibility import merged_type
from recipelang.weights.kernel import Load, MatrixKernel, Prepared, Ranges
from recipelang.weights.needs import needs_statistics, working_bytes
from recipelang.weights.region import Step, make_step, source_of
from tests.weights.models import Memory, bits, compute, near, random_model

SHAPES = {f"layers.{i}.w": (40, 6) for i in range(6)}
NEED = 1000


def toy_type(typed: Typed) -> ModelType:
    """The subject's."""
    return merged_type(typed)


class Busy:
    """How many kernels are at work, and the most that were at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.now -= 1


def centred(busy: Busy, ranges_seen: list[Ranges]) -> Any:
    """An operation that takes the column means, over all rows, off the sum of its inputs."""

    def prepare(xp: Any, load: Load, ranges: Ranges) -> Prepared:
        ranges_seen.append(ranges)

        def rows(first: int, last: int) -> Any:
            return load("inputs", 0, first, last) + load("inputs", 1, first, last)

        with busy:
            mean = sum(rows(first, last).sum(axis=0) for first, last in ranges) / 40
        return Prepared((lambda first, last: rows(first, last) - mean,), {"mean": float(mean[0])})

    @operation(kind="weights", result="Model", result_type=toy_type)
    def centre(inputs: Annotated[list[Model], SUBJECT, WITH, "what"]) -> MatrixKernel:
        """Centre."""
        return MatrixKernel(prepare, NEED)

    return centre


def made_of(busy: Busy, ranges: list[Ranges]) -> tuple[Step, Memory, Memory]:
    """The step over two models."""
    base = random_model(0, SHAPES, "F32")
    other = near(base, 1)
    return make_step(centred(busy, ranges), {"inputs": (base, other)}, {}), base, other


@pytest.mark.parametrize("budget", [1 << 20, 0])
def test_rows_come_in_whole_blocks(
    budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges cover the matrix, cut at blocks; rows of the result are asked for a block at a time;
    the facts are kept by tensor."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", 20)
    monkeypatch.setattr(blocks, "RANGE_BLOCKS", 4)
    ranges: list[Ranges] = []
    made, base, other = made_of(Busy(), ranges)
    got, stats = compute(made, tmp_path, budget_bytes=budget)
    assert ranges == [((0, 12), (12, 24), (24, 36), (36, 40))] * 6
    for name in SHAPES:
        total = base.arrays[name].astype(np.float64) + other.arrays[name]
        np.testing.assert_allclose(got[name], total - total.mean(axis=0), atol=1e-8)
        assert stats.facts[name]["mean"] == pytest.approx(total.mean(axis=0)[0], rel=1e-5)
    assert stats.passes == ((1.0, 1.0) if budget else (2.0, 2.0))


@pytest.mark.parametrize(
    ("budget", "most"), [(10 * NEED, (2, 3)), (NEED, (1, 1)), (0, (2, 3))]
)  # fmt: skip
def test_working_memory_is_taken_from_the_budget(
    budget: int, most: tuple[int, int], tmp_path: Path
) -> None:
    """Kernels run beside each other as far as the budget holds them; one that needs all of it runs
    alone. A budget of nothing counts nothing."""
    busy = Busy()
    made, _, _ = made_of(busy, [])
    source = source_of(made, "layers.0.w", {})
    assert needs_statistics(source)
    assert working_bytes(source) == NEED
    compute(made, tmp_path, budget_bytes=budget, threads=3)
    assert most[0] <= busy.most <= most[1]


def test_memory_is_given_back_at_once(tmp_path: Path) -> None:
    """What a kernel holds is free as soon as its tensor is written, not when a collector comes
    by: a kernel's rows load through the evaluation that holds them."""
    size = 1 << 20

    def prepare(xp: Any, load: Load, ranges: Ranges) -> Prepared:
        kept = xp.zeros(size, xp.uint8)
        return Prepared((lambda first, last: load("inputs", 0, first, last) + kept[0],))

    @operation(kind="weights", result="Model", result_type=toy_type)
    def heavy(inputs: Annotated[list[Model], SUBJECT, WITH, "what"]) -> MatrixKernel:
        """Hold a lot."""
        return MatrixKernel(prepare, size)

    made = make_step(heavy, {"inputs": (random_model(0, SHAPES, "F32"),)}, {})
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        compute(made, tmp_path, threads=1)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()
        gc.enable()


def test_bits_do_not_depend_on_the_budget(tmp_path: Path) -> None:
    """Held or read again, the result is the same."""
    made, _, _ = made_of(Busy(), [])
    held, _ = compute(made, tmp_path / "a")
    read, _ = compute(made, tmp_path / "b", budget_bytes=0, threads=3)
    assert all(bits(held[name]) == bits(read[name]) for name in SHAPES)
