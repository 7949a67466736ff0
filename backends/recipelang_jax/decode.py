"""A model in memory: logits, scores and greedy continuations.

The compiled functions are keyed by the decoder's static description and by shapes, so models of one
architecture and size share them. Decoding keeps keys and values of fixed length and runs as one
``while_loop``: every prompt of a call advances together, each at its own place.

Example:
    >>> model = Model(Placement.all_devices(), checkpoint, "BF16")
    >>> model.decode([[1, 2, 3]], max_tokens=4, stop=frozenset({0}))
    [[17, 5, 9, 9]]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from recipelang.backend import Precision
from recipelang.data.batch import Batch
from recipelang.weights.checkpoint import Checkpoint
from recipelang_jax.arrays import Arithmetic, Array, Tree, scoped
from recipelang_jax.losses import (
    Data,
    Layout,
    Scorer,
    chunk_size,
    length_bucket,
    prepare,
    token_scores,
)
from recipelang_jax.models import Cache, Decoder, Inputs, read_params
from recipelang_jax.shard import Placement
from recipelang_jax.spec import make_spec

__all__ = ["Model", "score_batch"]

TOKENS = 2048
"""About so many tokens run at a time where no gradient is taken."""


@partial(jax.jit, static_argnums=0)
def _logits(decoder: Decoder, params: Tree, inputs: Inputs) -> Array:
    return decoder.logits(decoder.head(params), decoder.hidden(params, inputs))


@partial(jax.jit, static_argnums=0)
def _scores(decoder: Decoder, params: Tree, lora: Tree, data: Data) -> Array:
    return token_scores(Scorer(decoder, params, lora), data)


@partial(jax.jit, static_argnums=(0, 1))
def _generate(
    decoder: Decoder,
    room: int,
    params: Tree,
    tokens: Array,
    lengths: Array,
    limit: Array,
    stops: Array,
) -> tuple[Array, Array]:
    """Greedy tokens (B, room) and how many of them each row keeps (B,). ``stops`` (V,) bool."""
    spec, rows, width = decoder.spec, tokens.shape[0], tokens.shape[1]
    shape = (spec.layers, rows, width + room, spec.kv_heads, spec.head_dim)
    cache = Cache(
        jnp.zeros(shape, decoder.arithmetic.dtype), jnp.zeros(shape, decoder.arithmetic.dtype)
    )
    head = decoder.head(params)
    segments = jnp.ones_like(tokens)

    def following(x: Array) -> Array:  # argmax gives the lowest index among equals
        return jnp.argmax(decoder.logits(head, x), -1).astype(jnp.int32)

    positions = jnp.broadcast_to(jnp.arange(width), tokens.shape)
    prompt = Inputs(tokens, segments, positions, jnp.arange(rows))
    hidden, cache = decoder.extend(params, prompt, cache, jnp.zeros_like(lengths))
    first = following(hidden[jnp.arange(rows), lengths - 1])
    out = jnp.zeros((rows, room), jnp.int32)

    def going(state: Tree) -> Array:
        step, _, done, *_ = state
        return (step < limit) & ~jnp.all(done)

    def advance(state: Tree) -> Tree:
        step, token, done, kept, out, cache = state
        done = done | stops[token]
        out = out.at[:, step].set(jnp.where(done, 0, token))
        kept = kept + ~done
        at = lengths + step
        inputs = Inputs(token[:, None], segments[:, :1], at[:, None], jnp.arange(rows))
        hidden, cache = decoder.extend(params, inputs, cache, at)
        return step + 1, following(hidden[:, 0]), done, kept, out, cache

    none = jnp.zeros(rows, bool)
    state = (jnp.int32(0), first, none, jnp.zeros(rows, jnp.int32), out, cache)
    _, _, _, kept, out, _ = lax.while_loop(going, advance, state)
    return out, kept


def score_batch(
    placement: Placement, decoder: Decoder, params: Tree, lora: Tree, batch: Batch
) -> NDArray[np.float64]:
    """The log-probability of each supervised token, (rows, length); 0.0 elsewhere. A few rows at a
    time."""
    length = length_bucket(batch.tokens.shape[1])
    rows = max(1, min(batch.rows, TOKENS // length))
    rows = math.ceil(rows / placement.devices) * placement.devices
    layout = Layout(rows, length, chunk_size(decoder.spec.vocabulary, rows * max(length - 1, 1)))
    scores = np.zeros(batch.tokens.shape, np.float64)
    for start in range(0, batch.rows, rows):
        data = prepare(batch, start, layout, np.dtype(decoder.arithmetic.dtype))
        found = np.asarray(_scores(decoder, params, lora, placement.rows(data))).reshape(-1)
        at_rows, at_columns = np.nonzero(batch.supervised[start : start + rows])
        scores[start + at_rows, at_columns] = found[: at_rows.size]
    return scores


class Model:
    """A checkpoint in a device's memory, in its stored dtypes (recipelang.backend.LoadedModel)."""

    def __init__(self, placement: Placement, model: Checkpoint, precision: Precision) -> None:
        self._precision: Precision = precision
        self._placement = placement
        spec = make_spec(model.config)
        with scoped(precision):
            self._decoder = Decoder(spec, Arithmetic(precision, jax.default_backend()))
            self._params: Tree = placement.weights(read_params(model, spec))

    def logits(self, batch: Batch) -> NDArray[Any]:
        """(rows, length, vocabulary), float32 (float64 at F64)."""
        rows, length = batch.tokens.shape
        layout = Layout(
            math.ceil(rows / self._placement.devices) * self._placement.devices, length, 1
        )
        with scoped(self._precision):
            inputs = prepare(batch, 0, layout, np.float32).inputs
            return np.asarray(_logits(self._decoder, self._params, self._placement.rows(inputs)))[
                :rows
            ]

    def score(self, batch: Batch) -> NDArray[np.float64]:
        """(rows, length): the log-probability of each supervised token, 0.0 elsewhere."""
        with scoped(self._precision):
            return score_batch(self._placement, self._decoder, self._params, None, batch)

    def decode(
        self, prompts: Sequence[Sequence[int]], *, max_tokens: int, stop: frozenset[int]
    ) -> list[list[int]]:
        """The greedy continuation of each prompt, without it, up to a token of ``stop`` or
        ``max_tokens``."""
        if not prompts or max_tokens < 1:
            return [[] for _ in prompts]
        width = length_bucket(max(len(prompt) for prompt in prompts))
        tokens = np.zeros((len(prompts), width), np.int32)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        stops = np.zeros(self._decoder.spec.vocabulary, np.bool_)
        stops[[token for token in stop if 0 <= token < stops.size]] = True
        room = length_bucket(max_tokens)
        with scoped(self._precision):
            out, kept = _generate(
                self._decoder, room, self._params, tokens, lengths, np.int32(max_tokens), stops
            )
            found, numbers = np.asarray(out), np.asarray(kept)
        return [found[row, : numbers[row]].tolist() for row in range(len(prompts))]

    def close(self) -> None:
        """Free the weights."""
        for leaf in jax.tree.leaves(self._params):
            leaf.delete()
        self._params = None
