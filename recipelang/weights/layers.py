"""Layers of a model: which one a tensor belongs to, and models made of some of them.

All of it follows from the names of the tensors. A *stack* is what has the same name up to the first
component that is a number, which is the layer; later numbers (experts, the parts of a block) count
nothing. So a vision-language model has two stacks, of its vision tower and of its decoder, and an
encoder-decoder has two as well, each with a depth of its own from 0 at its first layer to 1 at its
last. What is in no stack stands before the layers (depth 0) where it is named as embeddings and
stems are, else after them (depth 1): norms, heads, projectors between two towers.

Example:
    >>> layer_of("model.layers.12.mlp.up_proj.weight"), layer_of("model.norm.weight")
    (12, None)
    >>> depth_of("encoder.block.1.layer.0.SelfAttention.q.weight", {"encoder.block": 3})
    0.5
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from recipelang.ops.spec import Fault
from recipelang.types import ModelType, TensorInfo, layers_key
from recipelang.weights.config import LAYER_LISTS, LAYER_NUMBERS, LEADING_LAYERS
from recipelang.weights.strict_json import as_list

__all__ = [
    "count_layers",
    "depth_of",
    "evenly_spaced",
    "layer_of",
    "renumbered",
    "select_layers",
    "stack_lengths",
    "stack_of",
    "stands_before",
]

NUMBER = re.compile(r"(?<=\.)(\d+)(?=\.)")
BEFORE = re.compile(
    r"embed(?!_out)|wte|wpe|(\A|\.)(shared|stem|pre_\w*norm|ln_pre|conv1|cls_token|class_token)\b"
)
"""Names of tensors that stand before the layers; what is in no layer and not here stands after."""


def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to: the first component of its name that is a number."""
    match = NUMBER.search(name)
    return int(match[1]) if match else None


def stack_of(name: str) -> str | None:
    """The stack of layers that a tensor is in: its name before the first number.

    >>> stack_of("vision_tower.encoder.layers.3.mlp.fc1.weight")
    'vision_tower.encoder.layers'
    """
    match = NUMBER.search(name)
    return name[: match.start() - 1] if match else None


def stack_lengths(names: Iterable[str]) -> dict[str, int]:
    """Stack -> how many layers it has: one more than its highest number.

    >>> stack_lengths(["h.0.attn.w", "h.1.attn.w", "h.1.mlp.experts.7.w", "norm.w"])
    {'h': 2}
    """
    lengths: dict[str, int] = {}
    for name in names:
        stack, layer = stack_of(name), layer_of(name)
        if stack is not None and layer is not None:
            lengths[stack] = max(layer + 1, lengths.get(stack, 0))
    return lengths


def stands_before(name: str) -> bool:
    """Whether a tensor that is in no layer stands before them all: the embeddings do, the last norm
    and the head stand after.

    >>> stands_before("model.embed_tokens.weight"), stands_before("lm_head.weight")
    (True, False)
    """
    return BEFORE.search(name) is not None


def depth_of(name: str, stacks: Mapping[str, int]) -> float:
    """Where a tensor stands in its stack, from 0 to 1: layer i of L at i / (L - 1), a single layer
    at 0. ``stacks`` are those of :func:`stack_lengths`."""
    stack, layer = stack_of(name), layer_of(name)
    if stack is None or layer is None:
        return 0.0 if stands_before(name) else 1.0
    return min(1.0, layer / max(1, stacks.get(stack, 1) - 1))


def renumbered(name: str, layer: int) -> str:
    """The name with another layer.

    >>> renumbered("model.layers.3.mlp.up_proj.weight", 1)
    'model.layers.1.mlp.up_proj.weight'
    """
    return NUMBER.sub(str(layer), name, count=1)


def evenly_spaced(count: int, wanted: int) -> tuple[int, ...]:
    """``wanted`` of ``count`` layers, the first and the last among them (the first alone for one).

    >>> evenly_spaced(30, 4)
    (0, 10, 19, 29)
    """
    if wanted == 1:
        return (0,)
    return tuple((i * (count - 1) + (wanted - 1) // 2) // (wanted - 1) for i in range(wanted))


def count_layers(model: ModelType, name: str, at: str) -> int | None:
    """How many layers the model has, None where nothing is known of it.

    ``name`` and ``at`` are its name for messages and its role. Raises Fault E0630 where its
    configuration does not say.
    """
    if model.config is None or model.layers is not None:
        return model.layers
    raise Fault(
        "E0630",
        f"how many layers `{name}` has is not known",
        at=at,
        help="its `config.json` needs `num_hidden_layers`",
    )


def select_layers(model: ModelType, keep: Sequence[int]) -> ModelType:
    """The type of the model that has these layers, renumbered from 0; as far as the model's own is
    known."""
    config = None if model.config is None else _select_config(model.config, keep)
    tensors = None if model.tensors is None else _select_tensors(model.tensors, keep)
    return ModelType(config, tensors, model.tokenizer, model.chat_template)


def _select_tensors(
    tensors: Mapping[str, TensorInfo], keep: Sequence[int]
) -> dict[str, TensorInfo]:
    kept: dict[str, TensorInfo] = {}
    place = {old: new for new, old in enumerate(keep)}
    for name, info in tensors.items():
        layer = layer_of(name)
        if layer is None:
            kept[name] = info
        elif layer in place:
            kept[renumbered(name, place[layer])] = info
    return dict(sorted(kept.items()))


def _select_config(config: Mapping[str, object], keep: Sequence[int]) -> dict[str, object]:
    key = layers_key(config)
    count = config[key]
    changed = dict(config) | {key: len(keep)}
    for key in LAYER_LISTS:
        value = as_list(config.get(key))
        if value is not None and len(value) == count:
            changed[key] = [value[i] for i in keep]
    for key in LAYER_NUMBERS:
        value = as_list(config.get(key))
        if value is not None:
            changed[key] = [new for new, old in enumerate(keep) if old in value]
    for key in LEADING_LAYERS:
        leading = config.get(key)
        if isinstance(leading, int):
            changed[key] = sum(1 for layer in keep if layer < leading)
    return changed
