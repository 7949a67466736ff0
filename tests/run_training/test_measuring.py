"""Metrics, intervals and tables, with a bigram backend."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.data.encoder import encoder_of, token_bytes
from recipelang.diagnostics import RecipeError
from recipelang.run.data import Rows
from recipelang.run.measuring import choose, measure
from recipelang.run.scoring import Scores, interval, windows_of
from recipelang.run.values import Measurement, ModelValue, Table
from tests.data.helpers import CHATML
from tests.run_training.fake import (
    TABLE,
    WORDS,
    FakeBackend,
    Memory,
    log_softmax,
    model,
    step,
    texts,
)

TEXT = "the cat sat on the mat, señor"


def measured(op: str, of: ModelValue, data: Rows, **fields: object) -> Measurement:
    """A metric of a model on a dataset."""
    backend = FakeBackend()
    found = measure(
        step(op, **fields), {"model": (of,), "data": (data,)}, draws="ab", backend=backend
    )  # type: ignore[arg-type]
    assert isinstance(found, Measurement)
    assert backend.open == 0
    return found


def reference(of: ModelValue, text: str, length: int) -> tuple[float, int, int]:
    """Nats, tokens and bytes of a text in windows, byte by byte."""
    encoder = encoder_of(of.checkpoint.files, of.checkpoint.config)
    ids = encoder.encode_pieces([(text, True)])[0]
    table = log_softmax(of.checkpoint.read(TABLE).reshape(WORDS, WORDS).astype(np.float64))
    nats, tokens = 0.0, 0
    for i in range(1, len(ids)):
        if i % length:
            nats -= float(table[ids[i - 1], ids[i]])
            tokens += 1
    return nats, tokens, tokens


@pytest.mark.parametrize("length", [2, 5, 64])
def test_metrics_are_their_formulas(length: int) -> None:
    """Windows do not overlap, the first token of each is not scored, and bytes are those of scored
    tokens.
    """
    one, data = model(), texts(TEXT, TEXT[3:])
    sums = [reference(one, t, length) for t in (TEXT, TEXT[3:])]
    nats, tokens, size = (sum(column) for column in zip(*sums, strict=True))
    found = {
        m: measured(m, one, data, length=length) for m in ("loss", "perplexity", "bits-per-byte")
    }
    assert found["loss"].value == pytest.approx(nats / tokens)
    assert found["perplexity"].value == pytest.approx(exp(nats / tokens))
    assert found["bits-per-byte"].value == pytest.approx(nats / log(2) / size)
    assert {m.count for m in found.values()} == {tokens}


def test_many_byte_tokens_count_their_bytes() -> None:
    """A special token has no bytes, and neither makes bits free."""
    one = model()
    encoder = encoder_of(one.checkpoint.files, one.checkpoint.config)
    sizes = token_bytes(encoder.tokenizer)
    scores = windows_of(encoder, texts("a<|im_end|>b"), 8, "all").score(
        lambda b: np.where(b.supervised, -1.0, 0.0), sizes
    )
    assert (scores.tokens.sum(), scores.bytes.sum(), scores.nats.sum()) == (2, 1, 2.0)


def test_completions_are_scored_with_their_end() -> None:
    """Of prompts with completions, the completion and its end are scored, nothing else."""
    data = Rows("d", "prompt-completion", None, lambda: [{"prompt": "abc", "completion": "de"}])
    assert measured("loss", model(), data).count == 3
    assert measured("loss", model(), data, supervise="all").count == 5


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 5), st.integers(1, 50)), min_size=1, max_size=30),
    st.text("0123abcd", min_size=2),
)
def test_intervals_are_ordered_and_keyed(units: list[tuple[float, int]], draws: str) -> None:
    """The interval holds resampled ratios only, is the same for the same draws, and shrinks to a
    point for one unit.
    """
    counts = np.array([n for _, n in units])
    sums = np.array([rate * n for rate, n in units])
    low, high = interval(sums, counts, draws)
    rates = sums / counts
    assert rates.min() - 1e-9 <= low <= high <= rates.max() + 1e-9
    assert (low, high) == interval(sums, counts, draws)
    if len(units) == 1:
        assert low == pytest.approx(high)


def test_intervals_cover() -> None:
    """A 95 % interval holds the true mean in most of many tries, and not in all of them."""
    rng = np.random.default_rng(0)
    inside = 0
    for i in range(60):
        low, high = interval(rng.normal(2.0, 1.0, 80), np.ones(80, np.int64), f"{i:02x}")
        inside += low <= 2.0 <= high
    assert 50 <= inside <= 60


def test_large_samples_are_grouped() -> None:
    """More units than are resampled one by one give the interval of consecutive groups."""
    values = np.tile([1.0, 3.0], 5000)
    low, high = interval(values, np.ones(10_000, np.int64), "ab")
    assert low <= 2.0 <= high
    assert high - low < 0.1


def always(prompt_end: str, answer: str, end: str, template: str | None = None) -> ModelValue:
    """A model that writes one answer after a prompt's last character, then the end."""
    one = model(template)
    encoder = encoder_of(one.checkpoint.files, one.checkpoint.config)
    ids = [
        *encoder.encode_pieces([(prompt_end + answer, True)])[0],
        encoder.tokenizer.token_to_id(end),
    ]
    table = np.zeros((WORDS, WORDS), np.float32)
    for before, after in pairwise(ids):
        table[before, after] = 9
    return ModelValue(
        Memory({TABLE: table, "norm.weight": np.ones(WORDS)}, one.checkpoint.files), "a"
    )


def test_accuracy_is_exact_match() -> None:
    """An answer counts when it is the whole of what the model writes; going on is wrong."""
    rows = [
        {"prompt": "q:", "completion": " yes"},
        {"prompt": "q:", "completion": " ye"},
        {"prompt": "q:", "completion": "no"},
    ]
    data = Rows("d", "prompt-completion", None, lambda: rows)
    found = measured("accuracy", always(":", " yes", "<|endoftext|>"), data)
    assert found.value == pytest.approx(1 / 3)
    assert (found.count, found.direction) == (3, "max")
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert measured("accuracy", always(":", " yes", "<|endoftext|>"), data, prompts=1).value == 1.0


def test_accuracy_of_chats_stops_at_the_turn() -> None:
    """In a chat the last answer is asked for, and the turn's own terminator ends it."""
    rows = [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}]}
    ]
    data = Rows("d", "chat", None, lambda: rows)
    assert measured("accuracy", always("\n", "yes", "<|im_end|>", CHATML), data).value == 1.0


def test_size_counts_parameters() -> None:
    """`size` needs no backend."""
    found = measure(step("size"), {"model": (model(),)}, draws=None, backend=None)
    assert isinstance(found, Measurement)
    assert found.value == WORDS * WORDS + WORDS


def test_table_loads_each_model_once() -> None:
    """A table has every cell and sample under the recipe's names, with one model in memory at a
    time.
    """
    backend = FakeBackend()
    node = step(
        "evaluate", metrics=("bits-per-byte", "loss", "size"), samples=("the", ""), sample_length=3
    )
    inputs = {
        "models": (model(artifact="a"), model(artifact="b", seed=1)),
        "data": (texts("one two", artifact="x"), texts("three four", artifact="y")),
    }
    done: list[tuple[int, int]] = []
    names = {"models": ("base", "base"), "data": ("first", "second")}
    found = measure(
        node, inputs, draws="ab", backend=backend, names=names, progress=lambda *at: done.append(at)
    )
    assert isinstance(found, Table)
    assert (found.models, found.datasets) == (("base", "base.2"), ("first", "second"))
    assert (backend.loads, backend.open) == (2, 0)
    assert backend.scored == 4
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert set(found.cells["base.2"]["second"]) == {"bits-per-byte", "loss", "size"}
    assert (
        found.cells["base"]["first"]["loss"].value != found.cells["base.2"]["first"]["loss"].value
    )
    assert set(found.samples["base"]) == {"the", ""}


def test_scores_are_shared_within_a_run() -> None:
    """A gate that asks for what a table has scored loads nothing."""
    shared: dict[str, Scores] = {}
    backend = FakeBackend()
    one, data = model(), texts("one two")
    measure(
        step("evaluate"),
        {"models": (one,), "data": (data,)},
        draws="ab",
        backend=backend,
        scores=shared,
    )
    assert backend.loads == 1
    found = measure(
        step("perplexity"),
        {"model": (one,), "data": (data,)},
        draws="ab",
        backend=backend,
        scores=shared,
    )
    assert isinstance(found, Measurement)
    assert backend.loads == 1
    measure(
        step("loss", length=4),
        {"model": (one,), "data": (data,)},
        draws="ab",
        backend=backend,
        scores=shared,
    )
    assert backend.loads == 2


def test_best_takes_the_first_of_the_best() -> None:
    """The direction decides, equals go to the first, and not-a-number never wins."""

    def values(direction: str, *numbers: float) -> list[Measurement]:
        return [Measurement("m", x, x, x, 1, direction) for x in numbers]

    assert choose(values("min", 3, 1, 1)) == 1
    assert choose(values("max", 3, 1, 3)) == 0
    assert choose(values("min", float("nan"), 2)) == 1


def test_text_without_tokens_to_score_is_a_fault() -> None:
    """A dataset of single tokens cannot be scored."""
    with pytest.raises(RecipeError, match="E0778"):
        measured("loss", model(), texts("a"))
