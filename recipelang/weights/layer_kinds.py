"""Configurations that tell a layer's kind by its number: every sixth attends to everything, every
second has experts.

Where a list says of each layer what it is (``layer_types``), the list moves with the layers. A
period does not: a layer that is moved becomes one of another kind.

Example:
    >>> config = {"model_type": "gemma3_text", "sliding_window_pattern": 6}
    >>> moved(config, [(config, 4), (config, 5), (config, 5)])
    Moved(key='sliding_window_pattern', period=6, place=1, layer=5)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipelang.weights.strict_json import as_list

__all__ = ["Moved", "moved"]


@dataclass(frozen=True, slots=True)
class Period:
    """Layers i with i mod period = rest are of the other kind. The period is the value of a key;
    the rest is the value of ``offset`` where that is a key, else the last of the period or 0.
    ``unless`` is the list that takes the key's place."""

    unless: str = ""
    offset: str = ""
    last: bool = True


PERIODS: Mapping[str, Period] = {
    "sliding_window_pattern": Period("layer_types"),
    "full_attention_interval": Period("layer_types"),
    "global_attn_every_n_layers": Period("layer_types", last=False),
    "no_rope_layer_interval": Period("no_rope_layers"),
    "interleave_moe_layer_step": Period(),
    "decoder_sparse_step": Period(),
    "moe_layer_freq": Period(last=False),
    "attn_layer_period": Period(offset="attn_layer_offset"),
    "expert_layer_period": Period(offset="expert_layer_offset"),
}
UNWRITTEN: Mapping[str, int] = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""``sliding_window_pattern`` by ``model_type`` where the configuration does not hold it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The first layer that becomes one of another kind: it was ``layer`` of its model, and is
    ``place`` of the new one."""

    key: str
    period: int
    place: int
    layer: int


def moved(
    config: Mapping[str, object], layers: Sequence[tuple[Mapping[str, object], int]]
) -> Moved | None:
    """The first of the layers, each with the configuration of its model and its number there, that
    is of another kind where it stands in a model with ``config``; None where there is none."""
    for key, period in _periods(config).items():
        for place, (own, layer) in enumerate(layers):
            if _is_other(key, config, period, place) != _is_other(
                key, own, _periods(own).get(key, 1), layer
            ):
                return Moved(key, period, place, layer)
    return None


def _periods(config: Mapping[str, object]) -> dict[str, int]:
    """The keys that decide anything, with their periods."""
    given = dict(config)
    usual = UNWRITTEN.get(str(config.get("model_type")))
    if usual is not None:
        given.setdefault("sliding_window_pattern", usual)
    found: dict[str, int] = {}
    for key, period in PERIODS.items():
        value = given.get(key)
        if type(value) is int and value > 1 and as_list(given.get(period.unless)) is None:
            found[key] = value
    return found


def _is_other(key: str, config: Mapping[str, object], period: int, layer: int) -> bool:
    if period == 1:
        return False
    known = PERIODS[key]
    offset = config.get(known.offset)
    rest = offset if type(offset) is int else (period - 1 if known.last else 0)
    return layer % period == rest % period
