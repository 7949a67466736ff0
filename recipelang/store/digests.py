"""The digests of input files, taken once: known again by device, inode, size and mtime.

A safetensors file is called by its header and its tensors' digests, as a shard of the store is
(:mod:`recipelang.store.objects`), so that its tensors are hashed side by side; any other file by
the sha256 of its bytes. What is not known is hashed on all processors.

A file that was written a moment ago is hashed each time: a clock tick is too coarse to tell two
writes within it apart (git calls such entries racy).

Example: ``cached_digest(store, path).name`` gives 64 hex digits.
"""

from __future__ import annotations

import errno
import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeAlias

from recipelang.diagnostics import RecipeError
from recipelang.processors import processors
from recipelang.store.objects import Hashed, ShardFile, file_digest, hash_shards
from recipelang.store.store import Store

__all__ = ["cached_digest", "cached_digests"]

SETTLED_NS = 2_000_000_000
QUIET_SECONDS = 1.0
EVERY_SECONDS = 10.0


AT_ONCE = 2 << 30
"""Bytes of safetensors files that a processor hashes at a time: enough that their largest tensors
do not decide how long it takes, and over in seconds when nobody waits any more."""
DIGEST = re.compile(r"[0-9a-f]{64}")

Stamp: TypeAlias = tuple[int, int, int, int]
Seen: TypeAlias = Callable[[int], None]
"""Hears how many more bytes were read."""


def cached_digests(
    store: Store, paths: Collection[Path], tell: Callable[[str], None]
) -> dict[Path, Hashed]:
    """What each file's bytes say, without those that cannot be read. ``tell`` hears how far it is
    when it takes longer than a second, and from then on every ten."""
    read, ended = 0, False
    lock = threading.Lock()

    def seen(count: int) -> None:
        nonlocal read
        if ended:
            raise OSError(errno.EINTR, "nobody waits for this digest any more")
        with lock:
            read += count

    stamps = {path: _stamp(path) for path in paths if path.is_file()}
    found = {path: known for path in stamps if (known := _known(store, stamps[path]))}
    missing = sorted(stamps.keys() - found.keys(), key=lambda path: -stamps[path][2])
    total = sum(stamps[path][2] for path in missing)
    shards = [shard for path in missing if (shard := _shard(path)) is not None]
    alone = [path for path in missing if path not in {shard.path for shard in shards}]
    with ThreadPoolExecutor(processors() + 1) as pool:
        together = pool.submit(_hash_in_turn, shards, seen)
        asked = {path: pool.submit(file_digest, path, seen) for path in alone}
        try:
            patience = QUIET_SECONDS
            waited: list[Future[Any]] = [together, *asked.values()]
            while wait(waited, patience).not_done:
                patience = EVERY_SECONDS
                tell(f"hashing inputs: {read / 1e9:.1f} of {total / 1e9:.1f} GB")
        finally:
            ended = True
    new = {path: Hashed(done.result()) for path, done in asked.items() if not done.exception()}
    new |= together.result()
    for path, hashed in new.items():
        _keep(store, path, stamps[path], hashed)
    return found | new


def cached_digest(store: Store, path: Path) -> Hashed:
    """What a file's bytes say. Raises OSError when it cannot be read."""
    path.stat()
    found = cached_digests(store, [path], lambda text: None)
    if path not in found:
        raise OSError(errno.EIO, "it cannot be read", str(path))
    return found[path]


def _shard(path: Path) -> ShardFile | None:
    """A safetensors file; None for another, and for one whose header is wrong."""
    if path.suffix != ".safetensors":
        return None
    try:
        return ShardFile.open(path)
    except (RecipeError, OSError):
        return None


def _hash_in_turn(shards: Sequence[ShardFile], seen: Seen) -> dict[Path, Hashed]:
    """Some files at a time, so that it can be told how far it is."""
    found: dict[Path, Hashed] = {}
    waiting: list[ShardFile] = []
    enough = AT_ONCE * processors()
    for shard in shards:
        waiting.append(shard)
        if sum(one.bytes for one in waiting) > enough or shard is shards[-1]:
            found |= _hash_together(waiting)
            seen(sum(one.bytes for one in waiting))
            waiting = []
    return found


def _hash_together(shards: Sequence[ShardFile]) -> dict[Path, Hashed]:
    """Files side by side; if one cannot be read, the others are hashed without it."""
    try:
        return dict(zip((one.path for one in shards), hash_shards(shards), strict=True))
    except OSError:
        if len(shards) == 1:
            return {}
        return {k: v for one in shards for k, v in _hash_together([one]).items()}


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _key(stamp: Stamp) -> tuple[str, str]:
    """A stamp as it is kept, and what it is kept under."""
    text = f"tree {' '.join(map(str, stamp))}"
    return text, hashlib.sha256(text.encode()).hexdigest()


def _known(store: Store, stamp: Stamp) -> Hashed | None:
    """What is kept of a file that has this stamp; a damaged entry is none."""
    text, key = _key(stamp)
    kept: Any = store.recall("sum", key)
    try:
        tensors = {(int(a), int(b)): str(digest) for a, b, digest in kept["tensors"]}
        found = Hashed(str(kept["name"]), tensors)
        whole = all(DIGEST.fullmatch(digest) for digest in (found.name, *tensors.values()))
        return found if whole and kept["stamp"] == text else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _keep(store: Store, path: Path, before: Stamp, hashed: Hashed) -> None:
    """Keep what was hashed, unless the file changed meanwhile, or so lately that it might again
    without its stamp changing."""
    settled = before[3] + SETTLED_NS < time.time_ns()
    if not settled or _stamp(path) != before:
        return
    text, key = _key(before)
    tensors = [(*place, digest) for place, digest in hashed.tensors.items()]
    store.remember("sum", key, {"stamp": text, "name": hashed.name, "tensors": tensors})
