"""The strict header reader: what it accepts, and a table of hostile files it refuses by name."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from recipelang.diagnostics import RecipeError
from recipelang.weights.safetensors import read_header


def framed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def row(dtype: str, shape: list[Any], offsets: list[int]) -> dict[str, object]:
    """A tensor's row."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


ONE = row("U8", [4], [0, 4])
HOSTILE = {
    "empty": (b"", "0 bytes"),
    "seven bytes": (b"\0" * 7, "7 bytes"),
    "huge length": (framed({}, length=2**63), "the limit is 100000000"),
    "200 MB header": (framed({}, length=200_000_000), "the header says 200000000 bytes"),
    "header past the end": (framed({}, length=5000), "the header ends at 5008"),
    "not UTF-8": (framed(b"{\xff\xfe}"), "not UTF-8"),
    "not JSON": (framed(b"{nope"), "not JSON"),
    "a list": (framed(b"[]"), "does not begin with `{`"),
    "leading space": (framed(b" {}"), "does not begin with `{`"),
    "duplicate name": (
        framed(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"x",
        ),
        "`a` is defined twice",
    ),
    "overlap": (framed({"a": ONE, "b": row("U8", [4], [2, 6])}, b"x" * 6), "`a` and `b` overlap"),
    "aliased": (framed({"a": ONE, "b": ONE}, b"x" * 4), "`a` and `b` overlap"),
    "hole": (framed({"a": ONE, "b": row("U8", [4], [8, 12])}, b"x" * 12), "belong to no tensor"),
    "trailing bytes": (framed({"a": ONE}, b"x" * 4 + b"PK\x03\x04"), "belong to no tensor"),
    "reversed offsets": (framed({"a": row("U8", [4], [4, 0])}, b"x" * 4), "leave the file"),
    "shape overflow": (framed({"a": row("F32", [2**62, 2**62], [0, 4])}, b"x" * 4), "needs"),
    "huge shape": (framed({"a": row("F32", [10**6] * 3, [0, 4])}, b"x" * 4), "needs"),
    "negative size": (framed({"a": row("U8", [-1], [0, 1])}, b"x"), "not a list of sizes"),
    "boolean size": (framed({"a": row("U8", [True], [0, 1])}, b"x"), "not a list of sizes"),
    "unknown dtype": (framed({"a": row("X99", [1], [0, 1])}, b"x"), "unknown dtype `X99`"),
    "metadata": (
        framed({"__metadata__": {"a": 1}, "t": row("U8", [1], [0, 1])}, b"x"),
        "__metadata__",
    ),
    "path in a name": (framed({"../../etc/x": row("U8", [1], [0, 1])}, b"x"), "is not allowed"),
    "control characters": (framed({"a\x1b[2J\n": row("U8", [1], [0, 1])}, b"x"), "a\\x1b[2J\\n"),
    "empty name": (framed({"": row("U8", [1], [0, 1])}, b"x"), "is not allowed"),
    "long name": (framed({"a" * 2000: row("U8", [1], [0, 1])}, b"x"), "is not allowed"),
    "look-alike names": (
        framed({"\u00e9": row("U8", [1], [0, 1]), "e\u0301": row("U8", [1], [1, 2])}, b"xy"),
        "look the same",
    ),
    "deep nesting": (
        framed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "nested too deeply",
    ),
    "NaN": (framed(b'{"a":NaN}'), "not a number"),
    "too many tensors": (
        framed(b"{" + b",".join(b'"%d":{"data_offsets":0}' % i for i in range(500_001)) + b"}"),
        "the limit of 500000",
    ),
    "pickle": (b"\x80\x04\x95\x20\x00\x00\x00\x00\x00\x00\x00}.", "looks like a pickle"),
    "zip": (b"PK\x03\x04" + b"\0" * 20, "looks like a zip"),
    "gguf": (b"GGUF" + b"\0" * 20, "looks like a GGUF"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    """Every hostile file is one E0724 that names the file and the fault, in one printable line."""
    data, words = HOSTILE[case]
    file = tmp_path / "w.safetensors"
    file.write_bytes(data)
    with pytest.raises(RecipeError) as caught:
        read_header(file)
    (found,) = caught.value.diagnostics
    assert found.code == "E0724"
    assert str(file) in found.message
    assert words in found.message
    assert found.message.isprintable()
    assert len(found.message) < 1000


def test_special_files_are_refused(tmp_path: Path) -> None:
    """A FIFO, a folder and a missing file are refused without waiting."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, tmp_path / "nothing"):
        with pytest.raises(RecipeError) as caught:
            read_header(path)
        assert caught.value.diagnostics[0].code == "E0724"


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    """A file of the safetensors library gives its names, shapes and bytes, zero-size tensors
    included."""
    import numpy as np
    from safetensors.numpy import save_file

    from recipelang.weights.rawread import read_elements

    arrays = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array(7, np.int64),
        "z": np.empty((0, 3), np.float16),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert list(header.entries) == ["a", "b", "z"]
    for name, array in arrays.items():
        entry = header.entries[name]
        assert entry.info.shape == array.shape
        assert np.array_equal(read_elements(header.path, entry).reshape(array.shape), array)
    assert read_elements(header.path, header.entries["b"], 2, 4).tolist() == [2, 3]
