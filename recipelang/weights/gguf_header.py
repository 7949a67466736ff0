"""Parses the header of a GGUF file, with the standard library and without trust.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3,
little-endian). Long arrays (a tokenizer's words) are skipped and decoded when asked for.

Example:
    >>> header = read_gguf(Path("model.gguf"))       # doctest: +SKIP
    >>> header.value("general.architecture")         # doctest: +SKIP
    'llama'
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from recipelang.diagnostics import RecipeError, fault
from recipelang.weights.safetensors import check_name, open_regular
from recipelang.weights.strict_json import readable

__all__ = ["QUANTISATIONS", "GgufHeader", "GgufTensor", "read_gguf"]

CODE = "E0730"
MAX_HEADER, MAX_TENSORS, MAX_FIELDS, MAX_TEXT = 1 << 28, 500_000, 1 << 16, 1 << 24
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
TEXT, ARRAY = 8, 9
LENGTH = struct.Struct("<Q")

QUANTISATIONS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}
"""Type number -> name, elements a block, bytes a block, for every type that weights may have
here."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor as stored: ``shape`` in C order (rows first), bytes ``[start, stop)`` of the
    file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int
    block_elements: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``fields`` maps a key to (type, offset in ``text``); ``digest`` maps a key prefix to its
    bytes."""

    path: Path
    text: bytes
    fields: Mapping[str, tuple[int, int, int]]
    tensors: Mapping[str, GgufTensor]

    def value(self, key: str, default: object = None) -> object:
        """A field's value: a number, a text, a bool or a list of them."""
        place = self.fields.get(key)
        if place is None:
            return default
        return _Cursor(self.path, self.text, place[1]).value(place[0])

    def digest(self, prefix: str) -> str:
        """sha256 (hex) of the fields whose key begins with ``prefix``, sorted by key."""
        sha = hashlib.sha256()
        for key in sorted(k for k in self.fields if k.startswith(prefix)):
            kind, start, stop = self.fields[key]
            sha.update(struct.pack("<QI", len(key.encode()), kind) + key.encode())
            sha.update(struct.pack("<Q", stop - start) + self.text[start:stop])
        return sha.hexdigest()


def read_gguf(path: Path) -> GgufHeader:
    """The checked header. Raises RecipeError E0730 that names the file and the fault."""
    descriptor = open_regular(path, CODE)
    try:
        size = os.fstat(descriptor).st_size
        want = 1 << 22
        while True:
            text = os.pread(descriptor, min(want, size), 0)
            try:
                return _parse(path, text, size)
            except _Short:
                if want >= min(size, MAX_HEADER):
                    raise _bad(path, "it ends inside its header") from None
                want *= 4
    finally:
        os.close(descriptor)


class _Short(Exception):
    """More of the file is needed to go on."""


@dataclass(slots=True)
class _Cursor:
    """A place in the header's bytes."""

    path: Path
    text: bytes
    at: int

    def take(self, form: str) -> int:
        size = struct.calcsize("<" + form)
        if self.at + size > len(self.text):
            raise _Short
        (value,) = struct.unpack_from("<" + form, self.text, self.at)
        self.at += size
        return int(value)

    def string(self) -> str:
        length = self.take("Q")
        if length > MAX_TEXT:
            raise _bad(self.path, f"a text of {length} bytes; the limit is {MAX_TEXT}")
        if self.at + length > len(self.text):
            raise _Short
        raw = self.text[self.at : self.at + length]
        self.at += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _bad(self.path, f"a text at byte {self.at - length} is not UTF-8") from None

    def value(self, kind: int) -> object:
        if kind in SCALARS:
            form = SCALARS[kind]
            size = struct.calcsize("<" + form)
            if self.at + size > len(self.text):
                raise _Short
            value: object = struct.unpack_from("<" + form, self.text, self.at)[0]
            self.at += size
            return value
        if kind == TEXT:
            return self.string()
        if kind != ARRAY:
            raise _bad(self.path, f"the field type {kind} is unknown")
        item, count = self.take("I"), self.take("Q")
        if item == TEXT:
            return [self.string() for _ in range(count)]
        self._check_items(item, count)
        values = struct.unpack_from(f"<{count}{SCALARS[item]}", self.text, self.at)
        self.at += struct.calcsize(f"<{count}{SCALARS[item]}")
        return list(values)

    def skip(self, kind: int) -> None:
        """Go past a value without building it."""
        if kind in SCALARS:
            self.at += struct.calcsize("<" + SCALARS[kind])
        elif kind == TEXT:
            self.string()
        elif kind == ARRAY:
            item, count = self.take("I"), self.take("Q")
            if item == TEXT:
                self._skip_texts(count)
            else:
                self._check_items(item, count)
                self.at += struct.calcsize(f"<{count}{SCALARS[item]}")
        else:
            raise _bad(self.path, f"the field type {kind} is unknown")
        if self.at > len(self.text):
            raise _Short

    def _skip_texts(self, count: int) -> None:
        text, at, unpack = self.text, self.at, LENGTH.unpack_from
        try:
            for _ in range(count):  # 100,000 times at the start of every check: no call but one
                (length,) = unpack(text, at)
                if length > MAX_TEXT:
                    raise _bad(self.path, f"a text of {length} bytes; the limit is {MAX_TEXT}")
                at += 8 + length
        except struct.error:
            raise _Short from None
        self.at = at

    def _check_items(self, item: int, count: int) -> None:
        if item not in SCALARS:
            raise _bad(self.path, f"an array of the type {item}")
        if count > MAX_HEADER:
            raise _bad(self.path, f"an array of {count} values")
        if self.at + count * struct.calcsize("<" + SCALARS[item]) > len(self.text):
            raise _Short


def _parse(path: Path, text: bytes, size: int) -> GgufHeader:
    if text[:4] != b"GGUF":
        raise _bad(path, "it is not a GGUF file")
    cursor = _Cursor(path, text, 4)
    version = cursor.take("I")
    if version not in (2, 3):
        raise _bad(path, f"version {version} is unknown (2 and 3 are read, little-endian)")
    tensor_count, field_count = cursor.take("Q"), cursor.take("Q")
    if tensor_count > MAX_TENSORS or field_count > MAX_FIELDS:
        raise _bad(path, f"it claims {tensor_count} tensors and {field_count} fields")
    fields: dict[str, tuple[int, int, int]] = {}
    for _ in range(field_count):
        key, kind, start = cursor.string(), cursor.take("I"), cursor.at
        cursor.skip(kind)
        if key in fields:
            raise _bad(path, f"the field `{readable(key)}` is defined twice")
        fields[key] = (kind, start, cursor.at)
    rows = [_tensor_row(cursor) for _ in range(tensor_count)]
    header = GgufHeader(path, text[: cursor.at], fields, {})
    alignment = header.value("general.alignment", 32)
    power = (
        isinstance(alignment, int)
        and 8 <= alignment <= 1 << 16
        and alignment & (alignment - 1) == 0
    )
    if not isinstance(alignment, int) or not power:
        raise _bad(path, f"the alignment {alignment} is not a power of two in [8, 65536]")
    data = -(-cursor.at // alignment) * alignment
    return GgufHeader(path, header.text, fields, _tensors(path, rows, data, alignment, size))


def _tensor_row(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name, rank = cursor.string(), cursor.take("I")
    check_name(cursor.path, name)
    if not 1 <= rank <= 4:
        raise _bad(cursor.path, f"`{readable(name)}` has {rank} dimensions")
    shape = tuple(cursor.take("Q") for _ in range(rank))[::-1]
    return name, shape, cursor.take("I"), cursor.take("Q")


def _tensors(
    path: Path,
    rows: list[tuple[str, tuple[int, ...], int, int]],
    data: int,
    alignment: int,
    size: int,
) -> dict[str, GgufTensor]:
    found: dict[str, GgufTensor] = {}
    end = data
    for name, shape, kind, offset in sorted(rows, key=lambda row: row[3]):
        if name in found:
            raise _bad(path, f"the tensor `{name}` is defined twice")
        if kind not in QUANTISATIONS:
            raise fault(
                "E0731",
                f"`{path}`: the tensor `{name}` has the quantisation type {kind}, which is not "
                f"known",
                help="known: " + ", ".join(q[0] for q in QUANTISATIONS.values()),
            )
        label, elements, block = QUANTISATIONS[kind]
        if prod(shape) == 0 or prod(shape) >= 1 << 48 or shape[-1] % elements:
            raise _bad(path, f"the shape {list(shape)} of `{name}` does not fit {label}")
        start = data + offset
        stop = start + prod(shape) // elements * block
        if offset % alignment or start < end or stop > size:
            raise _bad(path, f"the bytes {start} to {stop} of `{name}` overlap or leave the file")
        found[name] = GgufTensor(label, shape, start, stop, elements, block)
        end = stop
    return dict(sorted(found.items()))


def _bad(path: Path, what: str) -> RecipeError:
    return fault(CODE, f"`{path}` is damaged or unsafe: {what}", help="get the file again")
