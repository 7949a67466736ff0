"""Compares two tokenizers, only where their digests differ, by their tables of tokens.

Example:
    >>> first_difference(a, b)      # doctest: +SKIP
    'token 5 is `<reponame>` and `<repo>`'
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from recipelang.diagnostics import RecipeError
from recipelang.types import TokenizerType
from recipelang.weights.strict_json import as_list, as_object, parse_object, read_small, readable

__all__ = ["first_difference", "vocabulary"]


def first_difference(a: TokenizerType, b: TokenizerType) -> str:
    """The first tokens that differ, in words; empty when both give equal ids to equal tokens.

    Also empty when one of them is not at hand as a file.
    """
    if not a.path or not b.path:
        return ""
    left, right = vocabulary(a.path), vocabulary(b.path)
    if left == right:
        return ""
    if len(left) != len(right) and not _differing(left, right):
        return f"{len(left)} tokens and {len(right)}"
    shown = [
        f"token {i} is {_shown(left.get(i))} and {_shown(right.get(i))}"
        for i in _differing(left, right)[:3]
    ]
    return ", ".join(shown)


def _differing(left: dict[int, str], right: dict[int, str]) -> list[int]:
    return [i for i in sorted(left.keys() & right.keys()) if left[i] != right[i]]


def _shown(token: str | None) -> str:
    return "nothing" if token is None else f"`{readable(token, 40)}`"


@lru_cache(maxsize=8)
def vocabulary(path: str) -> dict[int, str]:
    """Id -> token of a ``tokenizer.json`` or GGUF file (told apart by content). Do not change it.

    Raises RecipeError E0734 for a file that is neither.
    """
    file = Path(path)
    with file.open("rb") as stream:
        if stream.read(4) == b"GGUF":
            from recipelang.weights.gguf_header import read_gguf
            from recipelang.weights.gguf_tokenizer import tokens

            return dict(enumerate(tokens(read_gguf(file))))
    document = parse_object(read_small(file, "E0734"), path, "E0734")
    model = as_object(document.get("model")) or {}
    table, rows = as_object(model.get("vocab")), as_list(model.get("vocab"))
    found: dict[int, str] = {}
    if table is not None:
        found = {i: token for token, i in table.items() if isinstance(i, int)}
    elif rows is not None:  # Unigram: [[token, score], ...]
        found = {i: str(row[0]) for i, item in enumerate(rows) if (row := as_list(item))}
    else:
        raise _unreadable(path)
    for item in as_list(document.get("added_tokens")) or ():
        one = as_object(item) or {}
        number = one.get("id")
        if isinstance(number, int):
            found[number] = str(one.get("content"))
    return found


def _unreadable(path: str) -> RecipeError:
    from recipelang.diagnostics import fault

    return fault("E0734", f"`{path}` holds no table of tokens")
