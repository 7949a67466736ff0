"""Reads the header of a safetensors file, strictly: what it accepts is safe to map and to trust.

The format (https://github.com/huggingface/safetensors): eight bytes of little-endian length, a JSON
header, then the tensors' bytes. On top of the format's rules this reader refuses duplicate and
unprintable names, and every message names the file.

Example:
    >>> header = read_header(Path("model.safetensors"))      # doctest: +SKIP
    >>> header.entries["model.norm.weight"].info             # doctest: +SKIP
    TensorInfo(dtype='BF16', shape=(576,))
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recipelang.diagnostics import RecipeError, fault
from recipelang.types import DTYPE_BYTES, TensorInfo
from recipelang.weights.strict_json import as_list, as_object, parse_object, readable

__all__ = ["Entry", "Header", "check_name", "mixed_alphabets", "open_regular", "read_header"]

CODE = "E0724"
MAX_HEADER = 100_000_000
MAX_TENSORS = 500_000
MAX_NAME = 1024
LOOKS_LIKE = (
    (b"\x80\x02", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"PK\x03\x04", "a zip archive, perhaps a pickle"),
    (b"GGUF", "a GGUF file"),
    (b"7z\xbc\xaf", "a 7z archive"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor and the bytes ``[start, stop)`` of the file that hold it."""

    info: TensorInfo
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file holds: ``entries`` in name order; ``size`` is the whole file in bytes."""

    path: Path
    entries: Mapping[str, Entry]
    size: int


def open_regular(path: Path, code: str = CODE) -> int:
    """A descriptor of a regular file; a FIFO, a device or a folder is refused before anything is
    read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise fault(
            code, f"cannot read `{path}`: {error.strerror}", help="see that you may read it"
        ) from None  # fmt: skip
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise fault(code, f"`{path}` is not a regular file", help="put the file itself there")
    return descriptor


def read_header(path: Path) -> Header:
    """The checked header. Raises RecipeError E0724 that names the file and the fault."""
    descriptor = open_regular(path)
    try:
        size = os.fstat(descriptor).st_size
        start = os.pread(descriptor, 8, 0)
        length = int.from_bytes(start, "little")
        _refuse_other_formats(path, start, os.pread(descriptor, 1, 8))
        if len(start) < 8:
            raise _bad(path, f"it has {size} bytes, too few for a header")
        if length > MAX_HEADER:
            raise _bad(path, f"the header says {length} bytes; the limit is {MAX_HEADER}")
        if 8 + length > size:
            raise _bad(path, f"the header ends at {8 + length} but the file has {size} bytes")
        text = os.pread(descriptor, length, 8)
    finally:
        os.close(descriptor)
    if not text.startswith(b"{"):
        raise _bad(path, "the header does not begin with `{`")
    if text.count(b"data_offsets") > MAX_TENSORS or text.count(b",") > 10 * MAX_TENSORS:
        raise _bad(path, f"it claims more tensors than the limit of {MAX_TENSORS}")
    document = parse_object(text, str(path), CODE)
    return Header(path, _entries(path, document, 8 + length, size), size)


def check_name(path: Path, name: str) -> None:
    """Refuse names that no model has: empty, very long, with control characters or path steps."""
    odd = not name.isprintable() or not name or len(name) > MAX_NAME
    if odd or ".." in name.split("/") or name.startswith(("/", "\\")) or "\\" in name:
        raise _bad(path, f'the tensor name "{readable(name)}" is not allowed')


def _entries(path: Path, document: dict[str, object], data: int, size: int) -> dict[str, Entry]:
    metadata = document.pop("__metadata__", {})
    texts = as_object(metadata)
    if texts is None or any(not isinstance(v, str) for v in texts.values()):
        raise _bad(path, "`__metadata__` must map names to texts")
    entries = {name: _entry(path, name, row, data, size) for name, row in document.items()}
    _check_coverage(path, entries, data, size)
    _check_confusable(path, entries)
    return dict(sorted(entries.items()))


def _entry(path: Path, name: str, value: object, data: int, size: int) -> Entry:
    check_name(path, name)
    shown = readable(name)
    row = as_object(value)
    if row is None or set(row) != {"dtype", "shape", "data_offsets"}:
        raise _bad(path, f"`{shown}` needs `dtype`, `shape` and `data_offsets`, and nothing else")
    dtype, shape, offsets = row["dtype"], _naturals(row["shape"]), _naturals(row["data_offsets"])
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _bad(path, f"`{shown}` has the unknown dtype `{readable(str(dtype), 24)}`")
    if shape is None or len(shape) > 32:
        raise _bad(path, f"the shape of `{shown}` is not a list of sizes")
    if offsets is None or len(offsets) != 2:
        raise _bad(path, f"the offsets of `{shown}` are not two numbers")
    info = TensorInfo(dtype, shape)
    start, stop = offsets
    if stop < start or data + stop > size:
        raise _bad(path, f"the offsets {start} to {stop} of `{shown}` leave the file")
    if info.bytes != stop - start:
        raise _bad(path, f"`{shown}` needs {info.bytes} bytes, its offsets hold {stop - start}")
    return Entry(info, data + start, data + stop)


def _naturals(value: object) -> tuple[int, ...] | None:
    """A list of whole numbers from 0, or None for anything else."""
    items = as_list(value)
    if items is None:
        return None
    numbers = tuple(v for v in items if type(v) is int and v >= 0)
    return numbers if len(numbers) == len(items) else None


def _check_coverage(path: Path, entries: Mapping[str, Entry], data: int, size: int) -> None:
    """The tensors cover the data from its first to its last byte, each byte once."""
    at, last = data, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start < at:
            raise _bad(
                path, f"`{readable(last)}` and `{readable(name)}` overlap at byte {entry.start}"
            )
        if entry.start > at:
            raise _bad(path, f"the bytes {at} to {entry.start} belong to no tensor")
        at, last = entry.stop, name
    if at != size:
        raise _bad(path, f"the bytes {at} to {size} belong to no tensor")


def _check_confusable(path: Path, entries: Mapping[str, Entry]) -> None:
    """Two names that are one text in Unicode's normal form are one name to a reader, so refuse
    them."""
    if all(name.isascii() for name in entries):
        return
    seen: dict[str, str] = {}
    for name in entries:
        other = seen.setdefault(unicodedata.normalize("NFKC", name), name)
        if other != name:
            raise _bad(
                path, f"the tensor names `{readable(other)}` and `{readable(name)}` look the same"
            )


def mixed_alphabets(names: Iterable[str]) -> tuple[str, ...]:
    """The names of which a part between dots has letters of several alphabets.

    >>> mixed_alphabets(["model.n\u043erm", "model.norm"]) == ("model.n\u043erm",)
    True
    """

    def alphabets(part: str) -> set[str]:
        return {unicodedata.name(c, "?").split()[0] for c in part if c.isalpha()}

    return tuple(
        name
        for name in names
        if not name.isascii() and any(len(alphabets(part)) > 1 for part in name.split("."))
    )


def _refuse_other_formats(path: Path, start: bytes, first: bytes) -> None:
    """Say what the file is where it does not begin as a header does."""
    for magic, kind in LOOKS_LIKE:
        if start.startswith(magic) and (first != b"{" or start[4:] != bytes(4)):
            raise _bad(path, f"it is not a safetensors file (it looks like {kind})")


def _bad(path: Path, what: str) -> RecipeError:
    return fault(
        CODE,
        f"`{path}` is damaged or unsafe: {what}",
        help="get the file again from where it was published",
    )
