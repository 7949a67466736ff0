"""Metrics and tables: what `loss`, `perplexity`, `bits-per-byte`, `accuracy`, `size` and `evaluate`
give.

Each number comes with a 95 % bootstrap interval over windows (or examples) whose draws are keyed,
so it is the same whenever it is measured again. A table loads each model once.

Example:
    >>> measure(node, inputs, draws="00", backend=backend).value  # doctest: +SKIP
    1.332
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from typing import TYPE_CHECKING, TypeAlias, cast

from recipelang.backend import Backend, LoadedModel
from recipelang.data.chat import conversations
from recipelang.data.encoder import Encoder, encoder_of, token_bytes
from recipelang.diagnostics.diagnostic import fault
from recipelang.ir.graph import Node
from recipelang.ops import registry
from recipelang.ops.train._rules import supervised_by
from recipelang.run.data import Rows
from recipelang.run.scoring import Scores, Windows, interval, windows_of
from recipelang.run.training import LENGTH, precision_of, replace_template
from recipelang.run.values import Measurement, ModelValue, RuntimeValue, Table
from recipelang.values import Attr

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ScoreCache", "choose", "measure"]

Inputs: TypeAlias = "Mapping[str, tuple[RuntimeValue, ...]]"
ScoreCache: TypeAlias = "MutableMapping[str, Scores]"
"""Scores of a run by what they depend on, so that a gate scores nothing that a table has scored."""

DECODED_AT_A_TIME = 8
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja",
)  # fmt: skip


def measure(
    node: Node,
    inputs: Inputs,
    *,
    draws: str | None,
    backend: Backend | None,
    names: Mapping[str, Sequence[str]] | None = None,
    scores: ScoreCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Measurement | Table:
    """Carry out a metric (a :class:`Measurement`) or `evaluate` (a :class:`Table`).

    ``names`` are what the recipe calls the operands, by role (``models``, ``data``). ``backend``
    may be None for `size`. ``scores`` is shared by the measures of a run. ``progress`` gets the
    cells done and all of them. Raises RecipeError of the bands E07 and E08.
    """
    if node.op == "size":
        return _size(_models(inputs, "model")[0])
    assert backend is not None
    job = _Job(node, draws or "", backend, {} if scores is None else scores)
    if node.op == "evaluate":
        return _table(job, inputs, names or {}, progress)
    model, data = _models(inputs, "model")[0], _datasets(inputs)[0]
    with_model = _Loaded(job, model)
    try:
        return _metric(with_model, node.op, data)
    finally:
        with_model.close()


def choose(measured: Sequence[Measurement]) -> int:
    """The index of the best of several measurements, the first one among equals; not-a-number never
    wins.
    """
    if not measured:
        raise ValueError("nothing to choose from")
    sign = 1 if measured[0].direction == "min" else -1
    return min(
        range(len(measured)),
        key=lambda i: (measured[i].value != measured[i].value, sign * measured[i].value, i),
    )


def _models(inputs: Inputs, role: str) -> list[ModelValue]:
    return [v for v in inputs[role] if isinstance(v, ModelValue)]


def _datasets(inputs: Inputs) -> list[Rows]:
    return [v for v in inputs["data"] if isinstance(v, Rows)]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A measuring step. What models of the same tokenizer share is kept: the tokenizer itself, and
    in ``windows`` a dataset's tokens."""

    node: Node
    draws: str
    backend: Backend
    scores: ScoreCache
    windows: dict[tuple[str, ...], Windows] = field(default_factory=dict[tuple[str, ...], Windows])
    readings: dict[str, _Reading] = field(default_factory=dict[str, "_Reading"])


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A tokenizer by the ``digest`` of its files, with the bytes of each of its tokens."""

    digest: str
    encoder: Encoder
    sizes: NDArray[np.int32]


@dataclass(slots=True, eq=False)
class _Loaded:
    """A model of a measuring step; it is brought into memory when it is first needed."""

    job: _Job
    model: ModelValue
    memory: LoadedModel | None = None

    @property
    def reading(self) -> _Reading:
        files, config = self.model.checkpoint.files, self.model.checkpoint.config
        digest = hashlib.sha256(repr(config.get("eos_token_id")).encode())
        for name in TOKENIZER_FILES:
            data = files.get(name, b"")
            digest.update(data if isinstance(data, bytes) else data.read_bytes())
            digest.update(b"\0")
        key = digest.hexdigest()
        if key not in self.job.readings:
            encoder = encoder_of(files, config)
            self.job.readings[key] = _Reading(key, encoder, token_bytes(encoder.tokenizer))
        return self.job.readings[key]

    @property
    def precision(self) -> str:
        return str(precision_of(self.job.node.attr("precision"), self.model))

    def ready(self) -> LoadedModel:
        if self.memory is None:
            precision = precision_of(self.job.node.attr("precision"), self.model)
            self.memory = self.job.backend.load(self.model.checkpoint, precision)
        return self.memory

    def close(self) -> None:
        if self.memory is not None:
            self.memory.close()
            self.memory = None


def _table(
    job: _Job,
    inputs: Inputs,
    names: Mapping[str, Sequence[str]],
    progress: Callable[[int, int], None] | None,
) -> Table:
    models, datasets = _models(inputs, "models"), _datasets(inputs)
    rows = _unique(names.get("models"), len(models), "model")
    columns = _unique(names.get("data"), len(datasets), "data")
    metrics, prompts = _texts(job.node.attr("metrics")), _texts(job.node.attr("samples"))
    cells: dict[str, dict[str, dict[str, Measurement]]] = {}
    samples: dict[str, dict[str, str]] = {}
    done = 0
    for row, model in zip(rows, models, strict=True):
        loaded = _Loaded(job, model)
        try:
            cells[row] = {}
            for column, data in zip(columns, datasets, strict=True):
                cells[row][column] = {
                    m: _size(model) if m == "size" else _metric(loaded, m, data) for m in metrics
                }
                done += 1
                if progress:
                    progress(done, len(rows) * len(columns))
            samples[row] = _samples(loaded, prompts)
        finally:
            loaded.close()
    return Table(tuple(rows), tuple(columns), metrics, cells, samples)


def _texts(value: Attr) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, tuple) else ()


def _unique(names: Sequence[str] | None, count: int, kind: str) -> list[str]:
    """A name a row or column; missing and equal ones are numbered."""
    given = list(names or [])[:count] + [""] * max(0, count - len(names or []))
    found: list[str] = []
    for i, name in enumerate(given):
        plain = name or f"{kind}.{i + 1}"
        tried, n = plain, 1
        while tried in found:
            n += 1
            tried = f"{plain}.{n}"
        found.append(tried)
    return found


# ---------------------------------------------------------------- the metrics


def _size(model: ModelValue) -> Measurement:
    """Parameters; a head that is tied to the embedding is not counted again."""
    tensors = model.checkpoint.tensors
    tied = model.checkpoint.config.get("tie_word_embeddings") is True and any(
        "embed" in n for n in tensors
    )
    value = sum(
        info.elements for n, info in tensors.items() if not (tied and n == "lm_head.weight")
    )
    return Measurement("size", float(value), float(value), float(value), value, "min")


def _metric(loaded: _Loaded, metric: str, data: Rows) -> Measurement:
    operation = registry.lookup(metric)
    direction = operation.direction if operation else "min"
    if metric == "accuracy":
        return _accuracy(loaded, data, direction)
    scores = _scores(loaded, data)
    tokens = int(scores.tokens.sum())
    detail = {
        "nats": float(scores.nats.sum()),
        "bytes": float(scores.bytes.sum()),
        "windows": float(len(scores.nats)),
    }
    match metric:
        case "loss" | "perplexity":
            low, high = interval(scores.nats, scores.tokens, loaded.job.draws)
            values = (scores.loss, low, high)
            if metric == "perplexity":
                values = (_exp(scores.loss), _exp(low), _exp(high))
            return Measurement(metric, *values, tokens, direction, detail)
        case "bits-per-byte":
            if not scores.bytes.sum():
                raise fault(
                    "E0778",
                    "the scored tokens have no bytes of text",
                    help="measure `loss` instead, or score text",
                )
            low, high = interval(scores.nats / log(2), scores.bytes, loaded.job.draws)
            return Measurement(metric, scores.bits_per_byte, low, high, tokens, direction, detail)
        case _:
            raise ValueError(f"{metric} is no metric of a model on data")


def _exp(value: float) -> float:
    return exp(value) if value < 700 else float("inf")


def _scores(loaded: _Loaded, data: Rows) -> Scores:
    """The scores of a model on a dataset; taken from the run's where they are there."""
    node = loaded.job.node
    length = node.attr("length")
    chosen = length if isinstance(length, int) else (data.length or LENGTH)
    supervise = supervised_by(data.format, node.attr("supervise"))
    key = f"{loaded.model.artifact} {data.artifact} {chosen} {supervise} {loaded.precision}"
    found = loaded.job.scores.get(key)
    if found is None:
        reading = loaded.reading
        encoder = replace_template(reading.encoder, data)
        names = (reading.digest, data.artifact, str(chosen), supervise)
        if names not in loaded.job.windows:
            loaded.job.windows[names] = windows_of(encoder, data, chosen, supervise)
        rows = node.hint("micro_batch")
        found = loaded.job.windows[names].score(
            loaded.ready().score,
            reading.sizes,
            rows if isinstance(rows, int) else None,
        )
        loaded.job.scores[key] = found
    return found


def _accuracy(loaded: _Loaded, data: Rows, direction: str) -> Measurement:
    """Exact match of greedy completions; see the operation."""
    import numpy as np

    limit = loaded.job.node.attr("prompts")
    encoder = replace_template(loaded.reading.encoder, data)
    asked = _questions(encoder, data, limit if isinstance(limit, int) else None)
    if not asked:
        raise fault(
            "E0778",
            "there is nothing to answer: no row has an answer",
            help="use rows with a completion, or chats with a turn of the assistant",
        )
    right = np.zeros(len(asked))
    order = sorted(range(len(asked)), key=lambda i: (len(asked[i].prompt), i))
    for chosen in _groups(order, DECODED_AT_A_TIME):
        stop = frozenset(encoder.stops | {s for i in chosen for s in asked[i].stops})
        most = max(len(asked[i].answer) for i in chosen) + 1
        found = loaded.ready().decode([asked[i].prompt for i in chosen], max_tokens=most, stop=stop)
        for i, ids in zip(chosen, found, strict=True):
            right[i] = encoder.text(ids).strip() == encoder.text(asked[i].answer).strip()
    low, high = interval(right, np.ones(len(asked), np.int64), loaded.job.draws)
    return Measurement("accuracy", float(right.mean()), low, high, len(asked), direction)


def _groups(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass(frozen=True, slots=True)
class _Question:
    """``prompt`` and the expected ``answer`` as tokens, and the tokens that end the answer."""

    prompt: list[int]
    answer: list[int]
    stops: frozenset[int] = frozenset()


def _questions(encoder: Encoder, data: Rows, limit: int | None) -> list[_Question]:
    found: list[_Question] = []
    for row in data.rows()[:limit]:
        if data.format == "prompt-completion":
            prompt = encoder.prompt(str(row["prompt"]))
            answer = encoder.encode_pieces([(str(row["completion"]), False)])[0]
            if prompt:
                found.append(_Question(prompt, answer))
            continue
        messages = cast("list[Mapping[str, object]]", row["messages"])
        for talk in conversations(encoder.render, messages, encoder.specials, last_only=True):
            for start, stop in (span for span in talk.spans if span[0] < span[1]):
                prompt, whole = encoder.encode_pieces(
                    [(talk.text[:start], True), (talk.text[start:stop], False)]
                )
                ends = (
                    whole[-1:]
                    if encoder.tokenizer.id_to_token(whole[-1]) in encoder.specials
                    else []
                )
                found.append(_Question(prompt, whole[: len(whole) - len(ends)], frozenset(ends)))
    return found


def _samples(loaded: _Loaded, prompts: Sequence[str]) -> dict[str, str]:
    """The greedy continuation of each prompt, as plain text."""
    if not prompts:
        return {}
    encoder, most = loaded.reading.encoder, loaded.job.node.attr("sample_length", 32)
    assert isinstance(most, int)
    ids = [encoder.prompt(p) or [encoder.eos or 0] for p in prompts]
    found = loaded.ready().decode(ids, max_tokens=most, stop=encoder.stops)
    return {prompt: encoder.text(tokens) for prompt, tokens in zip(prompts, found, strict=True)}
