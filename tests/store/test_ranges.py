"""Digests of byte ranges: one after the other, and side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from recipelang.native import library
from recipelang.store import ranges
from recipelang.store.ranges import Place, lane_digests, range_digest, range_digests

SIZES = (0, 1, 55, 56, 63, 64, 65, 119, 120, 32_767, 32_768, 32_769, 65_536, 100_000)
"""Around where the padding takes a block more, and around what is read at once."""


@pytest.fixture
def data(tmp_path: Path) -> Iterator[tuple[int, bytes]]:
    """An open file and its bytes."""
    text = np.random.default_rng(0).integers(0, 256, 400_000, dtype=np.uint8).tobytes()
    path = tmp_path / "data"
    path.write_bytes(text)
    with path.open("rb") as file:
        yield file.fileno(), text


def places(descriptor: int) -> list[Place]:
    """More ranges than lanes, of all those sizes and others."""
    draws = np.random.default_rng(1).integers(0, 90_000, 60).tolist()
    return [Place(descriptor, 13 * i, 13 * i + size) for i, size in enumerate([*SIZES, *draws])]


@pytest.mark.skipif(library() is None, reason="the compiled part was not built")
def test_lanes_give_sha256(data: tuple[int, bytes]) -> None:
    """For any number of ranges of any size."""
    descriptor, text = data
    every = places(descriptor)
    for some in (every, every[:1], every[:16], every[:17], []):
        expected = [hashlib.sha256(text[p.start : p.stop]).hexdigest() for p in some]
        assert lane_digests(some) == expected


@pytest.mark.skipif(library() is None, reason="the compiled part was not built")
def test_a_file_that_became_shorter_is_an_error(data: tuple[int, bytes]) -> None:
    """Not the digest of something else."""
    descriptor, text = data
    with pytest.raises(OSError, match="No data"):
        lane_digests([Place(descriptor, len(text) - 10, len(text) + 1)])


@pytest.mark.parametrize("pay", [True, False])
def test_both_ways_give_the_same(
    data: tuple[int, bytes], pay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order that was asked for; a range that is asked for twice is no other one."""
    if pay and library() is None:
        pytest.skip("the compiled part was not built")
    monkeypatch.setattr(ranges, "lanes_pay", lambda: pay)
    descriptor, _ = data
    every = [*places(descriptor), Place(descriptor, 0, 400_000), Place(descriptor, 0, 0)]
    every.append(every[3])
    assert range_digests(every) == [range_digest(*place) for place in every]
