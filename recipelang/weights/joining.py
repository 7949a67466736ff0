"""Whether the tensors of two models can be put together one by one, by name and shape alone.

Three things may differ. An output head that is apart in one model and tied to the embedding in the
other (:mod:`recipelang.weights.embeddings`): the result's is apart. The number of rows of tensors
with a row a token (:mod:`recipelang.weights.alignment`). And *buffers*, which follow from the
configuration and are stored by some versions of some libraries only: the result has the subject's,
as it is, or none.

Example:
    >>> is_buffer("model.layers.0.self_attn.rotary_emb.inv_freq", (32,))
    True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from recipelang.ops.spec import Fault
from recipelang.types import ModelType, TensorInfo
from recipelang.weights.embeddings import (
    is_head,
    own_heads,
    stored_name,
    tie,
    untied,
    vocabulary_rows,
    with_rows,
)

__all__ = ["Placed", "check_heads", "check_tables", "is_buffer", "with_heads", "without_buffers"]

Placed: TypeAlias = tuple[str, str, ModelType]
"""A model of an operation: its role there (``inputs[1]``), what messages call it, its type."""

BUFFERS = frozenset({
    "inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "position_ids", "token_type_ids",
    "masked_bias", "relative_position_index",
})  # fmt: skip


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor follows from the configuration: rotary frequencies, positions, the causal
    masks of GPT-2 (``attn.bias`` with four axes)."""
    last = name.rpartition(".")[2]
    return last in BUFFERS or (last == "bias" and len(shape) == 4)


def check_heads(name: str, a: ModelType, at: str, other: str, b: ModelType) -> None:
    """Fault E0601 where a tied head and one apart mean different things: an encoder-decoder of T5's
    kind scales what goes into a tied head."""
    heads = own_heads(a), own_heads(b)
    if bool(heads[0]) == bool(heads[1]) or a.tensors is None or b.tensors is None:
        return
    if any((m.config or {}).get("is_encoder_decoder") is True for m in (a, b)):
        tied, apart = (name, other) if heads[1] else (other, name)
        raise Fault(
            "E0601",
            f"`{apart}` keeps its output head apart from its embedding, `{tied}` does not, and "
            "an encoder-decoder scales the two differently",
            at=at,
            help="merge models whose `tie_word_embeddings` is the same",
        )


def check_tables(name: str, a: ModelType, at: str, other: str, b: ModelType) -> None:
    """Fault E0603 for tensors that one model lacks, E0601 for the first of another shape."""
    if a.tensors is None or b.tensors is None:
        return
    rows = vocabulary_rows(a), vocabulary_rows(b)
    known = a.tokenizer is not None and b.tokenizer is not None
    missing: list[tuple[str, bool]] = []
    for tensor in sorted(set(a.tensors) | set(b.tensors)):
        mine, theirs = stored_name(a, tensor), stored_name(b, tensor)
        if mine is None or theirs is None:
            info = a.tensors.get(tensor) or b.tensors[tensor]
            if not is_buffer(tensor, info.shape):
                missing.append((tensor, mine is None))
            continue
        left, right = a.tensors[mine], b.tensors[theirs]
        if known and mine in rows[0] and theirs in rows[1]:
            right = with_rows(right, rows[0][mine])
        if left.shape != right.shape:
            raise Fault(
                "E0601", f"`{name}` and `{other}` have different shapes: `{tensor}` is "
                f"{list(left.shape)} and {list(right.shape)}", at=at,
                help="merge models of one family and size",
            )  # fmt: skip
    if missing:
        tensor, first_lacks = missing[0]
        lacks, has = (name, other) if first_lacks else (other, name)
        alike = sum(one == first_lacks for _, one in missing) - 1
        more = f", and lacks {alike} more of its tensors" if alike else ""
        raise Fault(
            "E0603", f"`{lacks}` has no tensor `{tensor}`, which `{has}` has{more}", at=at,
            help="merge models of one architecture and version",
        )  # fmt: skip


def without_buffers(first: ModelType, other: ModelType) -> ModelType:
    """The first model's type without the buffers that the other lacks: those of a difference."""
    if first.tensors is None or other.tensors is None:
        return first
    tensors = {
        name: info for name, info in first.tensors.items()
        if name in other.tensors or not is_buffer(name, info.shape)
    }  # fmt: skip
    return ModelType(first.config, tensors, first.tokenizer, first.chat_template)


def with_heads(first: ModelType, models: Sequence[ModelType]) -> ModelType:
    """The first model's type with every output head that any of them keeps apart, and a
    configuration that says so; without the copies that tied models store."""
    if first.tensors is None:
        return first
    heads: dict[str, TensorInfo] = {}
    for model in models:
        for head in sorted(own_heads(model)):
            heads.setdefault(head, (model.tensors or {})[head])
    tensors = dict(first.tensors)
    rows = vocabulary_rows(first)
    for name in rows:
        if is_head(name) and name not in heads and tie(first.config or {}) is True:
            del tensors[name]
    for head, info in heads.items():
        mine = stored_name(first, head)
        if mine is not None:
            same = with_rows(info, rows[mine]) if mine in rows else info
            tensors[head] = TensorInfo(first.tensors[mine].dtype, same.shape)
    if tensors.keys() == first.tensors.keys() and not (heads and tie(first.config or {})):
        return first
    config = first.config
    if heads and config is not None:
        config = untied(config)
    return ModelType(config, dict(sorted(tensors.items())), first.tokenizer, first.chat_template)
