"""Packing: every token once, documents apart, order a pure function of draws and step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.data.order import rows_at, rows_in, steps_of
from recipelang.data.packing import Packed, pack, windows
from recipelang.data.tokenise import Documents
from recipelang.diagnostics import RecipeError

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def documents(lengths: list[int], mask: np.ndarray | None = None) -> Documents:
    """Documents whose tokens are all different, supervised but for their first token."""
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens = np.arange(int(starts[-1]), dtype=np.int32)
    supervised = np.ones(len(tokens), np.bool_) if mask is None else mask
    supervised[starts[:-1]] = False
    return Documents(tokens, supervised, starts, len(lengths))


def held(packed: Packed) -> list[int]:
    """All tokens of all rows."""
    batch = packed.batch(range(packed.rows))
    return batch.tokens[batch.segments > 0].tolist()


def packed_or_none(lengths: list[int], capacity: int, overflow: str) -> Packed | None:
    """The packed documents; None where nothing supervised is left, which is a fault of its own."""
    try:
        return pack(documents(lengths), capacity, overflow=overflow)
    except RecipeError as error:
        if error.diagnostics[0].code != "E0778":
            raise
        return None


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(2, 32), st.sampled_from(["cut", "split", "drop"]), st.booleans())
def test_every_token_once_but_counted_ones(
    lengths: list[int], capacity: int, overflow: str, packing: bool
) -> None:
    """No token is twice in the rows, and those in no row are what the counts say."""
    try:
        packed = pack(documents(lengths), capacity, packing=packing, overflow=overflow)
    except RecipeError:
        return
    tokens = held(packed)
    assert len(tokens) == len(set(tokens)) == packed.counts.tokens
    assert sum(lengths) - len(tokens) == packed.counts.lost_tokens
    assert packed.counts.long == sum(n > capacity for n in lengths)
    if overflow == "split":
        alone = sum(1 for n in lengths if n == 1 or (capacity == 2 and n % 2 == 1))
        assert packed.counts.lost_tokens == alone  # a piece of one token teaches nothing


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(2, 32), st.sampled_from(["cut", "split", "drop"]))
def test_no_document_crosses(lengths: list[int], capacity: int, overflow: str) -> None:
    """A segment holds consecutive tokens of one document, its positions restart, its first is
    unsupervised.
    """
    packed = packed_or_none(lengths, capacity, overflow)
    if packed is None:
        return
    owner = np.repeat(np.arange(len(lengths)), lengths)
    batch = packed.batch(range(packed.rows))
    assert batch.tokens.shape[1] <= capacity
    for r in range(batch.rows):
        for s in range(1, int(batch.segments[r].max()) + 1):
            there = batch.segments[r] == s
            tokens = batch.tokens[r][there]
            assert len(set(owner[tokens].tolist())) == 1
            assert np.array_equal(tokens, np.arange(tokens[0], tokens[0] + len(tokens)))
            assert batch.positions[r][there].tolist() == list(range(len(tokens)))
            assert batch.supervised[r][there].tolist() == [False] + [True] * (len(tokens) - 1)
        padding = batch.segments[r] == 0
        assert not batch.supervised[r][padding].any()
        assert not padding.any() or padding[int(np.argmax(padding)) :].all()


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(40, 80))
def test_best_fit_wastes_little(lengths: list[int], capacity: int) -> None:
    """No two rows could be one: best fit leaves at most one row under half full."""
    packed = packed_or_none(lengths, capacity, "cut")
    if packed is None:
        return
    batch = packed.batch(range(packed.rows))
    fills = sorted((batch.segments > 0).sum(axis=1).tolist())
    assert len(fills) < 2 or fills[0] + fills[1] > capacity


def test_overflow_error_names_the_longest() -> None:
    """`overflow = error` refuses before training, and says how long the documents are."""
    with pytest.raises(
        RecipeError, match="E0781: 1 of 2 documents are longer than 8 tokens, the longest has 9"
    ):
        pack(documents([4, 9]), 8, overflow="error")


def test_lost_ends_are_counted() -> None:
    """A document that was cut has lost its supervised end, and one that was split has not."""
    assert pack(documents([4, 9]), 8, overflow="cut").counts.lost_ends == 1
    assert pack(documents([4, 10]), 8, overflow="split").counts.lost_ends == 0
    assert pack(documents([4, 9]), 8, overflow="split").counts.lost_ends == 0


def test_unsupervised_documents_are_left_out() -> None:
    """A prompt that fills its row teaches nothing; if all do, that is a fault."""
    mask = np.zeros(12, np.bool_)
    mask[10:] = True
    packed = pack(documents([6, 6], mask), 6)
    assert (packed.rows, packed.counts.unsupervised) == (1, 1)
    with pytest.raises(RecipeError, match="E0778"):
        pack(documents([6], np.zeros(6, np.bool_)), 6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 7), st.integers(1, 12), st.integers(0, 3))
def test_order_is_pure(rows: int, batch: int, steps: int, start: int) -> None:
    """A run that resumes anywhere sees the rows that an undisturbed one sees, and every row once an
    epoch.
    """
    whole = [rows_at("ab", rows=rows, batch=batch, step=t).tolist() for t in range(steps)]
    again = [rows_at("ab", rows=rows, batch=batch, step=t).tolist() for t in range(start, steps)]
    assert whole[start:] == again
    flat = [row for step in whole for row in step]
    for epoch in range(len(flat) // rows):
        assert sorted(flat[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_order_differs_between_epochs_and_draws() -> None:
    """Epochs and draw keys shuffle independently."""

    def order(draws: str, step: int) -> list[int]:
        return rows_at(draws, rows=50, batch=50, step=step).tolist()

    assert order("ab", 0) != order("ab", 1)
    assert order("ab", 0) != order("ac", 0)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs"), [(10, 4, 1.0), (10, 4, 2.5), (3, 8, 1.0), (7, 7, 0.1)]
)
def test_epochs_see_so_many_rows(rows: int, batch: int, epochs: float) -> None:
    """The steps of so many passes see exactly that many rows; only the last batch is smaller."""
    total = rows_in(rows, epochs)
    sizes = [
        len(rows_at("ab", rows=rows, batch=batch, step=t, total=total))
        for t in range(steps_of(rows, batch, epochs))
    ]
    assert sum(sizes) == total
    assert all(size == batch for size in sizes[:-1])
    assert sizes[-1] > 0


@given(st.integers(1, 6))
def test_micro_batches_are_slices(size: int) -> None:
    """A batch in parts has the arrays of the whole."""
    batch = pack(documents([5, 7, 3, 9, 4, 6, 8]), 12).batch([3, 0, 1, 2])
    parts = [batch.take(i, i + size) for i in range(0, batch.rows, size)]
    for name in ("tokens", "segments", "positions", "supervised"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert np.array_equal(joined, getattr(batch, name))


def test_windows_cover_a_document() -> None:
    """Scoring windows do not overlap, and leave out one token each."""
    packed = windows(documents([10, 3]), 4)
    batch = packed.batch(range(packed.rows))
    assert sorted(held(packed)) == list(range(13))
    assert int(batch.supervised.sum()) == 13 - packed.rows
    assert packed.rows == 4
