"""Writes a model's tensors into canonical safetensors shards, in any order and from several
threads.

Canonical: names sorted, the header padded to a multiple of eight bytes, the metadata
``{"format": "pt"}`` alone; equal tensors give equal bytes. Shards are preallocated and each tensor
goes to its final place. Every tensor's digest is taken while it is written, or behind it, many at a
time, where that is faster; a shard's follows from them. A journal beside the shards names the
tensors that are complete, so a killed merge goes on where it stopped.

Example:
    >>> writer = ModelWriter(folder, {"a": TensorInfo("F32", (2,))})      # doctest: +SKIP
    >>> writer.write("a", 0, np.zeros(2, np.float32))                     # doctest: +SKIP
    >>> writer.finish().shards[0].path.name                               # doctest: +SKIP
    'model.safetensors'
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipelang.diagnostics import RecipeError
from recipelang.store.artifact import StoredTensor
from recipelang.store.files import sync, sync_folder, translated
from recipelang.store.objects import shard_digest
from recipelang.store.ranges import BUSY, LANES, Place, hash_lanes, lanes_pay, range_digests
from recipelang.types import TensorInfo
from recipelang.weights.shards import ShardLayout, layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ModelWriter", "Shard", "Written"]

JOURNAL = "journal.jsonl"


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished file: ``digest`` is what an object is called that holds it (hex)."""

    path: Path
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Written:
    """What :meth:`ModelWriter.finish` gives."""

    tensors: Mapping[str, StoredTensor]
    shards: tuple[Shard, ...]


class ModelWriter:
    """Writes into ``folder``, which belongs to this writer and may hold what a killed one left.

    ``identity`` names what is being written (an action key); a journal of another identity or
    another table is not gone on with. Raises RecipeError E0851, E0852 where the disk refuses.
    """

    def __init__(
        self, folder: Path, tensors: Mapping[str, TensorInfo], *, identity: str = "",
        max_shard_bytes: int = 5_000_000_000,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.tensors = dict(sorted(tensors.items()))
        self._layout = layout(self.tensors, max_shard_bytes)
        self._digests: dict[str, str] = {}
        self._hashers: dict[str, Any] = {}
        self._waiting: dict[str, bytes] = {}
        total = sum(info.bytes for info in self.tensors.values())
        self._lane_bytes = total // BUSY if lanes_pay() else -1
        self._places = {name: (s, s.offsets[name]) for s in self._layout for name in s.tensors}
        self._lock = threading.Lock()
        self._closed = False
        self._stamp = _stamp(self._layout, identity)
        with translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._files = {s.name: self._open_shard(s) for s in self._layout}
            self._journal = self._open_journal()

    def finished(self, name: str) -> bool:
        """Whether the tensor is complete, from this run or from the one that was killed."""
        return name in self._digests

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """The next elements of a tensor, from element ``start``, in its stored dtype. A tensor is
        written from its first to its last element by one thread; several tensors may be under
        way."""
        import numpy as np

        info = self.tensors[name]
        shard, offset = self._places[name]
        raw: Any = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        later = info.bytes <= self._lane_bytes
        if not later:
            hasher = hashlib.sha256() if start == 0 else self._hashers[name]
            self._hashers[name] = hasher
            hasher.update(raw)
        place = offset + start * values.dtype.itemsize
        with translated(self.folder / shard.name):
            _write_all(self._files[shard.name], raw, place)
        if place + raw.size == offset + info.bytes:
            if later:
                self._complete_later(name)
            else:
                self._complete(name, self._hashers[name].hexdigest())

    def finish(self) -> Written:
        """Flush everything to disk and give the table. Every tensor must have been written."""
        with translated(self.folder), ThreadPoolExecutor(1) as beside:
            syncing = beside.submit(self._sync)
            self._complete_waiting()
            syncing.result()
        missing = [name for name in self.tensors if name not in self._digests]
        empty = [name for name in missing if self.tensors[name].bytes == 0]
        for name in empty:
            self._complete(name, hashlib.sha256().hexdigest())
        if len(missing) > len(empty):
            raise ValueError(f"{len(missing) - len(empty)} tensors were not written")
        with translated(self.folder):
            self.close()
            (self.folder / JOURNAL).unlink()
            sync_folder(self.folder)
        named = {
            s.name: shard_digest(s.header, (self._digests[n] for n in s.tensors))
            for s in self._layout
        }
        shards = tuple(Shard(self.folder / s.name, named[s.name], s.bytes) for s in self._layout)
        table: dict[str, StoredTensor] = {}
        for name, info in self.tensors.items():
            (shard, offset), digest = self._places[name], self._digests[name]
            table[name] = StoredTensor(info.dtype, info.shape, digest, named[shard.name], offset)
        return Written(table, shards)

    def close(self) -> None:
        """Stop without finishing: what is complete stays for the next run. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError, RecipeError):
            self._complete_waiting()
        for descriptor in (*self._files.values(), self._journal):
            os.close(descriptor)

    def _sync(self) -> None:
        for descriptor in self._files.values():
            sync(descriptor)

    def _complete_waiting(self) -> None:
        begun = {self._place(name): state for name, state in self._waiting.items()}
        names, self._waiting = list(self._waiting), {}
        for name, digest in zip(names, range_digests([*begun], begun=begun), strict=True):
            self._complete(name, digest)

    def _complete_later(self, name: str) -> None:
        """Once as many tensors wait as are hashed at a time, hash on while most lanes have work:
        of the longest, which are left over, the rest is hashed beside those that follow."""
        with self._lock:
            self._waiting[name] = b""
            if len(self._waiting) < LANES:
                return
            waiting, self._waiting = self._waiting, {}
        names = {self._place(one): one for one in waiting}
        with translated(self.folder):
            done, left = hash_lanes(
                {place: waiting[one] for place, one in names.items()}, busy=BUSY
            )
        with self._lock:
            self._waiting |= {names[place]: state for place, state in left.items()}
        for place, digest in done.items():
            self._complete(names[place], digest)

    def _complete(self, name: str, digest: str) -> None:
        line = json.dumps({"name": name, "digest": digest}) + "\n"
        with self._lock:
            self._hashers.pop(name, None)
            self._digests[name] = digest
            with translated(self.folder / JOURNAL):
                os.write(self._journal, line.encode())

    def _open_shard(self, shard: ShardLayout) -> int:
        descriptor = os.open(self.folder / shard.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(descriptor).st_size != shard.bytes:
            os.ftruncate(descriptor, 0)
            if hasattr(os, "posix_fallocate") and shard.bytes:
                os.posix_fallocate(descriptor, 0, shard.bytes)  # a full disk shows here, not later
            else:
                os.ftruncate(descriptor, shard.bytes)
        _write_all(descriptor, memoryview(shard.header), 0)
        return descriptor

    def _open_journal(self) -> int:
        """Take over what a killed run completed, if its bytes are what its journal says."""
        path = self.folder / JOURNAL
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        kept = [self._stamp.encode()]
        if lines and lines[0] == kept[0]:
            rows = [(*_journal_row(line), line) for line in lines[1:-1]]  # the rest was cut off
            rows = [row for row in rows if row[0] in self.tensors]
            found = range_digests([self._place(name) for name, _, _ in rows])
            for (name, digest, line), on_disk in zip(rows, found, strict=True):
                if digest == on_disk:
                    self._digests[name] = digest
                    kept.append(line)
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        os.write(descriptor, b"\n".join(kept) + b"\n")
        return descriptor

    def _place(self, name: str) -> Place:
        shard, start = self._places[name]
        return Place(self._files[shard.name], start, start + self.tensors[name].bytes)


def _write_all(descriptor: int, data: Any, offset: int) -> None:
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], offset + done)


def _stamp(shards: tuple[ShardLayout, ...], identity: str) -> str:
    sha = hashlib.sha256(identity.encode())
    for shard in shards:
        sha.update(shard.header)
    return sha.hexdigest()


def _journal_row(line: bytes) -> tuple[str, str]:
    try:
        row = json.loads(line)
        return str(row["name"]), str(row["digest"])
    except (ValueError, KeyError, TypeError):
        return "", ""
