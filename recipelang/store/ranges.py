"""The sha256 of byte ranges of open files: one after the other, or sixteen at a time by the
compiled library where the processor has wide vectors and no instructions for SHA (four times as
fast there).

Example: ``range_digests([Place(file.fileno(), 0, 10)])`` gives the digest (hex) of ten bytes.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

from recipelang.native import library
from recipelang.processors import processors

__all__ = ["LANES", "Place", "lane_digests", "lanes_pay", "range_digest", "range_digests"]

BLOCK = 1 << 20
LANES = 16
"""How many ranges are hashed at a time."""


class Place(NamedTuple):
    """The bytes ``[start, stop)`` of an open file."""

    descriptor: int
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        """How many there are."""
        return self.stop - self.start


def range_digest(
    descriptor: int, start: int, stop: int, seen: Callable[[int], None] | None = None
) -> str:
    """The sha256 (hex) of the bytes ``[start, stop)`` of an open file, or of those it has; ``seen``
    hears how many were read, block by block."""
    hashed, view = hashlib.sha256(), memoryview(bytearray(min(BLOCK, stop - start)))
    while start < stop and (count := os.preadv(descriptor, [view[: stop - start]], start)):
        hashed.update(view[:count])
        start += count
        if seen is not None:
            seen(count)
    return hashed.hexdigest()


def range_digests(places: Sequence[Place]) -> list[str]:
    """The sha256 (hex) of each, on all processors. Raises OSError."""
    found: dict[Place, str] = {}
    workers = processors()
    lane = sum(place.bytes for place in places) // (LANES * workers)
    alone = {p for p in places if p.bytes > 3 * lane} if lanes_pay() else set(places)
    shared = sorted({*places} - alone, key=lambda place: -place.bytes)
    with ThreadPoolExecutor(workers) as pool:
        single = {place: pool.submit(range_digest, *place) for place in alone}
        groups = [group for i in range(workers) if (group := shared[i::workers])]
        for group, digests in zip(groups, pool.map(lane_digests, groups), strict=True):
            found |= zip(group, digests, strict=True)
        found |= {place: done.result() for place, done in single.items()}
    return [found[place] for place in places]


@cache
def lanes_pay() -> bool:
    """Whether :func:`lane_digests` is there, and faster than one range after the other."""
    native = library()
    return native is not None and bool(native.digest_lanes_pay())


def lane_digests(places: Sequence[Place]) -> list[str]:
    """The sha256 (hex) of each, by this thread, side by side. The longest should come first. Raises
    OSError where a file cannot be read, or is shorter."""
    import ctypes

    native = library()
    assert native is not None
    count = len(places)
    digests = ctypes.create_string_buffer(32 * count)
    space = ctypes.create_string_buffer(native.digest_space_bytes() + 64)
    failed = native.digest_ranges(
        count,
        struct.pack(f"={count}i", *(place.descriptor for place in places)),
        struct.pack(f"={count}q", *(place.start for place in places)),
        struct.pack(f"={count}q", *(place.bytes for place in places)),
        digests,
        -(-ctypes.addressof(space) // 64) * 64,
    )
    if failed:
        raise OSError(failed, os.strerror(failed))
    return [digests.raw[32 * i : 32 * i + 32].hex() for i in range(count)]
