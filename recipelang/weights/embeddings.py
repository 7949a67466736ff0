"""Which tensors of a model have a row a token, and which of them is an output head.

A tensor is of the vocabulary when it is in no layer, its module is called as embeddings and heads
are (:data:`EMBEDDINGS`, :data:`HEADS`), and it has at least as many rows as the configuration's
``vocab_size``. Rows run along the first axis that is longer than one: also for a head's bias, also
for BART's ``final_logits_bias`` of shape (1, rows).

A model without a tensor for its head uses its embedding as head: it is *tied*. A configuration that
says so has the last word where both are stored.

Example:
    >>> from recipelang.types import ModelType, TensorInfo
    >>> table = {"model.embed_tokens.weight": TensorInfo("BF16", (128, 16))}
    >>> vocabulary_rows(ModelType({"vocab_size": 120}, table))
    {'model.embed_tokens.weight': 128}
    >>> stored_name(ModelType({"vocab_size": 120}, table), "lm_head.weight")
    'model.embed_tokens.weight'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from recipelang.types import ModelType, TensorInfo
from recipelang.weights.layers import layer_of
from recipelang.weights.strict_json import as_object

__all__ = [
    "is_head",
    "own_heads",
    "rows_of",
    "sections",
    "set_vocabulary_size",
    "stored_name",
    "take_vocabulary",
    "tie",
    "untied",
    "vocabulary_rows",
    "vocabulary_size",
    "with_rows",
]

EMBEDDINGS = frozenset({
    "embed_tokens", "wte", "word_embeddings", "embed_in", "shared", "tok_embeddings",
    "token_embedding", "word_embedding", "embedding", "embeddings",
})  # fmt: skip
HEADS = frozenset({
    "lm_head", "embed_out", "output", "output_layer", "vocab_projector", "generator_lm_head",
    "decoder", "proj_out",
})  # fmt: skip
BIASES = frozenset({"predictions", "final_logits_bias"})
"""Modules that hold a bias of the head beside HEADS: ``cls.predictions.bias``."""
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
TOKEN_ID = re.compile(r"_token_(id|ids|index)\Z")
TEXT_SECTIONS = ("text_config", "language_config", "llm_config")
"""Where the configuration of a multimodal model keeps that of its decoder."""


def rows_of(info: TensorInfo) -> int:
    """The length of the first axis that is longer than one."""
    return next((n for n in info.shape if n != 1), 1)


def with_rows(info: TensorInfo, rows: int) -> TensorInfo:
    """The row of the table with another number of rows."""
    axis = next((i for i, n in enumerate(info.shape) if n != 1), 0)
    return TensorInfo(info.dtype, (*info.shape[:axis], rows, *info.shape[axis + 1 :]))


def sections(config: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The configuration (under the empty name), then the objects in it, in the order of their
    keys."""
    yield "", config
    for key in sorted(config):
        inner = as_object(config[key])
        if inner is not None:
            yield key, inner


def vocabulary_size(config: Mapping[str, object]) -> int | None:
    """``vocab_size`` of the model, or of the decoder in it."""
    places = [config, *(as_object(config.get(key)) or {} for key in TEXT_SECTIONS)]
    found = [place.get("vocab_size") for place in places]
    return next((size for size in found if isinstance(size, int)), None)


def vocabulary_rows(model: ModelType) -> dict[str, int]:
    """Tensor with a row a token -> its number of rows, which padding may make more than
    tokens."""
    least = vocabulary_size(model.config or {}) or 0
    return {
        name: rows_of(info)
        for name, info in (model.tensors or {}).items()
        if info.dtype in FLOATS
        and layer_of(name) is None
        and _module(name) in EMBEDDINGS | HEADS | BIASES
        and rows_of(info) >= least
    }


def tie(config: Mapping[str, object]) -> bool | None:
    """What the configuration says of head and embedding being one; None where it says nothing."""
    places = [config, *(as_object(config.get(key)) or {} for key in TEXT_SECTIONS)]
    found = [place.get("tie_word_embeddings") for place in places]
    return next((said for said in found if isinstance(said, bool)), None)


def is_head(name: str) -> bool:
    """Whether the tensor is named as the weight of an output head is."""
    return name.endswith(".weight") and _module(name) in HEADS and layer_of(name) is None


def own_heads(model: ModelType) -> frozenset[str]:
    """The weights of output heads that the model keeps apart from its embedding."""
    if tie(model.config or {}) is True:
        return frozenset()
    return frozenset(name for name in vocabulary_rows(model) if is_head(name))


def stored_name(model: ModelType, name: str) -> str | None:
    """The tensor that stands for ``name`` in this model: itself, the embedding for a head that is
    tied to it, or None."""
    tensors = model.tensors or {}
    itself = name if name in tensors else None
    tied = tie(model.config or {})
    if not is_head(name) or tied is False or (itself and tied is None):
        return itself
    rows = vocabulary_rows(model)
    if itself and name not in rows:
        return itself
    embeddings = (
        n for n in sorted(rows) if _module(n) in EMBEDDINGS and len(tensors[n].shape) == 2
    )
    return next(embeddings, itself)


def untied(config: Mapping[str, object]) -> dict[str, object]:
    """The configuration of a model whose head is apart; said in every section that says anything
    of it."""
    changed = _changed(config, "tie_word_embeddings", lambda value: False)
    return changed | {"tie_word_embeddings": False}


def set_vocabulary_size(config: Mapping[str, object], old: int, new: int) -> dict[str, object]:
    """The configuration with another ``vocab_size``, in every section that has the old one."""
    return _changed(config, "vocab_size", lambda value: new if value == old else value)


def take_vocabulary(config: Mapping[str, object], donor: Mapping[str, object]) -> dict[str, object]:
    """The configuration with the ``vocab_size`` and the ids of special tokens of another one,
    section by section."""

    def taken(mine: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
        kept = {k: v for k, v in mine.items() if not _of_vocabulary(k)}
        return kept | {k: v for k, v in other.items() if _of_vocabulary(k)}

    result = taken(config, donor)
    for name, inner in sections(config):
        other = as_object(donor.get(name)) if name else None
        if other is not None:
            result[name] = taken(inner, other)
    return result


def _of_vocabulary(key: str) -> bool:
    return key == "vocab_size" or TOKEN_ID.search(key) is not None


def _changed(
    config: Mapping[str, object], key: str, change: Callable[[object], object]
) -> dict[str, object]:
    result = dict(config)
    for name, inner in sections(config):
        if key not in inner:
            continue
        if name:
            result[name] = dict(inner) | {key: change(inner[key])}
        else:
            result[key] = change(inner[key])
    return result


def _module(name: str) -> str:
    """The last component of the name that is neither ``weight`` nor ``bias``."""
    parts = name.split(".")
    return parts[-2] if parts[-1] in ("weight", "bias") and len(parts) > 1 else parts[-1]
