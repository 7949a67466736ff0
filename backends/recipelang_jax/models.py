"""The decoder: stacked layers under ``lax.scan``, with the tensor names and layouts of Hugging
Face.

Parameters are a tree ``{"model.embed_tokens.weight": (V, H), "model.norm.weight": (H,),
"lm_head.weight": (V, H) where it is not tied, "layers": {"self_attn.q_proj.weight": (L, out, in),
...}}``. Compilation does not grow with depth, because the layers' body is compiled once.

Shapes: B rows, S tokens, H hidden, N query heads, K key heads of width D, G = N / K queries a key
head, T keys, V vocabulary.

Example:
    >>> decoder = Decoder(spec, Arithmetic("F32"))
    >>> hidden = decoder.hidden(params, inputs)       # (B, S, H)
    >>> logits = decoder.logits(params, hidden)       # (B, S, V)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from recipelang.weights.checkpoint import Checkpoint
from recipelang_jax import adapters
from recipelang_jax.arrays import KEPT, Arithmetic, Array, Tree, named
from recipelang_jax.spec import Spec, Unsupported, expected_tensors

__all__ = ["Cache", "Decoder", "Inputs", "read_params", "unstack_params"]

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
_QUERIES = 512
"""Queries at a time in attention: bounds the scores to (B, N, 512, T)."""


class Inputs(NamedTuple):
    """One micro-batch on the device. ``tokens segments positions`` (B, S) int32; ``rows`` (B,)
    int32: the rows' places in the whole batch of the step, which dropout is keyed by."""

    tokens: Array
    segments: Array
    positions: Array
    rows: Array


class Cache(NamedTuple):
    """Keys and values of earlier tokens, ``(L, B, T, K, D)`` each."""

    keys: Array
    values: Array


class _Scope(NamedTuple):
    """What all layers share: where the queries and keys stand, and the rotary tables (R, B, S, 1,
    D)."""

    cos: Array
    sin: Array
    query_index: Array  # (B, S) place in the row
    query_segment: Array  # (B, S)
    key_segment: Array  # (B, T)
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Decoder:
    """A decoder's computation; hashable. ``recompute``, for the backward pass: True keeps only each
    layer's input, False keeps all, None keeps the matrix products' results and recomputes what is
    cheap (attention's scores among it). ``lora_scale`` and ``dropout`` belong to adapters, if the
    calls bring them. ``constrain`` is applied to the residual stream (sharding)."""

    spec: Spec
    arithmetic: Arithmetic
    recompute: bool | None = False
    lora_scale: float = 1.0
    dropout: float = 0.0
    constrain: Callable[[Array], Array] | None = None

    def hidden(self, params: Tree, inputs: Inputs, lora: Tree = None, keys: Tree = None) -> Array:
        """The last layer's normed output, (B, S, H). ``keys`` are dropout keys (see
        adapters.keys)."""
        scope = self._scope(inputs, inputs.segments)
        stack = (params["layers"], _layers_of(lora), _layers_of(keys), self._flags())

        def body(x: Array, layer: Tree) -> tuple[Array, None]:
            return self._layer(x, layer, scope, None)[0], None

        if self.recompute is not False:
            kept = jax.checkpoint_policies.save_only_these_names(KEPT)
            body = jax.checkpoint(body, prevent_cse=False, policy=None if self.recompute else kept)
        x, _ = lax.scan(body, self._embed(params, inputs.tokens), stack)
        return self._norm(x, params[NORM])

    def extend(
        self, params: Tree, inputs: Inputs, cache: Cache, start: Array
    ) -> tuple[Array, Cache]:
        """Hidden states (B, S, H) of new tokens, row b's at cache slots ``start[b]`` on, and the
        grown cache.

        Every slot up to a query's own is visible to it: rows are single documents without gaps.
        """
        index = start[:, None] + jnp.arange(inputs.tokens.shape[1])
        ones = jnp.ones((cache.keys.shape[1], cache.keys.shape[2]), jnp.int32)
        scope = self._scope(inputs, ones)._replace(
            query_index=index, query_segment=jnp.ones_like(index)
        )
        stack = (params["layers"], None, None, self._flags(), cache)

        def body(x: Array, layer: Tree) -> tuple[Array, Cache]:
            *weights, slots = layer
            return self._layer(x, tuple(weights), scope, slots)

        x, grown = lax.scan(body, self._embed(params, inputs.tokens), stack)
        return self._norm(x, params[NORM]), grown

    def head(self, params: Tree) -> Array:
        """The output matrix (V, H), ready for :meth:`logits`; on a CPU rounded and widened once."""
        weight = params[EMBEDDING if self.spec.tied else HEAD]
        return self.arithmetic.operand(weight) if self.arithmetic.platform == "cpu" else weight

    def logits(self, head: Array, x: Array, lora: Tree = None) -> Array:
        """Logits (..., V) in float32 or wider of hidden states (..., H); ``lora`` is the head's own
        pair."""
        ready = self.arithmetic.platform == "cpu"
        logits = self.arithmetic.contract("...h,vh->...v", x, head, ready=ready)
        if lora is not None:
            logits = logits + adapters.apply(self.arithmetic, x, lora, self.lora_scale, None)
        return _softcap(logits, self.spec.final_softcap)

    def _flags(self) -> Tree:
        return {"sliding": np.array(self.spec.sliding), "rope": np.array(self.spec.rope, np.int32)}

    def _embed(self, params: Tree, tokens: Array) -> Array:
        x = params[EMBEDDING][tokens].astype(self.arithmetic.dtype)
        if self.spec.embedding_scale != 1.0:  # Hugging Face holds the factor in the weights' dtype
            x = x * self.arithmetic.constant(self.spec.embedding_scale)
        return x

    def _scope(self, inputs: Inputs, key_segment: Array) -> _Scope:
        dtype = self.arithmetic.dtype
        inverse = np.stack(
            [rope.inverse_frequencies(self.spec.head_dim) for rope in self.spec.ropes]
        )
        angle = (
            inputs.positions[None, :, :, None].astype(dtype)
            * jnp.asarray(inverse, dtype)[:, None, None]
        )
        angle = jnp.concatenate([angle, angle], -1)[:, :, :, None]
        index = jnp.broadcast_to(jnp.arange(inputs.tokens.shape[1]), inputs.tokens.shape)
        return _Scope(jnp.cos(angle), jnp.sin(angle), index, inputs.segments, key_segment, inputs)

    def _norm(self, x: Array, weight: Array) -> Array:
        """Root-mean-square norm (Zhang & Sennrich 2019, arXiv 1910.07467) over the last axis."""
        weight = weight.astype(self.arithmetic.dtype)
        scaled = x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + self.spec.eps)
        return scaled * (1.0 + weight) if self.spec.plus_one else scaled * weight

    def _layer(
        self, x: Array, layer: Tree, scope: _Scope, cache: Cache | None
    ) -> tuple[Array, Cache]:
        """One decoder layer on ``x (B, S, H)``; with a cache also the layer's keys and values,
        grown."""
        weights, lora, keys, flags = layer
        spec = self.spec

        def project(name: str, x: Array) -> Array:
            y = self.arithmetic.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
            if lora is not None and name in lora:
                drop = None
                if keys is not None:
                    token = jnp.arange(x.shape[1], dtype=jnp.uint32)[None]
                    drop = (
                        self.dropout,
                        keys[name],
                        token,
                        scope.inputs.rows.astype(jnp.uint32)[:, None],
                    )
                y = y + adapters.apply(self.arithmetic, x, lora[name], self.lora_scale, drop)
            return named(y)

        mixed, grown = self._attention(
            self._norm(x, weights["input_layernorm.weight"]), weights, flags, scope, cache, project
        )
        after = weights["post_attention_layernorm.weight"]
        x = self._add(x, self._norm(mixed, after) if spec.sandwich else mixed)
        before = weights["pre_feedforward_layernorm.weight"] if spec.sandwich else after
        inner = self._norm(x, before)
        gate = project("mlp.gate_proj", inner)
        gate = (
            jax.nn.gelu(gate, approximate=True)
            if spec.activation == "gelu_tanh"
            else jax.nn.silu(gate)
        )
        inner = project("mlp.down_proj", gate * project("mlp.up_proj", inner))
        if spec.sandwich:
            inner = self._norm(inner, weights["post_feedforward_layernorm.weight"])
        return self._add(x, inner), grown

    def _add(self, x: Array, change: Array) -> Array:
        x = x + change
        return self.constrain(x) if self.constrain is not None else x

    def _attention(
        self, x: Array, weights: Tree, flags: Tree, scope: _Scope, cache: Cache | None,
        project: Callable[[str, Array], Array],
    ) -> tuple[Array, Any]:  # fmt: skip
        spec, (rows, length, _) = self.spec, x.shape

        def heads(name: str, number: int) -> Array:
            return project(f"self_attn.{name}_proj", x).reshape(rows, length, number, spec.head_dim)

        query, key, value = (
            heads("q", spec.heads),
            heads("k", spec.kv_heads),
            heads("v", spec.kv_heads),
        )
        if spec.qk_norm:
            query = self._norm(query, weights["self_attn.q_norm.weight"])
            key = self._norm(key, weights["self_attn.k_norm.weight"])
        cos, sin = scope.cos[flags["rope"]], scope.sin[flags["rope"]]
        query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
        if cache is not None:
            row = jnp.arange(rows)[:, None]
            cache = Cache(
                cache.keys.at[row, scope.query_index].set(key),
                cache.values.at[row, scope.query_index].set(value),
            )
            key, value = cache.keys, cache.values
        mixed = named(self._attend(query, key, value, scope, flags["sliding"]))
        return project("self_attn.o_proj", mixed.reshape(rows, length, -1)), cache

    def _attend(
        self, query: Array, key: Array, value: Array, scope: _Scope, sliding: Array
    ) -> Array:
        """Softmax attention, causal inside a segment: query (B, S, N, D), key and value (B, T, K,
        D)."""
        spec, (rows, length, _, width) = self.spec, query.shape
        grouped = query.reshape(rows, length, spec.kv_heads, -1, width)
        key_index = jnp.arange(key.shape[1])

        def block(query: Array, index: Array, segment: Array) -> Array:
            scores = self.arithmetic.contract("bskgd,btkd->bkgst", query, key) * spec.scale
            scores = _softcap(scores, spec.attention_softcap)
            distance = index[:, :, None] - key_index
            visible = (distance >= 0) & (segment[:, :, None] == scope.key_segment[:, None])
            if spec.window:
                near = distance < spec.window
                visible &= near if all(spec.sliding) else near | ~sliding
            scores = jnp.where(visible[:, None, None], scores, -1e30)
            return self.arithmetic.contract("bkgst,btkd->bskgd", jax.nn.softmax(scores, -1), value)

        if length <= _QUERIES:
            return block(grouped, scope.query_index, scope.query_segment).reshape(query.shape)
        pieces = math.ceil(length / _QUERIES)

        def cut(x: Array) -> Array:
            padding = [(0, 0), (0, pieces * _QUERIES - length)] + [(0, 0)] * (x.ndim - 2)
            return jnp.pad(x, padding).reshape(rows, pieces, _QUERIES, *x.shape[2:]).swapaxes(0, 1)

        parts = (cut(grouped), cut(scope.query_index), cut(scope.query_segment))
        mixed = lax.map(jax.checkpoint(lambda part: block(*part)), parts)
        return mixed.swapaxes(0, 1).reshape(rows, -1, *query.shape[2:])[:, :length]


def _layers_of(tree: Tree) -> Tree:
    return None if tree is None else tree["layers"]


def _softcap(x: Array, cap: float) -> Array:
    return jnp.tanh(x / cap) * cap if cap else x


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotary positions on ``x (B, S, heads, D)``, pairs (i, i + D/2)."""
    first, second = jnp.split(x, 2, -1)
    return x * cos + jnp.concatenate([-second, first], -1) * sin


def read_params(model: Checkpoint, spec: Spec) -> Tree:
    """The checkpoint's parameters as numpy arrays in their stored dtypes, layers stacked.

    Raises Unsupported when a checkpoint of a tied model brings another output matrix.
    """
    shapes = expected_tensors(spec)
    places: dict[str, list[str]] = {}
    for name in shapes:
        layer, inner = adapters.split_name(name)
        if layer is not None:
            places.setdefault(inner, []).append(name)
    params: dict[str, Any] = {"layers": {}}
    for name, shape in shapes.items():
        if adapters.split_name(name)[0] is None:
            params[name] = model.read(name).reshape(shape)
    for inner, names in places.items():
        first = model.read(names[0])
        dtype = first.dtype
        for name in names[1:]:
            dtype = np.promote_types(dtype, model.read(name, 0, 1).dtype)
        room = np.empty((len(names), *shapes[names[0]]), dtype)
        for layer, name in enumerate(names):
            room[layer] = model.read(name).reshape(room.shape[1:])
            model.release(name)
        params["layers"][inner] = room
    if (
        spec.tied
        and HEAD in model.tensors
        and not np.array_equal(model.read(HEAD), model.read(EMBEDDING))
    ):
        raise Unsupported(
            "a checkpoint whose `lm_head.weight` differs from the embedding it is tied to"
        )
    return params


def unstack_params(tree: Tree, names: frozenset[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The named tensors of a parameter tree, by checkpoint name and shape, in name order."""
    out: dict[str, np.ndarray[Any, Any]] = {}
    host = jax.tree.map(np.asarray, tree)
    for name in sorted(names):
        layer, inner = adapters.split_name(name)
        out[name] = (
            host[name] if layer is None else np.ascontiguousarray(host["layers"][inner][layer])
        )
    return out
