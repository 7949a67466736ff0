"""Digests of byte ranges: one after the other, and side by side."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipelang.native import library
from recipelang.store import ranges
from recipelang.store.ranges import (
    LANES,
    Place,
    Watch,
    hash_lanes,
    range_digest,
    range_digests,
)

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
        expected = {p: hashlib.sha256(text[p.start : p.stop]).hexdigest() for p in some}
        assert hash_lanes(dict.fromkeys(some, b"")) == (expected, {})


@pytest.mark.skipif(library() is None, reason="the compiled part was not built")
@given(st.lists(st.integers(0, 120_000), max_size=40), st.integers(0, LANES))
def test_what_is_left_is_hashed_on(sizes: list[int], busy: int) -> None:
    """A range that is the longest takes part again and again, beside others each time, and has its
    own digest in the end."""
    text = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
    with tempfile.TemporaryFile() as file:
        file.write(text)
        file.flush()
        places = [Place(file.fileno(), 7 * i, 7 * i + size) for i, size in enumerate(sizes)]
        done: dict[Place, str] = {}
        left: dict[Place, bytes] = {}
        for i in range(0, len(places), 6):
            some, left = hash_lanes(left | dict.fromkeys(places[i : i + 6], b""), busy=busy)
            assert len(left) < max(1, busy)
            done |= some
        found = range_digests([*left], begun=left)
        done |= zip(left, found, strict=True)
    for place in places:
        assert done[place] == hashlib.sha256(text[place.start : place.stop]).hexdigest()


@pytest.mark.parametrize("pay", [True, False])
def test_who_watches_sees_how_far_it_is_and_can_end_it(
    data: tuple[int, bytes], pay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes are counted; once it is stopped nothing more is read."""
    if pay and library() is None:
        pytest.skip("the compiled part was not built")
    monkeypatch.setattr(ranges, "lanes_pay", lambda: pay)
    every, watch = places(data[0]), Watch()
    range_digests(every, watch=watch)
    assert watch.read == sum(place.bytes for place in every)
    watch.stop()
    with pytest.raises(OSError, match=r"Interrupted|nobody waits"):
        range_digests(every, watch=watch)
    assert watch.read == sum(place.bytes for place in every)


@pytest.mark.skipif(library() is None, reason="the compiled part was not built")
def test_a_file_that_became_shorter_is_an_error(data: tuple[int, bytes]) -> None:
    """Not the digest of something else."""
    descriptor, text = data
    with pytest.raises(OSError, match="No data"):
        hash_lanes({Place(descriptor, len(text) - 10, len(text) + 1): b""})


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
