"""The digest of an input file, taken once: known again by device, inode, size and mtime. Files that
are not known are hashed side by side, on all processors.

A file that was written a moment ago is hashed each time: a clock tick is too coarse to tell two
writes within it apart (git calls such entries racy).

Example: ``cached_digest(store, path)`` gives the sha256 (hex) of the file's bytes.
"""

from __future__ import annotations

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from recipelang.processors import processors
from recipelang.store.objects import file_digest
from recipelang.store.store import Store

__all__ = ["cached_digest", "cached_digests"]

SETTLED_NS = 2_000_000_000
QUIET_SECONDS = 1.0
EVERY_SECONDS = 10.0


def cached_digests(
    store: Store, paths: Collection[Path], tell: Callable[[str], None]
) -> dict[Path, str]:
    """The sha256 (hex) of each file's bytes, without those that cannot be read. ``tell`` hears how
    far it is when it takes longer than a second, and from then on every ten."""
    read, ended = 0, False
    lock = threading.Lock()

    def seen(count: int) -> None:
        nonlocal read
        if ended:
            raise OSError(errno.EINTR, "nobody waits for this digest any more")
        with lock:
            read += count

    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    with ThreadPoolExecutor(processors()) as pool:
        largest_first = sorted(sizes, key=lambda path: -sizes[path])
        asked = {path: pool.submit(cached_digest, store, path, seen) for path in largest_first}
        try:
            patience = QUIET_SECONDS
            while wait(asked.values(), patience).not_done:
                patience = EVERY_SECONDS
                tell(f"hashing inputs: {read / 1e9:.1f} of {sum(sizes.values()) / 1e9:.1f} GB")
        finally:
            ended = True
    return {path: done.result() for path, done in asked.items() if done.exception() is None}


def cached_digest(store: Store, path: Path, seen: Callable[[int], None] | None = None) -> str:
    """The sha256 (hex) of a file's bytes; ``seen`` hears how many are read, block by block.

    Raises OSError when it cannot be read.
    """
    before = path.stat()
    stamp = f"{before.st_dev} {before.st_ino} {before.st_size} {before.st_mtime_ns}"
    key = hashlib.sha256(stamp.encode()).hexdigest()
    match store.recall("sum", key):
        case {"stamp": str(known), "sha256": str(digest)} if known == stamp and len(digest) == 64:
            return digest
        case _:
            pass
    digest = file_digest(path, seen)
    after = path.stat()
    settled = before.st_mtime_ns + SETTLED_NS < time.time_ns()
    if settled and (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size):
        store.remember("sum", key, {"stamp": stamp, "sha256": digest})
    return digest
