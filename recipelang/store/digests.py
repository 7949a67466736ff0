"""The digests of input files, taken once: known again by device, inode, size and mtime.

A safetensors file is called by its header and its tensors' digests, as a shard of the store is
(:mod:`recipelang.store.objects`), so that its tensors are hashed side by side; any other file by
the sha256 of its bytes. What is not known is hashed on all processors.

A file that was written a moment ago is hashed each time: a clock tick is too coarse to tell two
writes within it apart (git calls such entries racy).

Example: ``cached_digest(store, path).name`` gives 64 hex digits.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from recipelang.diagnostics import RecipeError
from recipelang.processors import processors
from recipelang.store.objects import Hashed, Range, ShardFile, file_digest, hash_ranges
from recipelang.store.ranges import Watch
from recipelang.store.store import Store

__all__ = ["cached_digest", "cached_digests"]

SETTLED_NS = 2_000_000_000
QUIET_SECONDS = 1.0
EVERY_SECONDS = 10.0
DIGEST = re.compile(r"[0-9a-f]{64}")

Stamp: TypeAlias = tuple[int, int, int, int]
Wanted: TypeAlias = tuple[Path, Range]
"""A tensor's bytes in a file."""


def cached_digests(
    store: Store, paths: Collection[Path], tell: Callable[[str], None]
) -> dict[Path, Hashed]:
    """What each file's bytes say, without those that cannot be read. ``tell`` hears how far it is
    when it takes longer than a second, and from then on every ten."""
    watch = Watch()
    found: dict[Path, Hashed] = {}
    missing: list[_Missing] = []
    for path in paths:
        with contextlib.suppress(OSError):
            match _look_up(store, path) if path.is_file() else None:
                case Hashed() as known:
                    found[path] = known
                case _Missing() as file:
                    missing.append(file)
                case None:
                    pass
    if not missing:
        return found
    missing.sort(key=lambda file: -file.size)
    total = sum(file.size for file in missing)
    with ThreadPoolExecutor(processors() + 1) as pool:
        together = pool.submit(_hash_shards, [f.shard for f in missing if f.shard], watch)
        alone = [file.path for file in missing if file.shard is None]
        asked = {path: pool.submit(file_digest, path, watch) for path in alone}
        waited: list[Future[Any]] = [together, *asked.values()]
        try:
            patience = QUIET_SECONDS
            while wait(waited, patience).not_done:
                patience = EVERY_SECONDS
                tell(f"hashing inputs: {watch.read / 1e9:.1f} of {total / 1e9:.1f} GB")
        finally:
            watch.stop()
    new = {path: Hashed(done.result()) for path, done in asked.items() if not done.exception()}
    new |= together.result()
    for file in missing:
        if file.path in new:
            _keep(store, file, new[file.path])
    return found | new


def cached_digest(store: Store, path: Path) -> Hashed:
    """What a file's bytes say. Raises OSError when it cannot be read."""
    path.stat()
    found = cached_digests(store, [path], lambda text: None)
    if path not in found:
        raise OSError(errno.EIO, "it cannot be read", str(path))
    return found[path]


@dataclass(frozen=True, slots=True)
class _Missing:
    """A file that is not known, as it was when it was asked for; ``shard`` is None for what is not
    safetensors, or whose header is wrong."""

    path: Path
    stamp: Stamp
    shard: ShardFile | None

    @property
    def size(self) -> int:
        """In bytes."""
        return self.stamp[2]


def _look_up(store: Store, path: Path) -> Hashed | _Missing:
    """What is kept of a file, or that nothing is. Raises OSError where it cannot be read.

    It is kept by how the file is called too: a link to it may have another ending.
    """
    stamp, shard = _stamp(path), None
    if path.suffix == ".safetensors":
        known = _known(store, "tree", stamp)
        if known is not None:
            return known
        with contextlib.suppress(RecipeError):
            shard = ShardFile.open(path)
    found = None if shard else _known(store, "file", stamp)
    return found or _Missing(path, stamp, shard)


def _key(kind: str, stamp: Stamp) -> tuple[str, str]:
    """A stamp as it is kept, and what it is kept under."""
    text = f"{kind} {' '.join(map(str, stamp))}"
    return text, hashlib.sha256(text.encode()).hexdigest()


def _known(store: Store, kind: str, stamp: Stamp) -> Hashed | None:
    """What is kept; a damaged entry is nothing."""
    text, key = _key(kind, stamp)
    kept: Any = store.recall("sum", key)
    try:
        tensors = {(int(a), int(b)): str(digest) for a, b, digest in kept["tensors"]}
        found = Hashed(str(kept["name"]), tensors)
        whole = all(DIGEST.fullmatch(digest) for digest in (found.name, *tensors.values()))
        return found if whole and kept["stamp"] == text else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _keep(store: Store, file: _Missing, hashed: Hashed) -> None:
    """Keep what was hashed, unless the file changed meanwhile, or so lately that it might again
    without its stamp changing. A failure to write is no fault."""
    with contextlib.suppress(OSError, RecipeError):
        settled = file.stamp[3] + SETTLED_NS < time.time_ns()
        if settled and _stamp(file.path) == file.stamp:
            text, key = _key("tree" if file.shard else "file", file.stamp)
            tensors = [(*place, digest) for place, digest in hashed.tensors.items()]
            value = {"stamp": text, "name": hashed.name, "tensors": tensors}
            store.remember("sum", key, value)


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _hash_shards(shards: Sequence[ShardFile], watch: Watch) -> dict[Path, Hashed]:
    """Tensors of all of them side by side; a file that cannot be read is left out."""
    digests = _hash_ranges([(s.path, place) for s in shards for place in s.ranges], watch)
    return {
        shard.path: shard.hashed([digests[shard.path, place] for place in shard.ranges])
        for shard in shards
        if all((shard.path, place) in digests for place in shard.ranges)
    }


def _hash_ranges(wanted: Sequence[Wanted], watch: Watch) -> dict[Wanted, str]:
    """The digests of ranges; where a file cannot be read, those of the others."""
    try:
        return dict(zip(wanted, hash_ranges(wanted, watch), strict=True))
    except OSError:
        files = {path for path, _ in wanted}
        if len(files) == 1 or watch.stopped:
            return {}
        alone = ([one for one in wanted if one[0] == path] for path in files)
        return {key: digest for some in alone for key, digest in _hash_ranges(some, watch).items()}
