"""Layers of a model: which one a tensor belongs to, and models made of some of them.

Example:
    >>> layer_of("model.layers.12.mlp.up_proj.weight"), layer_of("model.norm.weight")
    (12, None)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recipelang.ops.spec import Fault
from recipelang.types import ModelType, TensorInfo
from recipelang.weights.config import LAYER_LISTS, LEADING_LAYERS
from recipelang.weights.strict_json import as_list

__all__ = [
    "count_layers", "evenly_spaced", "layer_of", "renumbered", "select_layers", "stands_before",
]  # fmt: skip

NUMBER = re.compile(r"(?<=\.)(\d+)(?=\.)")
BEFORE = re.compile(r"embed(?!_out)|wte|wpe")
"""Names of tensors that stand before the layers; what is in no layer and not here stands after."""


def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to: the first component of its name that is a number."""
    match = NUMBER.search(name)
    return int(match[1]) if match else None


def stands_before(name: str) -> bool:
    """Whether a tensor that is in no layer stands before them all: the embeddings do, the last norm
    and the head stand after.

    >>> stands_before("model.embed_tokens.weight"), stands_before("lm_head.weight")
    (True, False)
    """
    return BEFORE.search(name) is not None


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
    count = config["num_hidden_layers"]
    changed = dict(config) | {"num_hidden_layers": len(keep)}
    for key in LAYER_LISTS:
        value = as_list(config.get(key))
        if value is not None and len(value) == count:
            changed[key] = [value[i] for i in keep]
    for key in LEADING_LAYERS:
        leading = config.get(key)
        if isinstance(leading, int):
            changed[key] = sum(1 for layer in keep if layer < leading)
    return changed
