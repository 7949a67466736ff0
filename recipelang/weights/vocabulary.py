"""Compares tokenizers, only where their digests differ, by their tables of tokens.

Example:
    >>> first_difference(a, b)      # doctest: +SKIP
    'token 5 is `<reponame>` and `<repo>`'
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from recipelang.diagnostics import RecipeError
from recipelang.types import TokenizerType
from recipelang.weights.strict_json import as_list, as_object, parse_object, read_small, readable

__all__ = [
    "first_difference",
    "is_readable",
    "only_in",
    "same_ids",
    "shown_token",
    "table_of",
    "with_added",
    "word_mark",
]

WORD_MARKS = ("\u0120", "\u2581", "##")
"""How tokens write that a word begins: byte-level BPE's space, SentencePiece's; WordPiece marks
what goes on instead."""
LEAST_MARKED = 0.05
"""The share of a vocabulary that is written in its tokenizer's way; a third to a half is usual."""


def first_difference(a: TokenizerType, b: TokenizerType) -> str:
    """The first tokens that differ, in words; empty when both give equal ids to equal tokens.

    Also empty when one of them is not at hand as a file.
    """
    if not is_readable(a) or not is_readable(b):
        return ""
    left, right = table_of(a), table_of(b)
    if left == right:
        return ""
    if len(left) != len(right) and not _differing(left, right):
        return f"{len(left)} tokens and {len(right)}"
    shown = [
        f"token {i} is {shown_token(left.get(i))} and {shown_token(right.get(i))}"
        for i in _differing(left, right)[:3]
    ]
    return ", ".join(shown)


def is_readable(tokenizer: TokenizerType) -> bool:
    """Whether the tokens are at hand."""
    return bool(tokenizer.path or tokenizer.content)


def same_ids(a: TokenizerType, b: TokenizerType) -> bool:
    """Whether both give equal ids to equal tokens; files are read only where digests differ."""
    return a.digest == b.digest or table_of(a) == table_of(b)


def only_in(a: TokenizerType, b: TokenizerType) -> list[tuple[int, str]]:
    """The tokens of ``a`` that ``b`` has under no id, with their ids in ``a``, in their order."""
    known = set(table_of(b).values())
    return [(i, token) for i, token in sorted(table_of(a).items()) if token not in known]


def with_added(tokenizer: TokenizerType, tokens: Sequence[str]) -> TokenizerType:
    """The tokenizer with these tokens, which it does not have yet, behind its own."""
    added = (*tokenizer.added, *tokens)
    digest = hashlib.sha256(json.dumps((tokenizer.digest, added)).encode()).hexdigest()
    return TokenizerType(digest, tokenizer.path, added, tokenizer.content)


def table_of(tokenizer: TokenizerType) -> Mapping[int, str]:
    """Id -> token. Raises RecipeError E0734 for a file that is neither a ``tokenizer.json`` with a
    table of tokens nor GGUF."""
    table = _read(tokenizer.path, tokenizer.digest, tokenizer.content)
    if not tokenizer.added:
        return table
    return table | dict(enumerate(tokenizer.added, max(table, default=-1) + 1))


def word_mark(tokenizer: TokenizerType) -> str:
    """The sign by which the tokens tell where words begin: one of :data:`WORD_MARKS`; empty where
    few tokens have any, or where the tokens are not at hand."""
    tokens = table_of(tokenizer).values() if is_readable(tokenizer) else ()
    counts = {mark: sum(token.startswith(mark) for token in tokens) for mark in WORD_MARKS}
    best = max(WORD_MARKS, key=lambda mark: counts[mark])
    return best if counts[best] > LEAST_MARKED * len(tokens) else ""


def shown_token(token: str | None) -> str:
    """A token as messages show it."""
    return "nothing" if token is None else f"`{readable(token, 40)}`"


def _differing(left: Mapping[int, str], right: Mapping[int, str]) -> list[int]:
    return [i for i in sorted(left.keys() & right.keys()) if left[i] != right[i]]


@lru_cache(maxsize=8)
def _read(path: str, digest: str, content: bytes) -> dict[int, str]:
    """The table of a file or of a text, told apart by what is in them; the digest tells a file
    from what it was before. Nobody changes what this gives."""
    if not content:
        file = Path(path)
        with file.open("rb") as stream:
            if stream.read(4) == b"GGUF":
                from recipelang.weights.gguf_header import read_gguf
                from recipelang.weights.gguf_tokenizer import tokens

                return dict(enumerate(tokens(read_gguf(file))))
        content = read_small(file, "E0734")
    document = parse_object(content, path or "tokenizer.json", "E0734")
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
