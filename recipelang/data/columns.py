"""From the columns of a file to rows of a format: text, prompt-completion, chat.

Example:
    >>> choose({"text": "body"}, ("id", "body"), "a.jsonl")
    Columns(format='text', names=(('text', 'body'),))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from recipelang.data.readers import Row, json_name
from recipelang.diagnostics.diagnostic import fault
from recipelang.ops.spec import Fault

__all__ = ["Columns", "choose", "row_of"]

NEEDS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "prompt-completion": ("prompt", "completion"),
    "chat": ("messages",),
}
ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGES = 10_000


@dataclass(frozen=True, slots=True)
class Columns:
    """A format, and which column of the file each of its own columns is."""

    format: str
    names: tuple[tuple[str, str], ...]


def choose(fields: Mapping[str, object], present: tuple[str, ...], name: str) -> Columns:
    """The format of a file whose columns are ``present``.

    ``fields`` are those of ``dataset`` (``format text prompt completion messages``). Raises Fault:
    E0775 where a column is missing, E0776 where the format cannot be told.
    """
    own = {
        c: str(fields[c]) for needs in NEEDS.values() for c in needs if fields.get(c) is not None
    }
    wanted = fields.get("format")
    have = ", ".join(f"`{c}`" for c in present) or "none"
    if isinstance(wanted, str):
        format = wanted
    else:
        formats = [f for f, needs in NEEDS.items() if any(c in own for c in needs)]
        if not formats:
            formats = [f for f, needs in NEEDS.items() if all(c in present for c in needs)]
        if len(formats) != 1:
            raise _untold(name, formats, have)
        format = formats[0]
    for column in own:
        if column not in NEEDS[format]:
            raise Fault(
                "E0776",
                f"a dataset of format {format} has no `{column}`",
                at=column,
                help="its columns are " + ", ".join(f"`{c}`" for c in NEEDS[format]),
            )
    names = tuple((column, own.get(column, column)) for column in NEEDS[format])
    for column, actual in names:
        if actual not in present:
            raise Fault(
                "E0775",
                f"`{name}` has no column `{actual}`",
                at=column if column in own else "uri",
                label="no such column",
                help=f"its columns are {have}",
            )
    return Columns(format, names)


def _untold(name: str, formats: list[str], have: str) -> Fault:
    if formats:
        both = " and ".join(formats)
        return Fault(
            "E0776",
            f"`{name}` could be {both}",
            at="uri",
            help=f"say which: `format = {formats[0]}`",
        )
    return Fault(
        "E0776",
        f"cannot tell the format of `{name}`: its columns are {have}",
        at="uri",
        help='name the columns: `text = "body"`, or `prompt = "question", completion = "answer"`',
    )


def row_of(columns: Columns, row: Row, path: Path) -> dict[str, object]:
    """The row by the format's own columns. Raises RecipeError E0777 for another type of value."""
    found: dict[str, object] = {}
    for column, actual in columns.names:
        if actual not in row.values:
            raise _wrong(path, row, f"the row has no `{actual}`")
        value = row.values[actual]
        if column == "messages":
            _check_messages(value, actual, path, row)
        elif not isinstance(value, str):
            raise _wrong(path, row, f"`{actual}` is text, found {json_name(value)}")
        found[column] = value
    return found


def _check_messages(value: object, actual: str, path: Path, row: Row) -> None:
    """A list of objects with `role` and `content`."""
    if not isinstance(value, list):
        raise _wrong(path, row, f"`{actual}` is a list of messages, found {json_name(value)}")
    messages = cast("list[object]", value)
    if not 0 < len(messages) <= MAX_MESSAGES:
        raise _wrong(path, row, f"`{actual}` holds {len(messages)} messages")
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise _wrong(
                path,
                row,
                f"`{actual}[{i}]` is an object with `role` and `content`, "
                f"found {json_name(message)}",
            )
        turn = cast("dict[str, object]", message)
        role, content = turn.get("role"), turn.get("content")
        if role not in ROLES:
            said = f"`{role}`" if isinstance(role, str) else json_name(role)
            raise _wrong(
                path, row, f"`{actual}[{i}].role` is one of {', '.join(ROLES)}, found {said}"
            )
        if not isinstance(content, str):
            raise _wrong(path, row, f"`{actual}[{i}].content` is text, found {json_name(content)}")


def _wrong(path: Path, row: Row, what: str) -> Exception:
    return fault("E0777", f"`{path}:{row.line}`: {what}", help="correct the row, or leave it out")
