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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from recipelang.diagnostics import RecipeError
from recipelang.store.ranges import Place, range_digest, range_digests
from recipelang.weights.safetensors import read_header

__all__ = ["Hashed", "file_digest", "hash_object", "shard_digest"]

SHARD = b"recipelang/shard/1\n"


@dataclass(frozen=True, slots=True)
class Hashed:
    """What an object's bytes say: the ``name`` that is theirs (empty for a shard whose header
    cannot be read), and of a shard each tensor's offset in bytes and sha256 (hex)."""

    name: str
    tensors: frozenset[tuple[int, str]] = frozenset()


def hash_object(path: Path, *, shard: bool) -> Hashed:
    """Read a whole object. Its manifest says whether it is a shard: ``tensors`` name shards,
    ``files`` files. Raises OSError where it cannot be read."""
    return _hash_shard(path) if shard else Hashed(file_digest(path))


def _hash_shard(path: Path) -> Hashed:
    try:
        header = read_header(path)  # which sees that the tensors cover the data, each byte once
    except RecipeError:
        return Hashed("")
    places = sorted((entry.start, entry.stop) for entry in header.entries.values())
    with open(path, "rb") as file:
        head = file.read(places[0][0] if places else header.size)
        digests = range_digests([Place(file.fileno(), *place) for place in places])
    starts = [start for start, _ in places]
    return Hashed(shard_digest(head, digests), frozenset(zip(starts, digests, strict=True)))


def shard_digest(header: bytes, digests: Iterable[str]) -> str:
    """The name of a shard (hex): SHA3-256 over a domain line, the ``header`` with its eight bytes
    of length, and the sha256 (hex) of each tensor's bytes in the order of the file."""
    return hashlib.sha3_256(SHARD + header + bytes.fromhex("".join(digests))).hexdigest()


def file_digest(path: Path, seen: Callable[[int], None] | None = None) -> str:
    """The sha256 (hex) of a file's bytes; ``seen`` hears how many were read, block by block."""
    with open(path, "rb") as file:
        return range_digest(file.fileno(), 0, sys.maxsize, seen)
