"""JSON of files that nobody vouches for: no duplicate keys, no deep nesting, no numbers that are
none.

Example:
    >>> parse(b'{"a": 1}', "config.json", "E0728")
    {'a': 1}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from recipelang.diagnostics import fault

__all__ = ["as_list", "as_object", "parse", "parse_object", "read_small", "readable"]

MAX_DEPTH = 32
MAX_BYTES = 100_000_000
MAX_INTEGER = int(1e30)
"""What transformers writes as the ``model_max_length`` of a tokenizer that has none."""
AGAIN = "correct the file, or get it again from where it was published"


def readable(text: str, limit: int = 120) -> str:
    """A name from a file, safe to print: control characters escaped, long names cut.

    >>> readable("a\\x1b[2J")
    'a\\\\x1b[2J'
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= limit else shown[:limit] + "…"


def parse(data: bytes, what: str, code: str) -> object:
    """The value of a JSON text. ``what`` names the file in messages; faults raise RecipeError
    ``code``."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in items:
            if key in found:
                raise fault(
                    code, f"`{what}`: the key `{readable(key)}` is defined twice", help=AGAIN
                )
            found[key] = value
        return found

    def constant(name: str) -> object:
        raise fault(code, f"`{what}`: `{name}` is not a number of JSON", help=AGAIN)

    def integer(text: str) -> int:
        if len(text) > 32 or abs(int(text)) > MAX_INTEGER:
            raise fault(
                code, f"`{what}`: the number `{readable(text, 24)}` is too large", help=AGAIN
            )
        return int(text)

    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=integer,
        )
        _check_depth(value, MAX_DEPTH)
    except UnicodeDecodeError as error:
        raise fault(code, f"`{what}` is not UTF-8 (byte {error.start})", help=AGAIN) from None
    except RecursionError:
        raise fault(code, f"`{what}` is nested too deeply", help=AGAIN) from None
    except ValueError as error:
        raise fault(code, f"`{what}` is not JSON: {readable(str(error))}", help=AGAIN) from None
    return value


def parse_object(data: bytes, what: str, code: str) -> dict[str, object]:
    """Like :func:`parse`, for a text that must hold an object."""
    value = as_object(parse(data, what, code))
    if value is None:
        raise fault(code, f"`{what}` must hold an object", help=AGAIN)
    return value


def as_object(value: object) -> dict[str, object] | None:
    """The value as an object of JSON, or None where it is none."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[object] | None:
    """The value as a list of JSON, or None where it is none."""
    return cast("list[object]", value) if isinstance(value, list) else None


def read_small(path: Path, code: str, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes. Raises RecipeError ``code``."""
    import os
    import stat

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise fault(
                    code, f"`{path}` is not a regular file", help="put the file itself there"
                )
            if status.st_size > limit:
                raise fault(code, f"`{path}` has {status.st_size} bytes; the limit is {limit}")
            return file.read(limit + 1)
    except OSError as error:
        raise fault(code, f"cannot read `{path}`: {error.strerror}") from None


def _check_depth(value: object, left: int) -> None:
    if left == 0:
        raise RecursionError
    table = as_object(value)
    items: Iterable[object] = table.values() if table is not None else as_list(value) or ()
    for item in items:
        if type(item) in (dict, list):
            _check_depth(item, left - 1)
