"""Tokenizer files with tokens of other models in them: what a union of vocabularies is written as.

Text is read as the first model reads it. What the others hold as *added tokens* (``<|im_start|>``)
is added with its flags, so it is found in a text as it was there. Their ordinary pieces get an id,
a row and their text when they are decoded, and nothing else: without merges, BPE makes none of
them out of a text (but single characters that the first model has no token for, and whole words
where ``ignore_merges`` is set); Unigram takes them only where it knows no other piece. WordPiece
and WordLevel take the longest piece or the word that they find, so there new pieces do take part.

The files of slow tokenizers, which know the first model's vocabulary, get the tokens in
``added_tokens.json``.

Example:
    >>> files = {"tokenizer.json": b'{"model": {"type": "BPE", "vocab": {"a": 0}}}'}
    >>> union_files(files, [], {1: "b"})["tokenizer.json"]
    b'{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}, "added_tokens": []}'
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from recipelang.diagnostics import fault
from recipelang.weights.strict_json import as_list, as_object, parse_object, read_small

__all__ = ["union_files"]

Files = Mapping[str, "Path | bytes"]
SLOW = ("vocab.json", "tokenizer.model", "added_tokens.json")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def union_files(
    first: Files, others: Sequence[Files], new: Mapping[int, str]
) -> dict[str, Path | bytes]:
    """The files of the first model with the tokens ``new`` (by id, none of which it has), which
    come from the others.

    Raises RecipeError E0642 where the first model has no ``tokenizer.json``.
    """
    document = _document(first, "tokenizer.json")
    if document is None:
        raise fault("E0642", "a union of vocabularies needs a `tokenizer.json` in the first model")
    flags = _added_entries(others)
    special = {i: flags[token] for i, token in sorted(new.items()) if token in flags}
    added = [as_object(entry) or {} for entry in as_list(document.get("added_tokens")) or ()]
    added += [{"id": i, **entry} for i, entry in special.items()]
    # The ids of added tokens are counted anew when the file is read, unless the model holds them.
    pieces = dict(new)
    for entry in added:
        number = entry.get("id")
        if isinstance(number, int):
            pieces[number] = str(entry.get("content"))
    document["added_tokens"] = added
    document["model"] = _with_pieces(as_object(document.get("model")) or {}, pieces)
    files = dict(first)
    files["tokenizer.json"] = _bytes(document)
    settings = _document(first, "tokenizer_config.json") or {}
    decoder = as_object(settings.get("added_tokens_decoder"))
    if decoder is not None:
        settings["added_tokens_decoder"] = decoder | {str(i): e for i, e in special.items()}
        files["tokenizer_config.json"] = _bytes(settings)
    if any(name in first for name in SLOW):
        table = _document(first, "added_tokens.json") or {}
        files["added_tokens.json"] = _bytes(table | {token: i for i, token in new.items()})
    return files


def _with_pieces(model: dict[str, object], pieces: Mapping[int, str]) -> dict[str, object]:
    """The model's vocabulary with pieces under their ids."""
    table, rows = as_object(model.get("vocab")), as_list(model.get("vocab"))
    if table is not None:
        return {**model, "vocab": table | {token: i for i, token in sorted(pieces.items())}}
    scored = [as_list(row) or [] for row in rows or ()]
    numbers = [score for row in scored for score in row[1:2] if isinstance(score, int | float)]
    # A path of known pieces of a character each costs less than one such piece.
    lowest = min(numbers, default=0.0)
    longest = max((len(token) for token in pieces.values()), default=0) + 1
    score = (lowest - 1.0) * longest
    last = max(pieces, default=-1)
    for i in range(len(scored), last + 1):
        scored.append([pieces.get(i, f"<unused {i}>"), score])
    return {**model, "vocab": scored}


def _added_entries(others: Sequence[Files]) -> dict[str, dict[str, object]]:
    """Content -> entry without id of the added tokens of the models, the first that has it."""
    found: dict[str, dict[str, object]] = {}
    for files in others:
        document = _document(files, "tokenizer.json") or {}
        for item in as_list(document.get("added_tokens")) or ():
            entry = as_object(item) or {}
            content = str(entry.get("content"))
            flags = {flag: entry.get(flag) is True for flag in FLAGS}
            found.setdefault(content, {"content": content, **flags})
    return found


def _document(files: Files, name: str) -> dict[str, object] | None:
    file = files.get(name)
    if file is None:
        return None
    data = file if isinstance(file, bytes) else read_small(file, "E0734")
    return parse_object(data, name, "E0734")


def _bytes(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
