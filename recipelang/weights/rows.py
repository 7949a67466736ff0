"""Where each row of an aligned tensor comes from: index arrays, one a source, without a loop over
tokens.

For row r of the result, which stands for a token, a model that has the token gives its own row of
it, bit for bit. For a model that lacks it, the row is made of the rows of those that have it, its
*owners*:

1. the owner's row, where there is one owner;
2. the base's row, where the base is an owner;
3. the mean of the owners' rows;
4. zeros, where nobody has a row for it.

Rows beyond the tokens are padding: the model's own row of that number where it has one that stands
for no token either, else the mean of its aligned rows (as proposed for new tokens by Hewitt 2021,
"Initializing New Word Embeddings for Pretrained Language Models"). Means are taken in float64 and
rounded once to the model's dtype.

Example:
    >>> import numpy as np
    >>> runs(np.array([4, 5, 6, 0, 1]))
    [(0, 4, 3), (3, 0, 2)]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from recipelang.types import ModelType, TensorInfo, TokenizerType
from recipelang.weights.embeddings import rows_of, stored_name, vocabulary_rows, with_rows
from recipelang.weights.vocabulary import same_ids, table_of

__all__ = ["Alignment", "Holder", "Place", "RowMap", "Rows", "row_maps", "runs"]

Rows: TypeAlias = NDArray[np.int64]
Place: TypeAlias = tuple[str, int]
"""Role and index of an operand."""
SCATTERED = 64
"""A map with more runs than one in this many rows is read faster from a tensor that is held."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A model's tensor: the model's place, its tokenizer, its number of rows, and whether it gives
    rows to others."""

    place: Place
    tokenizer: TokenizerType | None
    rows: int
    owner: bool = True


@dataclass(frozen=True, eq=False)
class RowMap:
    """``own[r]`` is the row of the model's tensor that row r of the result is, -1 where it is made
    of ``donors``: (place of the model, its rows, -1 where it takes no part), by their mean.
    ``padding`` marks rows that take the mean of all rows that stand for a token; ``tokens`` are
    those, ascending."""

    own: Rows
    donors: tuple[tuple[Place, Rows], ...]
    padding: NDArray[np.bool_]
    tokens: Rows

    @property
    def pads(self) -> bool:
        """Whether a mean of all rows is needed."""
        return bool(self.padding.any())

    def scattered(self, source: int) -> bool:
        """Whether the rows of a source (0 is the model's own) lie in many places."""
        taken = self.own if source == 0 else self.donors[source - 1][1]
        return len(runs(taken[taken >= 0])) > 1 + len(taken) // SCATTERED


@dataclass(frozen=True, eq=False)
class Alignment:
    """How the tensors of several models, by place, are brought to the rows of the ``result``. The
    models at ``idle`` places give no rows to others."""

    result: ModelType
    models: Mapping[Place, ModelType]
    idle: frozenset[Place] = frozenset()
    _made: dict[tuple[int, ...], dict[Place, RowMap | None]] = field(
        default_factory=dict[tuple[int, ...], "dict[Place, RowMap | None]"]
    )

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The result's tensors with a row a token."""
        return vocabulary_rows(self.result)

    def of(self, place: Place, name: str) -> RowMap | None:
        """The map of a model's tensor; None where it is in order already."""
        rows = self.rows.get(name)
        if rows is None or len(self.models) < 2:
            return None
        holders: list[Holder] = []
        for at, model in self.models.items():
            stored = stored_name(model, name)
            if stored is None or model.tensors is None:
                return None
            count = rows_of(model.tensors[stored])
            holders.append(Holder(at, model.tokenizer, count, at not in self.idle))
        key = (rows, *(holder.rows for holder in holders))
        if key not in self._made:
            maps = row_maps(self.result.tokenizer, rows, holders)
            self._made[key] = dict(zip(self.models, maps, strict=True))
        return self._made[key][place]

    def aligned(self, info: TensorInfo, name: str) -> TensorInfo:
        """The row of the table of a tensor that was put in order."""
        return with_rows(info, self.rows[name])


def runs(rows: Rows) -> list[tuple[int, int, int]]:
    """Rows as runs of neighbours: (place in ``rows``, first row, how many)."""
    if rows.size == 0:
        return []
    starts = np.concatenate(([0], np.flatnonzero(np.diff(rows) != 1) + 1))
    counts = np.diff(np.concatenate((starts, [rows.size])))
    return list(zip(starts.tolist(), rows[starts].tolist(), counts.tolist(), strict=True))


def row_maps(
    result: TokenizerType | None, rows: int, holders: Sequence[Holder]
) -> tuple[RowMap | None, ...]:
    """The map of every holder's tensor onto ``rows`` rows in the order of the tokenizer of the
    result; None for one that is in that order already."""
    if all(_in_place(result, rows, holder) for holder in holders):
        return (None,) * len(holders)
    table: Mapping[int, str] = table_of(result) if result is not None else {}
    ids = np.fromiter((i for i in table if 0 <= i < rows), np.int64)
    words = list(map(table.__getitem__, ids.tolist()))
    is_token = np.zeros(rows, np.bool_)
    is_token[ids] = True
    places = [_places(holder, ids, words, is_token) for holder in holders]
    donors = list(zip([h.place for h in holders], _donors(places, is_token, holders), strict=True))
    return tuple(
        None if _in_place(result, rows, holder) else _row_map(place, donors, is_token)
        for holder, place in zip(holders, places, strict=True)
    )


def _in_place(result: TokenizerType | None, rows: int, holder: Holder) -> bool:
    mine = holder.tokenizer
    return holder.rows == rows and (result is None or mine is None or same_ids(result, mine))


def _places(holder: Holder, ids: Rows, words: Sequence[str], is_token: NDArray[np.bool_]) -> Rows:
    """For each row of the result the row of a holder that stands for the same token, or is padding
    of the same number; -1 where it has none."""
    place = np.full(is_token.size, -1, np.int64)
    mine = np.zeros(max(holder.rows, is_token.size), np.bool_)
    if holder.tokenizer is None:
        place[ids] = np.where(ids < holder.rows, ids, -1)
    else:
        table = table_of(holder.tokenizer)
        found = np.fromiter(map(_ids(table).get, words, repeat(-1)), np.int64, len(words))
        place[ids] = np.where(found < holder.rows, found, -1)
        used = np.fromiter((i for i in table if 0 <= i < mine.size), np.int64)
        mine[used] = True
    free = np.flatnonzero(~is_token & ~mine[: is_token.size])
    free = free[free < holder.rows]
    place[free] = free
    return place


def _donors(
    places: Sequence[Rows], is_token: NDArray[np.bool_], holders: Sequence[Holder]
) -> list[Rows]:
    """For each holder its rows for those that lack them, -1 where it gives none."""
    owns = [is_token & (p >= 0) & h.owner for p, h in zip(places, holders, strict=True)]
    count = np.sum(owns, axis=0)
    has_base = np.zeros(is_token.size, np.bool_)
    for own, holder in zip(owns, holders, strict=True):
        if holder.place[0] == "base":
            has_base |= own
    return [
        np.where(own & ((count == 1) | ~has_base | (holder.place[0] == "base")), place, -1)
        for own, place, holder in zip(owns, places, holders, strict=True)
    ]


def _row_map(
    place: Rows, donors: Sequence[tuple[Place, Rows]], is_token: NDArray[np.bool_]
) -> RowMap:
    lacks = is_token & (place < 0)
    given = tuple(
        (giver, rows) for giver, donor in donors
        if (rows := np.where(lacks, donor, -1)).max(initial=-1) >= 0
    )  # fmt: skip
    return RowMap(place, given, ~is_token & (place < 0), np.flatnonzero(is_token))


def _ids(table: Mapping[int, str]) -> dict[str, int]:
    """Token -> its lowest id."""
    return {token: i for i, token in sorted(table.items(), reverse=True)}
