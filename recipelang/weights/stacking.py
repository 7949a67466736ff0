"""A model stacked from the layers of several: its type, and which slice each tensor comes from.

The slices' layers follow each other, renumbered from 0. What stands before the layers comes from
the first slice, what stands behind them from the last; the configuration is the first one's, with
what it says of single layers rewritten.

Example:
    >>> slice_of("model.layers.17.mlp.up_proj.weight", (16, 16))
    (1, 'model.layers.1.mlp.up_proj.weight')
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from recipelang.ops.spec import Fault
from recipelang.types import ModelType, TensorInfo, layers_key
from recipelang.weights.compatibility import check_stackable
from recipelang.weights.config import LAYER_LISTS, LAYER_NUMBERS, LEADING_LAYERS
from recipelang.weights.layers import count_layers, layer_of, renumbered, stands_before
from recipelang.weights.metadata import recast
from recipelang.weights.strict_json import as_list

__all__ = ["Slice", "slice_of", "stacked_type"]


@dataclass(frozen=True, slots=True)
class Slice:
    """Layers of one model. ``at`` is its role in the operation, ``name`` its name for messages,
    ``model`` the type of the model that has just these layers."""

    at: str
    name: str
    model: ModelType


def slice_of(tensor: str, depths: Sequence[int]) -> tuple[int, str]:
    """The slice that a tensor of the stack comes from, and its name there. ``depths`` are the
    slices' numbers of layers."""
    layer = layer_of(tensor)
    if layer is None:
        return (0 if stands_before(tensor) else len(depths) - 1), tensor
    index = 0
    while layer >= depths[index]:
        layer -= depths[index]
        index += 1
    return index, renumbered(tensor, layer)


def stacked_type(slices: Sequence[Slice]) -> ModelType:
    """The type of the stack, as far as those of the slices are known. A slice whose main dtype is
    not the first one's is rounded to that.

    Raises Fault E0601, E0602 for models that do not fit together, E0633 where the configuration
    cannot say what the layers are.
    """
    check_stackable([(s.at, s.name, s.model) for s in slices])
    _check_shapes(slices)
    first = slices[0].model
    counts = [count_layers(s.model, s.name, s.at) for s in slices]
    depths = [count for count in counts if count is not None]
    if len(depths) < len(slices):
        return ModelType(None, None, first.tokenizer, first.chat_template)
    config = _config(slices, depths)
    return ModelType(config, _tensors(slices, depths), first.tokenizer, first.chat_template)


# ---------------------------------------------------------------- tensors


def _check_shapes(slices: Sequence[Slice]) -> None:
    """What the slices' models have outside their layers has one shape: the embeddings tell the
    width, also where the configuration has other words for it. Layers themselves may differ."""
    known: dict[str, tuple[str, TensorInfo]] = {}
    for one in slices:
        for name, info in (one.model.tensors or {}).items():
            if layer_of(name) is not None:
                continue
            first, wanted = known.setdefault(name, (one.name, info))
            if info.shape != wanted.shape:
                raise Fault(
                    "E0601", f"`{first}` and `{one.name}` have different shapes: `{name}` is "
                    f"{list(wanted.shape)} and {list(info.shape)}", at=one.at,
                    help="stack layers of models of one family and size",
                )  # fmt: skip


def _tensors(slices: Sequence[Slice], depths: Sequence[int]) -> dict[str, TensorInfo] | None:
    """The table, None where that of a slice is not known."""
    found: dict[str, TensorInfo] = {}
    wanted = slices[0].model.dtype
    start = 0
    for index, (one, depth) in enumerate(zip(slices, depths, strict=True)):
        if one.model.tensors is None:
            return None
        table = recast(one.model.tensors, None if one.model.dtype == wanted else wanted)
        for name, info in table.items():
            layer = layer_of(name)
            stacked = name if layer is None else renumbered(name, start + layer)
            if slice_of(stacked, depths)[0] == index:
                found[stacked] = info
        start += depth
    return dict(sorted(found.items()))


# ---------------------------------------------------------------- configuration


def _config(slices: Sequence[Slice], depths: Sequence[int]) -> dict[str, object]:
    """The first configuration with the number of layers and what there is of each."""
    config = dict(slices[0].model.config or {})
    config[layers_key(config)] = sum(depths)
    for key in LAYER_LISTS:
        kinds = _kinds(key, slices, depths)
        if kinds is not None:
            config[key] = kinds
    for key in LAYER_NUMBERS:
        numbers = [as_list((one.model.config or {}).get(key)) for one in slices]
        if any(numbers) or numbers[0] is not None:
            starts = accumulate(depths, initial=0)
            config[key] = [
                start + layer for start, depth, found in zip(starts, depths, numbers, strict=False)
                for layer in range(depth) if layer in (found or ())
            ]  # fmt: skip
    for key in LEADING_LAYERS:
        if isinstance(config.get(key), int):
            config[key] = _leading(key, slices, depths, matters=_matters(key, config))
    return config


def _kinds(key: str, slices: Sequence[Slice], depths: Sequence[int]) -> list[object] | None:
    """A list with an element a layer, joined; None where the first slice has none. A slice without
    it is taken to be like the others where those are the same throughout."""
    lists: list[list[object] | None] = []
    for one, depth in zip(slices, depths, strict=True):
        found = as_list((one.model.config or {}).get(key))
        lists.append(list(found) if found is not None and len(found) == depth else None)
    known = [item for found in lists if found is not None for item in found]
    if None in lists and any(item != known[0] for item in known):
        lacking, having = (
            slices[next(i for i, x in enumerate(lists) if (x is None) == lacks)] for lacks in (1, 0)
        )
        raise Fault(
            "E0633",
            f"`{having.name}` says of each layer what it is, in `{key}`, and `{lacking.name}` "
            "does not",
            at=lacking.at,
            help=f"write `{key}` into the `config.json` of `{lacking.name}`",
        )
    if lists[0] is None:
        return None
    return [
        item
        for found, depth in zip(lists, depths, strict=True)
        for item in (found or [known[0]] * depth)
    ]


def _leading(key: str, slices: Sequence[Slice], depths: Sequence[int], *, matters: bool) -> int:
    """How many leading layers of the stack are of the other kind. Raises Fault E0633 where that
    matters and such layers stand behind others."""
    total, closed = 0, ""
    for one, depth in zip(slices, depths, strict=True):
        value = (one.model.config or {}).get(key)
        leading = min(value, depth) if isinstance(value, int) else 0
        if leading and closed and matters:
            raise Fault(
                "E0633",
                f"`{key}` counts the first layers of a model, and here such layers of "
                f"`{one.name}` stand behind others of `{closed}`",
                at=one.at,
                help="put the slices that hold first layers in front",
            )
        closed = closed or (one.name if leading < depth else "")
        total += leading
    return total


def _matters(key: str, config: dict[str, object]) -> bool:
    """Whether the key decides anything: windows do where they are used and no list names them."""
    if key != "max_window_layers":
        return True
    return config.get("use_sliding_window") is True and config.get("layer_types") is None
