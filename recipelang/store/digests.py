"""The digest of an input file, taken once: known again by device, inode, size and mtime.

A file that was written a moment ago is hashed each time: a clock tick is too coarse to tell two
writes within it apart (git calls such entries racy).

Example: ``cached_digest(store, path)`` gives the sha256 (hex) of the file's bytes.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from recipelang.store.objects import file_digest
from recipelang.store.store import Store

__all__ = ["cached_digest"]

SETTLED_NS = 2_000_000_000


def cached_digest(store: Store, path: Path) -> str:
    """The sha256 (hex) of a file's bytes. Raises OSError when it cannot be read."""
    before = path.stat()
    stamp = f"{before.st_dev} {before.st_ino} {before.st_size} {before.st_mtime_ns}"
    key = hashlib.sha256(stamp.encode()).hexdigest()
    match store.recall("sum", key):
        case {"stamp": str(known), "sha256": str(digest)} if known == stamp and len(digest) == 64:
            return digest
        case _:
            pass
    digest = file_digest(path)
    after = path.stat()
    settled = before.st_mtime_ns + SETTLED_NS < time.time_ns()
    if settled and (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size):
        store.remember("sum", key, {"stamp": stamp, "sha256": digest})
    return digest
