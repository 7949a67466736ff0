"""A backend in numpy over a bigram model: the smallest thing that trains, scores and decodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from recipelang.backend import Device, Progress, Trained, TrainingJob
from recipelang.data.batch import Batch
from recipelang.ir.graph import Graph, Node
from recipelang.ops import registry
from recipelang.run.data import Rows
from recipelang.run.values import ModelValue
from recipelang.types import TensorInfo
from recipelang.values import Attr
from tests.data.helpers import byte_tokenizer, model_files

WORDS = byte_tokenizer().get_vocab_size()
TABLE = "bigram.weight"


@dataclass(frozen=True, eq=False)
class Memory:
    """A checkpoint in memory: a table of logits by the token before, and a matrix that an adapter
    can go on.
    """

    arrays: Mapping[str, Any]
    files: Mapping[str, Path | bytes]
    config: Mapping[str, object] = field(
        default_factory=lambda: {"model_type": "bigram", "vocab_size": WORDS}
    )

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return {n: TensorInfo("F32", a.shape) for n, a in sorted(self.arrays.items())}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        return self.arrays[name].reshape(-1)[start:stop]

    def release(self, name: str) -> None:
        return None


def model(
    template: str | None = None, artifact: str = "m", seed: int = 0, **files: Any
) -> ModelValue:
    """A bigram model with random logits."""
    rng = np.random.default_rng(seed)
    arrays = {
        TABLE: rng.normal(size=(WORDS, WORDS)).astype(np.float32),
        "norm.weight": np.ones(WORDS, np.float32),
    }
    return ModelValue(Memory(arrays, model_files(template, **files)), artifact)


def log_softmax(x: Any) -> Any:
    """In float64."""
    top = x.max(axis=-1, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis=-1, keepdims=True))


def scores(table: Any, batch: Batch) -> Any:
    """Log-probabilities of the supervised tokens given the token before."""
    before = np.roll(batch.tokens, 1, axis=1)
    found = log_softmax(table.astype(np.float64)[before])
    found = np.take_along_axis(found, batch.tokens[..., None].astype(np.int64), axis=-1)[..., 0]
    return np.where(batch.supervised, found, 0.0)


@dataclass(eq=False)
class Loaded:
    """A bigram model in memory."""

    table: Any
    owner: FakeBackend

    def logits(self, batch: Batch) -> Any:
        return self.table[np.roll(batch.tokens, 1, axis=1)]

    def score(self, batch: Batch) -> Any:
        self.owner.scored += 1
        return scores(self.table, batch)

    def decode(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        found: list[list[int]] = []
        for prompt in prompts:
            last, out = prompt[-1], list[int]()
            while len(out) < max_tokens:
                last = int(self.table[last].argmax())
                if last in stop:
                    break
                out.append(last)
            found.append(out)
        return found

    def close(self) -> None:
        self.owner.open -= 1


@dataclass(eq=False)
class FakeBackend:
    """Counts what it is asked for; trains by plain gradient descent on cross-entropy."""

    open: int = 0
    loads: int = 0
    scored: int = 0
    jobs: list[TrainingJob] = field(default_factory=list)
    isolates: bool = True
    name: str = "fake"
    version: str = "fake 1"

    def devices(self) -> tuple[Device, ...]:
        return (Device("cpu", "fake", 1 << 30),)

    def refuse(self, config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> str | None:
        return None

    def isolates_documents(self, config: Mapping[str, object]) -> bool:
        return self.isolates

    def load(self, model: Any, precision: str) -> Loaded:
        self.open += 1
        self.loads += 1
        assert self.open == 1, "one model at a time"
        return Loaded(model.read(TABLE).reshape(WORDS, WORDS), self)

    def train(self, job: TrainingJob, report: Callable[[Progress], None]) -> Trained:
        self.jobs.append(job)
        table = job.model.read(TABLE).reshape(WORDS, WORDS).astype(np.float64)
        history: list[Progress] = []
        tokens = 0
        for step in range(job.steps):
            batch = job.batch(step)
            count = max(1, int(batch.supervised.sum()))
            loss = -scores(table, batch).sum() / count
            tokens += int((batch.segments > 0).sum())
            rows, places = np.nonzero(batch.supervised)
            before, target = batch.tokens[rows, places - 1], batch.tokens[rows, places]
            slope = np.exp(log_softmax(table[before]))
            slope[np.arange(len(target)), target] -= 1
            np.add.at(table, before, -100 * job.lr[step] * slope / count)
            history.append(Progress(step + 1, job.steps, float(loss), 1.0, job.lr[step], tokens))
            report(history[-1])
            if job.evaluate is not None and step + 1 in job.evaluate_at:
                job.evaluate(step + 1, lambda b: scores(table, b).astype(np.float32))
        if job.adapter is None:
            return Trained({TABLE: table, "norm.weight": np.ones(WORDS)}, tuple(history))
        pairs = {f"{n}.lora_A": a for n, (a, _) in job.adapter.initial.items()}
        pairs |= {f"{n}.lora_B": b + 1 for n, (_, b) in job.adapter.initial.items()}
        return Trained(pairs, tuple(history))


def step(op: str, **fields: Attr) -> Node:
    """A node with the operation's defaults and these fields; hints where the compiler puts them."""
    declared = registry.lookup(op)
    assert declared is not None
    attrs = {f.name: f.default for f in declared.fields if not f.hint} | {
        k: v for k, v in fields.items() if not getattr(declared.field(k), "hint", False)
    }
    hints = {f.name: fields.get(f.name, f.default) for f in declared.fields if f.hint}
    return Graph().node(op, 1, {}, attrs, hints)  # type: ignore[arg-type]


def texts(*rows: str, artifact: str = "d", length: int | None = None) -> Rows:
    """A dataset of texts."""
    return Rows(artifact, "text", length, lambda: [{"text": row} for row in rows])


def lines(path: Path) -> list[dict[str, object]]:
    """The rows of a .jsonl file."""
    return [json.loads(line) for line in path.read_text().splitlines()]
