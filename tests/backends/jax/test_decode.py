"""A model in memory: documents stay apart, scores and continuations are those of the logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recipelang.data.batch import Batch
from recipelang_jax import backend
from tests.conformance import tiny


def log_softmax(logits: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """In float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_packed_documents_do_not_see_each_other(architecture: str) -> None:
    """Another first document leaves the second one's logits with the same bits, and so does
    padding."""
    model = backend().load(tiny.checkpoint(architecture), "F32")
    batch = tiny.batch(rows=2, length=16)
    other = batch.tokens.copy()
    other[batch.segments == 1] = 50
    other[batch.segments == 0] = 60
    first, second = model.logits(batch), model.logits(replace(batch, tokens=other))
    kept = batch.segments == 2
    assert first[kept].tobytes() == second[kept].tobytes()
    assert np.abs(first[batch.segments == 1] - second[batch.segments == 1]).max() > 0.1


def test_scores_are_those_of_the_logits() -> None:
    """Scores are log-probabilities of supervised tokens and 0 elsewhere, for more rows than fit at
    once."""
    model = backend().load(tiny.checkpoint("qwen3"), "F32")
    batch = tiny.batch(rows=5, length=12)
    expected = np.zeros(batch.tokens.shape)
    logs = log_softmax(model.logits(batch))
    for row, column in zip(*np.nonzero(batch.supervised), strict=True):
        expected[row, column] = logs[row, column - 1, batch.tokens[row, column]]
    found = model.score(batch)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert not found[~batch.supervised].any()


def test_long_rows_are_cut_into_blocks_of_queries() -> None:
    """A row longer than a block of queries has the logits that its prefix has alone."""
    model = backend().load(tiny.checkpoint("gemma2", num_hidden_layers=2), "F32")
    tokens = np.random.Generator(np.random.Philox(key=1)).integers(3, 97, (1, 600)).astype(np.int32)

    def logits(length: int) -> np.ndarray:  # type: ignore[type-arg]
        ones = np.ones((1, length), np.int32)
        place = np.arange(length, dtype=np.int32)[None]
        return model.logits(Batch(tokens[:, :length], ones, place, ones > 1))

    np.testing.assert_allclose(logits(600)[:, :520], logits(520), rtol=0, atol=2e-5)
    np.testing.assert_allclose(logits(600)[:, :64], logits(64), rtol=0, atol=2e-5)


def test_decoding_stops_and_breaks_ties() -> None:
    """Equal logits give the lowest id; a stop token ends its own row, and is not given."""
    even = tiny.checkpoint("llama", num_hidden_layers=1)
    embedding = np.zeros_like(even.arrays["model.embed_tokens.weight"])
    flat = replace(even, arrays={**even.arrays, "model.embed_tokens.weight": embedding})
    model = backend().load(flat, "F32")
    assert model.decode([[5], [6, 7]], max_tokens=3, stop=frozenset()) == [[0, 0, 0]] * 2
    assert model.decode([[5]], max_tokens=3, stop=frozenset((0,))) == [[]]
    assert model.decode([], max_tokens=3, stop=frozenset()) == []
    live = backend().load(tiny.checkpoint("qwen3", num_hidden_layers=1), "F32")
    prompts = [[5], [9, 4, 77], [8, 3]]
    free = live.decode(prompts, max_tokens=12, stop=frozenset())
    stop = free[0][3]
    for row, stopped in zip(
        free, live.decode(prompts, max_tokens=12, stop=frozenset((stop,))), strict=True
    ):
        assert stopped == (row[: row.index(stop)] if stop in row else row)


def test_precisions_of_logits() -> None:
    """F64 gives float64; BF16 gives float32 within bfloat16's accuracy of it; rounding does
    happen."""
    checkpoint, batch = tiny.checkpoint("llama", num_hidden_layers=2), tiny.batch(rows=2)
    exact, rounded = (backend().load(checkpoint, p).logits(batch) for p in ("F64", "BF16"))
    assert (exact.dtype, rounded.dtype) == (np.float64, np.float32)
    error = np.abs(exact - rounded)[batch.segments > 0].max() / np.abs(exact).max()
    assert 1e-4 < error < 3e-2
