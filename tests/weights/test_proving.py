"""A device that has not been proven: its numbers are held to the host's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from recipelang.ops.registry import lookup
from recipelang.types import TensorInfo
from recipelang.weights.arrays import HostArrays
from recipelang.weights.engine import run_region
from recipelang.weights.kernel import Block
from recipelang.weights.proving import WrongNumbers, held_to
from recipelang.weights.region import Step, make_step
from recipelang.weights.writer import ModelWriter
from tests.weights.models import bits, compute, near, random_model

SHAPES = {
    "model.embed_tokens.weight": (300, 500),
    "model.layers.0.a": (40, 30),
    "model.layers.1.a": (40, 30),
    "model.norm.weight": (6,),
}


@dataclass(frozen=True)
class Unproven(HostArrays):
    """A device over numpy that does not compute what it should: ``spoil`` changes what it makes of
    a tensor."""

    whole: bool = True
    proven: bool = False
    spoil: Callable[[Any], Any] = lambda wide: wide

    def narrow(self, wide: Any, dtype: str) -> Any:
        """Rounds what was spoilt."""
        return super().narrow(self.spoil(wide), dtype)


def merge(dtype: str = "BF16", verb: str = "linear-merge") -> Step:
    """A merge of three models."""
    operation = lookup(verb)
    assert operation is not None
    base = random_model(1, SHAPES, dtype)
    roles: dict[str, Any] = {"inputs": (near(base, 2), near(base, 3))}
    if operation.operand("base"):
        roles["base"] = (base,)
    return make_step(operation, roles, {})


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16", "F16"])
def test_a_device_that_does_as_the_host_is_used(dtype: str, tmp_path: Path) -> None:
    """With its last bits: those of a device may be others."""
    unit = np.float64(2.0**-40 if dtype == "F64" else 2.0**-22)
    device = Unproven(spoil=lambda wide: (wide * (1 + unit)).astype(wide.dtype))
    got, _ = compute(merge(dtype), tmp_path / "device", arrays=device)
    assert sorted(got) == sorted(SHAPES)


def garbage(wide: Any) -> Any:
    """A seventh of a tensor is another part of it."""
    found = wide.copy()
    found[: wide.size // 7] = wide[-(wide.size // 7) :] if wide.size > 6 else 1.0
    return found


def stale(wide: Any) -> Any:
    """Half of what it should be, as where a weight is still the one before."""
    return wide * wide.dtype.type(0.5)


def lost(wide: Any) -> Any:
    """The last piece has not come."""
    found = wide.copy()
    found[-max(1, wide.size // 50) :] = 0
    return found


@pytest.mark.parametrize("spoil", [garbage, stale, lost])
@pytest.mark.parametrize("verb", ["linear-merge", "ties-merge"])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_device_that_gives_wrong_numbers_stops_the_merge(
    spoil: Callable[[Any], Any], verb: str, dtype: str, tmp_path: Path
) -> None:
    """The share of a tensor that is wrong is told."""
    with pytest.raises(WrongNumbers, match=r"\d% of `model\..*` are not what the host computes"):
        compute(merge(dtype, verb), tmp_path, arrays=Unproven(spoil=spoil))


def test_a_wrong_tensor_is_never_whole(tmp_path: Path) -> None:
    """A run that goes on in the same folder must not take it for finished."""
    step = merge()
    writer = ModelWriter(tmp_path, step.tensors)
    device = Unproven(spoil=stale)
    with pytest.raises(WrongNumbers):
        run_region([(step, writer)], arrays=device, threads=1)
    writer.close()
    again = ModelWriter(tmp_path, step.tensors)
    assert not any(again.finished(name) for name in step.tensors)


def test_one_tensor_of_each_kind_is_computed_twice(tmp_path: Path) -> None:
    """Layers are alike, so the second layer's is taken as it comes."""
    step = merge()
    compute(step, tmp_path / "device", arrays=Unproven(), threads=1)
    counts = step.operands["inputs"][0].counts  # type: ignore[union-attr]
    rows = {name: counts[name] / step.tensors[name].elements for name in SHAPES}
    assert sorted(rows.values()) == [1, 2, 2, 2]
    assert {rows["model.layers.0.a"], rows["model.layers.1.a"]} == {1, 2}


def test_a_proven_device_is_not_watched(tmp_path: Path) -> None:
    """What it gives is what is written."""
    device = Unproven(proven=True, spoil=stale)
    got, _ = compute(merge("F32"), tmp_path / "device", arrays=device)
    host, _ = compute(merge("F32"), tmp_path / "host")
    for name, values in host.items():
        assert bits(got[name]) == bits(values * np.float32(0.5))


def blocks(values: Any) -> Iterator[tuple[Block, Any]]:
    """An array as two blocks."""
    info, half = TensorInfo("F32", values.shape), values.size // 2
    for first, last in ((0, half), (half, values.size)):
        yield Block(first, last, info.shape), values[first:last]


def passes(made: Any, expected: Any) -> bool:
    """Whether one is held to the other."""
    try:
        list(held_to("a", blocks(made), blocks(expected)))
    except WrongNumbers:
        return False
    return True


def test_what_is_infinite_on_both_sides_is_equal() -> None:
    """`nonfinite = allow` merges them; on one side alone they are wrong."""
    host = np.linspace(-1, 1, 2000, dtype=np.float32).astype(ml_dtypes.bfloat16)
    both = host.copy()
    both[:300], both[300:600] = np.inf, np.nan
    assert passes(both, both)
    assert not passes(both, host)
    assert not passes(host, both)
    assert not passes(np.where(np.isinf(both), -both, both), both)


def test_a_thousandth_may_be_chosen_otherwise() -> None:
    """Entries at a threshold, of which a tensor of a few numbers may have one."""
    host = np.linspace(1, 2, 4000, dtype=np.float32)
    for count, right in ((4, True), (5, False)):
        other = host.copy()
        other[100 : 100 + count] = 0
        assert passes(other, host) == right
    assert passes(np.array([1, 0], np.float32), np.array([1, 2], np.float32))
