"""From hidden states to an objective's sums: supervised positions only, through the head in chunks.

The places that are scored are gathered on the host's word (their indices come with the batch),
padded to a fixed number of chunks, and run through the head one chunk at a time: at most ``chunk``
rows of logits exist at once, for the student and for each teacher, also when gradients are taken.
Chunks without a supervised place are skipped at run time, so nothing recompiles and nothing is
wasted.

Example:
    >>> layout = Layout(rows=4, length=128, chunk=128)
    >>> layout.chunks                       # 4 * 127 places at most
    4
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from recipelang.data.batch import Batch
from recipelang.objectives import Positions, Term
from recipelang_jax.arrays import XP, Array, Tree
from recipelang_jax.models import Decoder, Inputs

__all__ = [
    "Data",
    "Layout",
    "Scorer",
    "chunk_size",
    "gradients",
    "length_bucket",
    "prepare",
    "token_scores",
    "totals",
]

LOGITS_BYTES = 64 << 20
"""A chunk's logits in float32 take at most this."""


class Data(NamedTuple):
    """A micro-batch on the device: the inputs, and (chunks, chunk) arrays of the places that are
    scored: ``places`` into the flattened (rows * length) hidden states, and what the objective
    knows of them."""

    inputs: Inputs
    places: Array
    positions: Positions


@dataclass(frozen=True, slots=True)
class Layout:
    """The fixed sizes of a job's micro-batches."""

    rows: int
    length: int
    chunk: int

    @property
    def chunks(self) -> int:
        """Enough for every place that can be supervised (the first token of a row never is)."""
        return max(1, math.ceil(self.rows * max(self.length - 1, 1) / self.chunk))


class Scorer(NamedTuple):
    """A model as the objective needs it: its decoder, its parameters, its adapters and dropout
    keys."""

    decoder: Decoder
    params: Tree
    lora: Tree = None
    keys: Tree = None

    def gathered(self, data: Data) -> Array:
        """Hidden states of the scored places, (chunks, chunk, H)."""
        hidden = self.decoder.hidden(self.params, data.inputs, self.lora, self.keys)
        return hidden.reshape(-1, hidden.shape[-1])[data.places]

    @property
    def head_lora(self) -> Tree:
        """The output matrix's adapter, or None."""
        return None if self.lora is None else self.lora.get("lm_head")


def chunk_size(vocabulary: int, places: int) -> int:
    """The places at a time: a power of two with at most LOGITS_BYTES of float32 logits."""
    fitting = 1 << max(4, int(math.log2(max(LOGITS_BYTES // (4 * vocabulary), 1))))
    return max(1, min(fitting, places))


def length_bucket(length: int) -> int:
    """The length that a batch is padded to, so that nearly equal lengths share one compilation."""
    step = 16 if length <= 256 else 64
    return math.ceil(length / step) * step


def prepare(batch: Batch, start: int, layout: Layout, dtype: Any) -> Data:
    """Rows ``[start, start + layout.rows)`` of a batch, padded with empty rows and columns, as
    numpy."""
    part = batch.take(start, start + layout.rows)

    def room(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        full = np.zeros((layout.rows, layout.length), np.int32)
        full[: values.shape[0], : values.shape[1]] = values
        return full

    tokens, supervised = room(part.tokens), room(part.supervised) != 0
    rows, columns = np.nonzero(supervised)
    size = layout.chunks * layout.chunk

    def fill(values: np.ndarray[Any, Any], dtype: Any) -> np.ndarray[Any, Any]:
        full = np.zeros(size, dtype)
        full[: values.size] = values
        return full.reshape(layout.chunks, layout.chunk)

    inputs = Inputs(
        tokens,
        room(part.segments),
        room(part.positions),
        np.arange(start, start + layout.rows, dtype=np.int32),
    )
    positions = Positions(
        fill(tokens[rows, columns], np.int32), fill(np.ones(rows.size), dtype), fill(rows, np.int32)
    )
    return Data(inputs, fill(rows * layout.length + columns - 1, np.int32), positions)


def gradients(
    student: Callable[[Tree], Scorer], trained: Tree, teachers: Sequence[Scorer], data: Data,
    terms: Sequence[Term], statistics: Sequence[Tree], weights: Array, head_trained: bool,
) -> tuple[Tree, Array]:  # fmt: skip
    """The gradient of ``sum(weights * numerators)`` in ``trained``, and the numerators (terms,), of
    a micro-batch.

    Each chunk's gradient in its hidden states is taken at once, while its logits exist; then one
    pull-back goes through the layers. ``head_trained``: the output matrix is among the trained.
    """

    def front(trained: Tree) -> tuple[Array, Tree]:
        model = student(trained)
        tail = {"lora": model.head_lora} if model.head_lora is not None else {}
        if head_trained:
            tail["head"] = model.decoder.head(model.params)
        return model.gathered(data), tail

    (hidden, tail), pull_back = jax.vjp(front, trained)
    model = student(trained)
    head = None if head_trained else model.decoder.head(model.params)
    taught = _Taught.of(teachers, data)

    def value(x: Array, tail: Tree, at: Positions, others: Sequence[Array]) -> tuple[Array, Array]:
        logits = model.decoder.logits(tail.get("head", head), x, tail.get("lora"))
        values = [
            term.objective.terms(
                XP, at, logits, taught.logits(others), statistic, **term.parameters
            )
            for term, statistic in zip(terms, statistics, strict=True)
        ]
        return jnp.sum(weights * jnp.stack(values)), jnp.stack(values)

    def live(chunk: Tree) -> tuple[Array, Tree, Array]:
        at, x, others = chunk
        (change, tail_change), values = jax.grad(value, argnums=(0, 1), has_aux=True)(
            x, tail, at, others
        )
        return change, tail_change, values

    def body(sums: Tree, chunk: Tree) -> tuple[Tree, Array]:
        change, *found = _unless_empty(live, chunk)
        return jax.tree.map(jnp.add, sums, tuple(found)), change

    nothing = (jax.tree.map(jnp.zeros_like, tail), jnp.zeros_like(weights))
    (tail_sums, values), changes = lax.scan(body, nothing, (data.positions, hidden, taught.hidden))
    return pull_back((changes, tail_sums))[0], values


def totals(
    student: Scorer, teachers: Sequence[Scorer], data: Data, terms: Sequence[Term]
) -> list[Tree]:
    """Each term's statistics over a micro-batch (an empty dictionary where it needs none), without
    gradients."""
    head, taught = student.decoder.head(student.params), _Taught.of(teachers, data)

    def live(chunk: Tree) -> list[Tree]:
        at, x, others = chunk
        logits = student.decoder.logits(head, x, student.head_lora)
        return [
            dict(
                term.objective.statistics(XP, at, logits, taught.logits(others), **term.parameters)
            )
            if term.objective.statistics is not None
            else {}
            for term in terms
        ]

    chunks = (data.positions, student.gathered(data), taught.hidden)
    found = lax.map(lambda chunk: _unless_empty(live, chunk), chunks)
    sums: list[Tree] = jax.tree.map(lambda leaf: jnp.sum(leaf, 0), found)
    return sums


class _Taught(NamedTuple):
    """The teachers at the scored places: hidden states (chunks, chunk, H) and output matrices."""

    models: tuple[Scorer, ...]
    hidden: tuple[Array, ...]
    heads: tuple[Array, ...]

    @staticmethod
    def of(teachers: Sequence[Scorer], data: Data) -> _Taught:
        return _Taught(
            tuple(teachers),
            tuple(teacher.gathered(data) for teacher in teachers),
            tuple(teacher.decoder.head(teacher.params) for teacher in teachers),
        )

    def logits(self, hidden: Sequence[Array]) -> tuple[Array, ...]:
        """The teachers' logits of one chunk, without gradient."""
        parts = zip(self.models, self.heads, hidden, strict=True)
        return tuple(lax.stop_gradient(model.decoder.logits(head, x)) for model, head, x in parts)


def _unless_empty(function: Callable[[Tree], Tree], chunk: Tree) -> Tree:
    """The function of a chunk (its positions first), or zeros where no position counts: decided at
    run time."""
    shapes = jax.eval_shape(function, chunk)

    def nothing(_: Tree) -> Tree:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return lax.cond(jnp.any(chunk[0].mask > 0), function, nothing, chunk)


def token_scores(model: Scorer, data: Data) -> Array:
    """The log-probability of the target at each place, (chunks, chunk); 0 in chunks without any."""
    hidden, head = model.gathered(data), model.decoder.head(model.params)

    def scores(chunk: tuple[Positions, Array]) -> Array:
        at, x = chunk
        log_p = jax.nn.log_softmax(model.decoder.logits(head, x, model.head_lora), -1)
        return jnp.take_along_axis(log_p, at.targets[:, None], -1)[:, 0]

    return lax.map(lambda chunk: _unless_empty(scores, chunk), (data.positions, hidden))
