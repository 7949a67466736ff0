"""Greedy decoding and scoring on torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recipelang_torch import backend, shard
from tests.backends.torch.test_models import reference
from tests.conformance import tiny

PROMPTS = [[1, 5, 9, 14, 3, 22, 17], [1], [1, 40, 41], [1, 7, 7, 7, 7, 7, 7, 7, 7, 12]]


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_decoding_is_greedy_generation_of_each_prompt_alone(architecture: str) -> None:
    """Prompts of different lengths decoded together give what transformers generates for each
    alone."""
    checkpoint = tiny.checkpoint(architecture)
    ours = backend().load(checkpoint, "F32").decode(PROMPTS, max_tokens=9, stop=frozenset())
    model = reference(checkpoint)
    model.generation_config.eos_token_id = None
    for prompt, tokens in zip(PROMPTS, ours, strict=True):
        made = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False, max_new_tokens=9, pad_token_id=0,
        )  # fmt: skip
        assert tokens == made[0, len(prompt) :].tolist()


def test_decoding_ends_before_a_stop_token() -> None:
    """A continuation is the unstopped one up to the first stop token, which is left out."""
    model = backend().load(tiny.checkpoint("qwen3"), "F32")
    free = model.decode(PROMPTS, max_tokens=9, stop=frozenset())
    stop = free[0][4]
    stopped = model.decode(PROMPTS, max_tokens=9, stop=frozenset({stop}))
    for full, cut in zip(free, stopped, strict=True):
        assert cut == (full[: full.index(stop)] if stop in full else full)
    assert model.decode([], max_tokens=3, stop=frozenset()) == []


def test_ties_go_to_the_lowest_token() -> None:
    """With an output matrix of zeros every token is as likely, and token 0 is taken."""
    checkpoint = tiny.checkpoint("llama3")
    arrays = {**checkpoint.arrays, "lm_head.weight": np.zeros((tiny.VOCABULARY, 32), np.float32)}
    model = backend().load(tiny.MemoryCheckpoint(checkpoint.config, arrays), "F32")
    assert model.decode([[1, 2]], max_tokens=3, stop=frozenset()) == [[0, 0, 0]]


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_score_is_the_log_softmax_at_supervised_tokens(architecture: str, monkeypatch) -> None:
    """Scores equal a float64 log-softmax of the logits, whatever the chunks, and are 0
    elsewhere."""
    model, batch = backend().load(tiny.checkpoint(architecture, "F64"), "F64"), tiny.batch(rows=5)
    logits = np.asarray(model.logits(batch), np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = np.zeros(batch.tokens.shape)
    for row, column in zip(*np.nonzero(batch.supervised), strict=True):
        expected[row, column] = logs[row, column - 1, batch.tokens[row, column]]
    np.testing.assert_allclose(model.score(batch), expected, rtol=0, atol=1e-12)
    monkeypatch.setattr(shard, "positions_at_once", lambda model: 3)
    monkeypatch.setattr(shard, "rows_at_once", lambda *_, **__: 2)
    np.testing.assert_allclose(model.score(batch), expected, rtol=0, atol=1e-12)
