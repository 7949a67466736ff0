"""The sha256 of byte ranges of open files: one after the other, or sixteen at a time by the
compiled library where the processor has wide vectors and no instructions for SHA (four times as
fast there).

Example: ``range_digests([Place(file.fileno(), 0, 10)])`` gives the digest (hex) of ten bytes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import threading
from array import array
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from recipelang.native import library
from recipelang.processors import processors

__all__ = [
    "BUSY", "LANES", "Place", "Watch", "hash_lanes", "lanes_pay", "range_digest", "range_digests",
]  # fmt: skip

BLOCK = 1 << 20
LANES = 16
"""How many ranges are hashed at a time."""
BUSY = LANES * 3 // 4
"""So many lanes should have work."""
STATE = struct.Struct("=8Iq")
"""What was hashed of a range so far: eight words, and how many bytes were taken."""
NOTHING = bytes(STATE.size)
DONE = -1


class Place(NamedTuple):
    """The bytes ``[start, stop)`` of an open file."""

    descriptor: int
    start: int
    stop: int

    @property
    def bytes(self) -> int:
        """How many there are."""
        return self.stop - self.start


class Watch:
    """What another thread sees of hashing, and how it ends it: from :meth:`stop` on, whatever is
    given this raises OSError (EINTR)."""

    def __init__(self) -> None:
        self._lanes = array("q", (0, 0))  # as digests.c has it: bytes taken, whether to stop
        self._alone = 0
        self._lock = threading.Lock()

    @property
    def read(self) -> int:
        """How many bytes were read so far."""
        return self._lanes[0] + self._alone

    @property
    def address(self) -> int:
        """Of the two numbers that the compiled library sees."""
        return self._lanes.buffer_info()[0]

    @property
    def stopped(self) -> bool:
        """Whether nobody waits any more."""
        return bool(self._lanes[1])

    def stop(self) -> None:
        """Nobody waits any more."""
        self._lanes[1] = 1

    def saw(self, count: int) -> None:
        """So many bytes more were read."""
        if self.stopped:
            raise OSError(errno.EINTR, "nobody waits for this digest any more")
        with self._lock:
            self._alone += count


def range_digest(descriptor: int, start: int, stop: int, watch: Watch | None = None) -> str:
    """The sha256 (hex) of the bytes ``[start, stop)`` of an open file, or of those it has."""
    hashed, view = hashlib.sha256(), memoryview(bytearray(min(BLOCK, stop - start)))
    while start < stop and (count := os.preadv(descriptor, [view[: stop - start]], start)):
        hashed.update(view[:count])
        start += count
        if watch is not None:
            watch.saw(count)
    return hashed.hexdigest()


def range_digests(
    places: Collection[Place], *, begun: Mapping[Place, bytes] = MappingProxyType({}),
    watch: Watch | None = None,
) -> list[str]:  # fmt: skip
    """The sha256 (hex) of each, on all processors; ``begun`` is what :func:`hash_lanes` left of
    some. Raises OSError."""
    workers = processors()
    lane = sum(place.bytes for place in places) // (LANES * workers)
    alone = {p for p in places if p.bytes > 3 * lane} if lanes_pay() else set(places)
    alone -= {place for place, state in begun.items() if state}
    shared = sorted({*places} - alone, key=lambda place: -place.bytes)
    groups = [{p: begun.get(p, b"") for p in shared[i::workers]} for i in range(workers)]
    found: dict[Place, str] = {}
    with ThreadPoolExecutor(workers) as pool:
        single = {place: pool.submit(range_digest, *place, watch) for place in alone}
        together = [pool.submit(hash_lanes, group, watch=watch) for group in groups]
        for one in together:
            found |= one.result()[0]
        found |= {place: done.result() for place, done in single.items()}
    return [found[place] for place in places]


@cache
def lanes_pay() -> bool:
    """Whether :func:`hash_lanes` is there, and faster than one range after the other."""
    native = library()
    return native is not None and bool(native.digest_lanes_pay())


def hash_lanes(
    ranges: Mapping[Place, bytes], *, busy: int = 0, watch: Watch | None = None
) -> tuple[dict[Place, str], dict[Place, bytes]]:
    """Hash ranges side by side, by this thread. ``ranges`` gives what was hashed of each before,
    b"" for nothing. Gives the sha256 (hex) of those that were done when fewer than ``busy`` were
    left, and what was hashed of the others. Raises OSError where a file cannot be read, or is
    shorter."""
    if not ranges:
        return {}, {}
    import ctypes

    native = library()
    assert native is not None
    places, count = sorted(ranges, key=lambda place: -place.bytes), len(ranges)
    states = ctypes.create_string_buffer(
        b"".join(ranges[place] or NOTHING for place in places), STATE.size * count
    )
    space = ctypes.create_string_buffer(native.digest_space_bytes() + 64)
    failed = native.digest_ranges(
        count,
        struct.pack(f"={count}i", *(place.descriptor for place in places)),
        struct.pack(f"={count}q", *(place.start for place in places)),
        struct.pack(f"={count}q", *(place.bytes for place in places)),
        states,
        busy,
        watch and watch.address,
        -(-ctypes.addressof(space) // 64) * 64,
    )
    if failed:
        raise OSError(failed, os.strerror(failed))
    done: dict[Place, str] = {}
    left: dict[Place, bytes] = {}
    for place, (*words, taken) in zip(places, STATE.iter_unpack(states.raw), strict=True):
        if taken == DONE:
            done[place] = struct.pack(">8I", *words).hex()
        else:
            left[place] = STATE.pack(*words, taken)
    return done, left
