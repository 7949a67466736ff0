"""A dataset's file: where it is, what its content is, what its first rows say, all its rows.

Only the standard library is used, so that `recipe check` can look into data. The argument
``fields`` is everywhere the fields of `dataset`, with ``uri`` as written and ``folder``, the
directory of the recipe (not needed where ``uri`` is absolute).

Example:
    >>> inspect({"uri": "recipes/data/verses.jsonl"}).format  # doctest: +SKIP
    'text'
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from recipelang.data.columns import Columns, choose, row_of
from recipelang.data.readers import Row, read_rows
from recipelang.diagnostics.diagnostic import fault
from recipelang.ops.spec import Fault
from recipelang.sources import locate
from recipelang.types import DatasetType
from recipelang.values import Quantity

__all__ = ["content", "inspect", "inspect_columns", "load", "template_text"]

CHECKED_ROWS = 1000
"""How many rows `check` reads."""
MAX_TEMPLATE = 1024 * 1024


def _file(fields: Mapping[str, object]) -> Path:
    return _place(str(fields["uri"]), fields)


def _place(uri: str, fields: Mapping[str, object]) -> Path:
    """Where a file is. Raises RecipeError E0720 to E0722, E0772 for what is not read."""
    folder = fields.get("folder")
    found = locate(uri, folder=Path(str(folder)) if folder else None)
    if found is None or uri.startswith("hf:"):
        raise fault(
            "E0772",
            "datasets cannot be read from `hf:` yet",
            help="download the file and name its path",
        )
    if found.path.is_dir():
        raise fault(
            "E0772", f"`{found.path.name}` is a folder, not a data file", help="name a file in it"
        )
    return found.path


def template_text(fields: Mapping[str, object]) -> str | None:
    """The text of the chat template that the field ``template`` names, or None without one."""
    template = fields.get("template")
    if not isinstance(template, str):
        return None
    path = _place(template, fields)
    try:
        if path.stat().st_size > MAX_TEMPLATE:
            raise fault(
                "E0779",
                f"the chat template `{path}` is larger than 1 MiB",
                help="name a template in Jinja",
            )
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise fault(
            "E0771",
            f"cannot read the chat template `{path}`: {reason.lower()}",
            help="name a template in Jinja, in UTF-8",
        ) from None


def content(fields: Mapping[str, object]) -> str:
    """The sha256 (hex) of what the dataset is made of: its file and its template's.

    It is what identifies the source in step ids. Raises RecipeError E0771.
    """
    path = _file(fields)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise fault(
            "E0771", f"cannot read `{path}`: {reason}", help="see who may read it"
        ) from None
    template = template_text(fields)
    if template is None:
        return found
    return hashlib.sha256(f"{found}\n{template}".encode()).hexdigest()


def inspect(fields: Mapping[str, object]) -> DatasetType:
    """The type of a dataset from its first 1,000 rows.

    Raises Fault (a field is to blame) or RecipeError (the file is), all of band E07.
    """
    path = _file(fields)
    rows = list(islice(read_rows(path), CHECKED_ROWS + 1))
    columns = _columns(fields, rows, path)
    for row in rows[:CHECKED_ROWS]:
        row_of(columns, row, path)
    if fields.get("template") is not None:
        if columns.format != "chat":
            raise Fault(
                "E0779",
                f"a chat template has no use in a dataset of format {columns.format}",
                at="template",
                help="leave it out, or write `format = chat`",
            )
        template_text(fields)
    return _sized(fields, columns.format, _present(rows), len(rows), path)


def inspect_columns(fields: Mapping[str, object]) -> Columns:
    """The format and columns alone, from the first 1,000 rows. Raises RecipeError of band E07."""
    path = _file(fields)
    try:
        return _columns(fields, list(islice(read_rows(path), CHECKED_ROWS)), path)
    except Fault as found:
        raise fault(found.code, found.message, help=found.help, notes=found.notes) from None


def _present(rows: list[Row]) -> tuple[str, ...]:
    """The columns of the first rows, in the order they come up."""
    return tuple(dict.fromkeys(name for row in rows[:CHECKED_ROWS] for name in row.values))


def _columns(fields: Mapping[str, object], rows: list[Row], path: Path) -> Columns:
    if not rows:
        raise fault("E0774", f"`{path}` has no rows", help="every row is one line")
    return choose(fields, _present(rows), path.name)


def _sized(
    fields: Mapping[str, object], format: str, present: tuple[str, ...], found: int, path: Path
) -> DatasetType:
    """The type with what is known of the number of rows and the amount of text."""
    join, take, length = fields.get("join"), fields.get("take"), fields.get("length")
    if isinstance(join, int) and join > 1 and format != "text":
        raise Fault(
            "E0571",
            f"`join` makes documents of lines, but the format is {format}",
            at="join",
            help="leave it out",
        )
    rows = found if found <= CHECKED_ROWS else None
    if rows is not None and isinstance(join, int):
        rows = -(-rows // join)
    size, tokens = path.stat().st_size, None
    if isinstance(take, Quantity):
        if take.unit == "tokens":
            tokens, rows = int(take.value), None
        else:
            rows = int(take.value) if rows is None else min(rows, int(take.value))
            size = min(size, int(take.value) * max(1, size // max(1, found)))
    return DatasetType(
        present,
        format,
        rows,
        length if isinstance(length, int) else None,
        size,
        tokens,
        fields.get("template") is not None,
    )


def load(fields: Mapping[str, object]) -> tuple[str, list[dict[str, object]]]:
    """The format and all rows, by the format's own columns; ``join`` is applied, ``take`` is not.

    Raises RecipeError of band E07.
    """
    path = _file(fields)
    rows = list(read_rows(path))
    columns = _columns(fields, rows, path)
    found = [row_of(columns, row, path) for row in rows]
    join = fields.get("join")
    if isinstance(join, int) and join > 1:
        texts = [str(row["text"]) for row in found]
        joined = ["\n".join(texts[i : i + join]) for i in range(0, len(texts), join)]
        found = [dict[str, object](text=text) for text in joined]
    return columns.format, found
