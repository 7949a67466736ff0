"""A dataset's file: where it is, what its content is, what its first rows say, all its rows.

Only the standard library is used, so that `recipe check` can look into data. The argument ``fields``
is everywhere the fields of `dataset`, with ``uri`` as written and ``folder``, the directory of the recipe
(not needed where ``uri`` is absolute).

Example:
    >>> inspect({"uri": "recipes/data/verses.jsonl"}).format  # doctest: +SKIP
    'text'
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from recipelang.data.columns import choose, row_of
from recipelang.data.readers import read_rows
from recipelang.diagnostics.diagnostic import fault
from recipelang.ops.spec import Fault
from recipelang.types import DatasetType
from recipelang.values import Quantity

__all__ = ["content", "inspect", "load", "locate", "template_text"]

CHECKED_ROWS = 1000
"""How many rows `check` reads."""
MAX_TEMPLATE = 1024 * 1024


def locate(uri: str, folder: str = "") -> Path:
    """The file of a URI: a path (relative to ``folder``), or ``package:import_name/path``.

    Raises RecipeError E0721 or E0722.
    """
    if uri.startswith("package:"):
        return _in_package(uri.removeprefix("package:"))
    scheme = uri.partition(":")[0]
    if ":" in uri and len(scheme) > 1 and scheme.isalnum():
        raise fault("E0722", f"datasets cannot be read from `{scheme}:` yet",
                    help="download the file and name its path")  # fmt: skip
    return Path(folder) / uri


def _in_package(rest: str) -> Path:
    name, _, path = rest.partition("/")
    if not name.isidentifier() or ".." in Path(path).parts or Path(path).is_absolute():
        raise fault("E0722", f"`package:{rest}` does not name a file of a package",
                    help="write `package:import_name/path/in/it.jsonl`")  # fmt: skip
    spec = importlib.util.find_spec(name)
    places = list(spec.submodule_search_locations or []) if spec else []
    if not places:
        raise fault("E0721", f"the package `{name}` is not installed")
    return Path(places[0]) / path


def _file(fields: Mapping[str, object]) -> Path:
    return locate(str(fields["uri"]), str(fields.get("folder") or ""))


def template_text(fields: Mapping[str, object]) -> str | None:
    """The chat template of the field ``template``: Jinja as written, or the text of the file it names."""
    template = fields.get("template")
    if not isinstance(template, str) or "{" in template:
        return template if isinstance(template, str) else None
    path = locate(template, str(fields.get("folder") or ""))
    try:
        if path.stat().st_size > MAX_TEMPLATE:
            raise fault("E0729", f"the chat template `{path}` is larger than 1 MiB")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise fault("E0721", f"cannot read the chat template `{path}`: {reason.lower()}") from None


def content(fields: Mapping[str, object]) -> str:
    """The sha256 (hex) of what the dataset is made of: its file and its template's.

    It is what identifies the source in step ids. Raises RecipeError E0721.
    """
    path = _file(fields)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise fault("E0721", f"cannot read `{path}`: {reason}") from None
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
    if not rows:
        raise fault("E0724", f"`{path}` has no rows", help="every row is one line")
    present = tuple(dict.fromkeys(name for row in rows[:CHECKED_ROWS] for name in row.values))
    columns = choose(fields, present, str(fields["uri"]))
    for row in rows[:CHECKED_ROWS]:
        row_of(columns, row, path)
    if fields.get("template") is not None:
        if columns.format != "chat":
            raise Fault("E0729", f"a chat template has no use in a dataset of format {columns.format}",
                        at="template", help="leave it out, or write `format = chat`")  # fmt: skip
        template_text(fields)
    return _sized(fields, columns.format, present, len(rows), path)


def _sized(
    fields: Mapping[str, object], format: str, present: tuple[str, ...], found: int, path: Path
) -> DatasetType:
    """The type with what is known of the number of rows and the amount of text."""
    join, take, length = fields.get("join"), fields.get("take"), fields.get("length")
    if isinstance(join, int) and join > 1 and format != "text":
        raise Fault("E0571", f"`join` makes documents of lines, but the format is {format}", at="join",
                    help="leave it out")  # fmt: skip
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
        present, format, rows, length if isinstance(length, int) else None, size, tokens,
        fields.get("template") is not None,
    )  # fmt: skip


def load(fields: Mapping[str, object]) -> tuple[str, list[dict[str, object]]]:
    """The format and all rows, by the format's own columns; ``join`` is applied, ``take`` is not.

    Raises as :func:`inspect`.
    """
    path = _file(fields)
    rows = list(read_rows(path))
    if not rows:
        raise fault("E0724", f"`{path}` has no rows", help="every row is one line")
    present = tuple(dict.fromkeys(name for row in rows[:CHECKED_ROWS] for name in row.values))
    columns = choose(fields, present, str(fields["uri"]))
    found = [row_of(columns, row, path) for row in rows]
    join = fields.get("join")
    if isinstance(join, int) and join > 1:
        texts = [str(row["text"]) for row in found]
        found = [{"text": "\n".join(texts[i : i + join])} for i in range(0, len(texts), join)]
    return columns.format, found
