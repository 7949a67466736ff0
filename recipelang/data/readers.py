"""Reads rows from .jsonl, .csv and .txt files: strictly, line by line, with the standard library
alone.

A file is refused at its first fault, which is named by file and line: bad UTF-8, a NUL, a line that
is too long or nested too deeply, a duplicate key, a value that is not an object. A UTF-8 byte order
mark is skipped.

Example:
    >>> from pathlib import Path; import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.txt"); _ = path.write_text("one\\n\\ntwo\\n")
    ...     [row.values for row in read_rows(path)]
    [{'text': 'one'}, {'text': 'two'}]
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from recipelang.diagnostics import RecipeError
from recipelang.diagnostics.diagnostic import fault

__all__ = ["MAX_LINE", "Row", "read_rows"]

MAX_LINE = 16 * 1024 * 1024
"""Bytes of the longest line that is read."""
MAX_DEPTH = 64
"""The deepest nesting of a JSON row."""
MAX_COLUMNS = 1000
FORMATS = (".jsonl", ".csv", ".txt")
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL in JSON text, and not an escaped backslash before other letters."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row and the line (from 1) that it starts on."""

    line: int
    values: dict[str, object]


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, in order; the suffix says how to read it.

    Raises RecipeError: E0771 (cannot be opened), E0772 (another kind of file), E0773 (a bad line).
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(f"`{s}`" for s in FORMATS)
        raise fault(
            "E0772",
            f"`{path.name}` is not a data file that can be read",
            help=f"convert it to one of {known}",
        )
    try:
        with path.open("rb") as file:
            lines = _lines(file, path)
            yield from {".jsonl": _jsonl, ".csv": _csv, ".txt": _txt}[suffix](lines, path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise fault(
            "E0771",
            f"cannot read `{path}`: {reason.lower()}",
            help="check the path; it is relative to the recipe's folder",
        ) from None


def bad_line(path: Path, line: int, what: str, help: str = "") -> RecipeError:
    """The fault of a line."""
    return fault("E0773", f"`{path}:{line}`: {what}", help=help)


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines as text, with their line breaks."""
    number = 0
    while raw := file.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            raise bad_line(path, number, f"the line is longer than {MAX_LINE // 2**20} MiB")
        if number == 1:
            if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise bad_line(path, 1, "the file is UTF-16", "save it as UTF-8")
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in raw:
            raise bad_line(path, number, "the line holds a NUL", "is this a binary file?")
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            raise bad_line(
                path,
                number,
                f"byte {error.start + 1} of the line is not UTF-8",
                "save the file as UTF-8",
            ) from None


def _txt(lines: Iterator[tuple[int, str]], path: Path) -> Iterator[Row]:
    for number, line in lines:
        text = line.rstrip("\r\n")
        if text.strip():
            yield Row(number, {"text": text})


def _jsonl(lines: Iterator[tuple[int, str]], path: Path) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            if line.count("[") + line.count("{") > MAX_DEPTH:
                _check_depth(line)
            value: object = json.loads(line, object_pairs_hook=_object, parse_constant=_constant)
            if "\\u" in line:
                _check_escapes(value)
        except (ValueError, RecursionError) as error:
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise bad_line(
                path,
                number,
                f"not a JSON object: {what[:1].lower()}{what[1:]}",
                'every line is one object, such as `{"text": "…"}`',
            ) from None
        if not isinstance(value, dict):
            raise bad_line(
                path,
                number,
                f"a row is an object, found {json_name(value)}",
                'every line is one object, such as `{"text": "…"}`',
            )
        yield Row(number, cast("dict[str, object]", value))


def json_name(value: object) -> str:
    """What a JSON value is called in messages."""
    names: dict[type, str] = {
        dict: "an object",
        list: "a list",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _check_depth(line: str) -> None:
    depth, quoted, escaped = 0, False, False
    for character in line:
        if quoted:
            quoted, escaped = (escaped or character != '"'), character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        elif character in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object without duplicate keys."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key `{twice}` stands twice")
    if len(found) > MAX_COLUMNS:
        raise ValueError(f"it has more than {MAX_COLUMNS} keys")
    return found


def _check_escapes(value: object) -> None:
    """Refuse what only escapes can put into a string: a NUL, or half of a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False)
    if NUL.search(text):
        raise ValueError("a string holds a NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half of a surrogate pair") from None


def _constant(name: str) -> object:
    raise ValueError(f"`{name}` is not JSON")


def _csv(lines: Iterator[tuple[int, str]], path: Path) -> Iterator[Row]:
    reader = csv.reader((line for _, line in lines), strict=True)
    before = csv.field_size_limit(MAX_LINE)
    header: list[str] | None = None
    try:
        start = 1
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = _header(cells, path)
                continue
            if len(cells) != len(header):
                raise bad_line(
                    path,
                    line,
                    f"{len(cells)} cells under {len(header)} columns",
                    "quote cells that hold commas or line breaks",
                )
            yield Row(line, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise bad_line(path, reader.line_num, f"not CSV: {error}") from None
    finally:
        csv.field_size_limit(before)


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if not name or names.count(name) > 1:
            what = f"the column `{name}` stands twice" if name else "a column has no name"
            raise bad_line(path, 1, what, "the first line names the columns")
    if len(names) > MAX_COLUMNS:
        raise bad_line(path, 1, f"more than {MAX_COLUMNS} columns")
    return names
