"""What an object is called, and whether its bytes are what its name says.

A file's name is the sha256 of its bytes. A safetensors shard is named by a tree: its header and its
tensors' sha256, which a writer and a manifest have anyway, so that gigabytes are hashed once, and
in parallel. The root is a SHA-3: no file's bytes can be called as a shard is, nor the other way
round.

Example:
    >>> shard_digest(b"", ())[:8]
    'c4031cfd'
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from recipelang.diagnostics import RecipeError
from recipelang.store.ranges import Place, Watch, range_digest, range_digests
from recipelang.weights.safetensors import read_header

__all__ = [
    "Hashed", "Range", "ShardFile", "file_digest", "hash_object", "hash_ranges", "shard_digest",
]  # fmt: skip

Range: TypeAlias = tuple[int, int]
"""Bytes ``[start, stop)`` of a file."""
SHARD = b"recipelang/shard/1\n"


@dataclass(frozen=True, slots=True)
class Hashed:
    """What an object's bytes say: the ``name`` that is theirs (empty for a shard whose header
    cannot be read), and of a shard each tensor's sha256 (hex) by its range of bytes."""

    name: str
    tensors: Mapping[Range, str] = field(default_factory=dict[Range, str])


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A safetensors file: its header with the eight bytes of length, and the ranges of its tensors
    in the order of the file, which cover the rest of it, each byte once."""

    path: Path
    head: bytes
    ranges: tuple[Range, ...]

    @classmethod
    def open(cls, path: Path) -> ShardFile:
        """Read the header. Raises RecipeError E0724, OSError."""
        header = read_header(path)
        ranges = sorted((entry.start, entry.stop) for entry in header.entries.values())
        with open(path, "rb") as file:
            head = file.read(ranges[0][0] if ranges else header.size)
        return cls(path, head, tuple(ranges))

    @property
    def bytes(self) -> int:
        """Of the whole file."""
        return self.ranges[-1][1] if self.ranges else len(self.head)

    def hashed(self, digests: Sequence[str]) -> Hashed:
        """What its bytes say; ``digests`` are the tensors' in order."""
        return Hashed(
            shard_digest(self.head, digests), dict(zip(self.ranges, digests, strict=True))
        )


def hash_object(path: Path, *, shard: bool) -> Hashed:
    """Read a whole object. Its manifest says whether it is a shard: ``tensors`` name shards,
    ``files`` files. Raises OSError where it cannot be read."""
    if not shard:
        return Hashed(file_digest(path))
    try:
        file = ShardFile.open(path)
    except RecipeError:
        return Hashed("")
    return file.hashed(hash_ranges([(path, place) for place in file.ranges]))


def hash_ranges(wanted: Sequence[tuple[Path, Range]], watch: Watch | None = None) -> list[str]:
    """The sha256 (hex) of ranges of files, side by side on all processors. Raises OSError."""
    with ExitStack() as stack:
        numbers = {
            path: stack.enter_context(open(path, "rb")).fileno() for path in {p for p, _ in wanted}
        }
        places = [Place(numbers[path], *place) for path, place in wanted]
        return range_digests(places, watch=watch)


def shard_digest(header: bytes, digests: Iterable[str]) -> str:
    """The name of a shard (hex): SHA3-256 over a domain line, the ``header`` with its eight bytes
    of length, and the sha256 (hex) of each tensor's bytes in the order of the file."""
    return hashlib.sha3_256(SHARD + header + bytes.fromhex("".join(digests))).hexdigest()


def file_digest(path: Path, watch: Watch | None = None) -> str:
    """The sha256 (hex) of a file's bytes. Raises OSError."""
    with open(path, "rb") as file:
        return range_digest(file.fileno(), 0, sys.maxsize, watch)
