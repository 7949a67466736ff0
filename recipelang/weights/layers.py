"""Layers of a model: which one a tensor belongs to, and models made of some of them.

Example:
    >>> layer_of("model.layers.12.mlp.up_proj.weight"), layer_of("model.norm.weight")
    (12, None)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from recipelang.types import ModelType, TensorInfo
from recipelang.weights.config import LAYER_LISTS
from recipelang.weights.strict_json import as_list

__all__ = ["evenly_spaced", "layer_of", "renumbered", "select_layers"]

NUMBER = re.compile(r"(?<=\.)(\d+)(?=\.)")


def layer_of(name: str) -> int | None:
    """The layer that a tensor belongs to: the first component of its name that is a number."""
    match = NUMBER.search(name)
    return int(match[1]) if match else None


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


def select_layers(model: ModelType, keep: Sequence[int]) -> ModelType:
    """The type of the model that has these layers, renumbered from 0."""
    assert model.config is not None
    assert model.tensors is not None
    tensors: dict[str, TensorInfo] = {}
    place = {old: new for new, old in enumerate(keep)}
    for name, info in model.tensors.items():
        layer = layer_of(name)
        if layer is None:
            tensors[name] = info
        elif layer in place:
            tensors[renumbered(name, place[layer])] = info
    config = _select_config(model.config, keep)
    return ModelType(config, dict(sorted(tensors.items())), model.tokenizer, model.chat_template)


def _select_config(config: Mapping[str, object], keep: Sequence[int]) -> dict[str, object]:
    count = config["num_hidden_layers"]
    changed = dict(config) | {"num_hidden_layers": len(keep)}
    for key in LAYER_LISTS:
        value = as_list(config.get(key))
        if value is not None and len(value) == count:
            changed[key] = [value[i] for i in keep]
    windows = config.get("max_window_layers")  # Qwen: layers from this one on have a sliding window
    if isinstance(windows, int):
        changed["max_window_layers"] = sum(1 for layer in keep if layer < windows)
    return changed
