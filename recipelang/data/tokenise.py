"""Datasets as tokens: documents with a supervision mask, made once for a dataset, tokenizer and
length.

A document is made of pieces that are tokenised apart, so that supervised text is exactly the
completion (or the assistant's turn) and its terminator, and the tokens before it are those that a
prompt has when the model is used:

- text: the tokenizer's own prefix (BOS), the text, the end token;
- prompt-completion: prefix, prompt | completion, end token;
- chat: the rendered template, cut where the assistant's turns begin and end; nothing is added to
  it.

The prefix is left out where the text begins with it already: there is never a second BOS. Texts
that are scored have no end token: what is measured is the text.

Example:
    >>> documents.supervised.sum() <= len(documents.tokens)  # doctest: +SKIP
    True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

from recipelang.data.chat import Conversation, Render, conversations
from recipelang.data.encoder import Encoder
from recipelang.diagnostics import RecipeError
from recipelang.diagnostics.diagnostic import Diagnostic, fault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Documents", "tokenise"]

Row: TypeAlias = Mapping[str, object]
Piece: TypeAlias = tuple[str, bool]
"""Text, and whether it is supervised."""


@dataclass(frozen=True, slots=True, eq=False)
class Documents:
    """Tokenised documents, end to end.

    ``tokens`` int32 and ``supervised`` bool, both (total,); document i is ``[starts[i], starts[i +
    1])``, ``starts`` int64 (documents + 1,). The first token of a document is never supervised.
    ``rows`` is the number of rows of the dataset that they come from.
    """

    tokens: NDArray[np.int32]
    supervised: NDArray[np.bool_]
    starts: NDArray[np.int64]
    rows: int

    @property
    def count(self) -> int:
        """The number of documents."""
        return len(self.starts) - 1


def tokenise(
    rows: Sequence[Row],
    format: str,
    supervise: str,
    encoder: Encoder,
    *,
    take_tokens: int | None = None,
    terminate: bool = True,
) -> Documents:
    """Tokenise rows of a format; ``supervise`` is ``completion``, ``assistant`` or ``all``.

    ``take_tokens`` keeps so many tokens from the start, and cuts the last document there.
    ``terminate`` says whether texts get an end token. Raises RecipeError E0778 when nothing is
    supervised, E0779 when a chat cannot be rendered, E0780 when the tokenizer has no end token.
    """
    if terminate and encoder.eos is None and format != "chat":
        raise fault(
            "E0780",
            "the tokenizer names no end token",
            help="add `eos_token` to the model's tokenizer_config.json",
        )
    if format == "chat":
        pieces = [p for i, row in enumerate(rows) for p in _chat(row, i, encoder, supervise)]
    elif format == "text":
        pieces = [[(str(row["text"]), True)] for row in rows]
    else:
        pieces = [
            [(str(r["prompt"]), supervise == "all"), (str(r["completion"]), True)] for r in rows
        ]
    found = _join(
        pieces, encoder, format, (terminate and format != "chat") or format == "prompt-completion"
    )
    if take_tokens is not None:
        found = _take(found, take_tokens)
    documents = _documents(found, len(rows))
    if not documents.supervised.any():
        raise fault(
            "E0778",
            f"supervision selects nothing in {len(rows)} rows",
            help="check `supervise`, and that there are answers in the data",
        )
    return documents


def _chat(row: Row, index: int, encoder: Encoder, supervise: str) -> list[list[Piece]]:
    """The pieces of a chat's documents."""
    messages = cast("list[Mapping[str, object]]", row["messages"])
    try:
        talks = _talks(encoder.render, messages, encoder.specials, supervise)
    except RecipeError as error:
        d = error.diagnostics[0]
        message = f"row {index + 1}: {d.message}"
        raise RecipeError(
            Diagnostic(d.code, d.severity, message, notes=d.notes, help=d.help)
        ) from None
    found: list[list[Piece]] = []
    for talk in talks:
        if supervise == "all":
            found.append([(talk.text, True)])
            continue
        pieces: list[Piece] = []
        place = 0
        for start, stop in talk.spans:
            pieces += [(talk.text[place:start], False), (talk.text[start:stop], True)]
            place = stop
        found.append([*pieces, (talk.text[place:], False)])
    return found


def _talks(
    render: Render, messages: list[Mapping[str, object]], specials: Iterable[str], supervise: str
) -> list[Conversation]:
    if supervise == "all":
        return [Conversation(render(messages, False), ())]
    return conversations(render, messages, specials, last_only=supervise == "completion")


Tokens: TypeAlias = tuple[list[int], list[bool]]


def _join(pieces: list[list[Piece]], encoder: Encoder, format: str, end: bool) -> list[Tokens]:
    """Encode all pieces at once, and put each document together."""
    flat = [(text, i == 0) for document in pieces for i, (text, _) in enumerate(document)]
    encoded = iter(encoder.encode_pieces(flat))
    found: list[Tokens] = []
    for document in pieces:
        ids: list[int] = []
        mask: list[bool] = []
        for _, supervised in document:
            part = next(encoded)
            ids += part
            mask += [supervised] * len(part)
        if format != "chat":
            prefix = encoder.prefix
            if prefix and tuple(ids[: len(prefix)]) != prefix:
                ids, mask = [*prefix, *ids], [False] * len(prefix) + mask
            if end and encoder.eos is not None:
                ids, mask = [*ids, encoder.eos], [*mask, True]
        if ids:
            mask[0] = False
            found.append((ids, mask))
    return found


def _take(found: list[Tokens], limit: int) -> list[Tokens]:
    """The first ``limit`` tokens."""
    kept: list[Tokens] = []
    for ids, mask in found:
        kept.append((ids[:limit], mask[:limit]))
        limit -= len(ids)
        if limit <= 0:
            break
    return kept


def _documents(found: list[Tokens], rows: int) -> Documents:
    import numpy as np

    starts = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(ids) for ids, _ in found], out=starts[1:])
    tokens = np.empty(int(starts[-1]), np.int32)
    supervised = np.empty(int(starts[-1]), np.bool_)
    for i, (ids, mask) in enumerate(found):
        tokens[starts[i] : starts[i + 1]] = ids
        supervised[starts[i] : starts[i + 1]] = mask
    return Documents(tokens, supervised, starts, rows)
