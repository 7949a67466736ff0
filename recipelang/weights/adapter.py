"""Low-rank adapters in PEFT's file format (``adapter_config.json``, ``adapter_model.safetensors``).

Example:
    >>> names = [f"base_model.model.model.up_proj.lora_{half}.weight" for half in "AB"]
    >>> pairs({"r": 2, "lora_alpha": 4}, names)["model.up_proj.weight"].scale
    2.0
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import fault
from recipelang.ops.spec import Fault
from recipelang.sources import locate
from recipelang.types import AdapterType, ModelType, TensorInfo
from recipelang.weights.safetensors import Entry, read_header
from recipelang.weights.strict_json import as_object, parse_object, read_small, readable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AdapterFolder",
    "AdapterTensor",
    "Pair",
    "adapter_config",
    "adapter_type",
    "check_fits",
    "open_adapter",
    "pairs",
]

PREFIX = "base_model.model."
MAX_RANK = 65_536
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Pair:
    """The change of one weight: ``scale * B A`` with A (rank, in) and B (out, rank), by tensor
    names."""

    a: str
    b: str
    scale: float


@dataclass(frozen=True, slots=True)
class AdapterTensor:
    """What a weight operation gets for an adapter operand: the pair for its tensor, or None."""

    pair: Pair | None


@dataclass(frozen=True, eq=False)
class AdapterFolder:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` over an adapter's folder."""

    path: Path
    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    places: Mapping[str, Entry]

    @property
    def files(self) -> Mapping[str, Path | bytes]:
        """An adapter has no files of its own beside its configuration."""
        return {}

    @classmethod
    def open(cls, path: Path) -> AdapterFolder:
        """Read configuration and header. Raises RecipeError E0733 (not a LoRA that is read),
        E0727."""
        file = path / "adapter_config.json"
        if not file.is_file():
            raise fault("E0733", f"`{path}` has no `adapter_config.json`")
        config = parse_object(read_small(file, "E0733"), str(file), "E0733")
        weights = path / WEIGHTS
        if not weights.exists() and (path / "adapter_model.bin").exists():
            from recipelang.weights.folder import pickle_fault

            raise pickle_fault(path, "adapter_model.bin")
        header = read_header(weights)
        tensors = {name: entry.info for name, entry in header.entries.items()}
        pairs(config, tensors, str(path))
        return cls(path, config, tensors, header.entries)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)`` of a tensor."""
        from recipelang.weights.rawread import read_elements

        return read_elements(self.path / WEIGHTS, self.places[name], start, stop)

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""


def open_adapter(
    uri: str, revision: str | None = None, *, folder: Path | None = None
) -> AdapterFolder:
    """The adapter at a URI. Raises RecipeError of band E07."""
    place = locate(uri, revision, folder=folder)
    if place is None:
        raise fault(
            "E0723", f"`{uri}` is not on this machine", help="fetch it: `recipe fetch FILE`"
        )
    return AdapterFolder.open(place.path)


def adapter_type(
    uri: str, revision: str | None = None, *, folder: Path | None = None
) -> AdapterType:
    """The type of the adapter at a URI; all None when it was not fetched yet."""
    place = locate(uri, revision, folder=folder)
    if place is None:
        return AdapterType()
    found = AdapterFolder.open(place.path)
    return AdapterType(found.config, found.tensors)


def pairs(
    config: Mapping[str, object], tensors: Iterable[str], where: str = "the adapter"
) -> dict[str, Pair]:
    """Weight name -> its pair. The scale is alpha / r, or alpha / sqrt(r) with ``use_rslora``
    (Kalajdzievski 2023, arXiv 2312.03732); ``rank_pattern`` and ``alpha_pattern`` give other values
    by name.

    Raises RecipeError E0733 for a kind of adapter that is not plain LoRA.
    """
    _check_kind(config, where)
    found: dict[str, dict[str, str]] = {}
    for name in tensors:
        module, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
        side = {
            "A.weight": "a",
            "B.weight": "b",
            "A.default.weight": "a",
            "B.default.weight": "b",
        }.get(part)
        if side is None or not module:
            raise fault(
                "E0733", f"{where} has the tensor `{readable(name)}`, which is not of a LoRA"
            )
        found.setdefault(module, {})[side] = name
    result: dict[str, Pair] = {}
    for module, sides in sorted(found.items()):
        if len(sides) != 2:
            missing = "lora_B" if "a" in sides else "lora_A"
            raise fault("E0733", f"{where} has `{readable(module)}` without its `{missing}`")
        result[f"{module}.weight"] = Pair(sides["a"], sides["b"], _scale(config, module, where))
    return result


def check_fits(adapter: AdapterType, model: ModelType, *, at: str) -> None:
    """Every weight that the adapter changes is in the model with the right shape. Raises Fault
    E0610."""
    if adapter.config is None or adapter.tensors is None or model.tensors is None:
        return
    for weight, pair in pairs(adapter.config, adapter.tensors).items():
        info = model.tensors.get(weight)
        if info is None:
            raise Fault(
                "E0610", f"the adapter changes `{weight}`, which the model does not have", at=at,
                help="apply it to the model that it was trained on",
            )  # fmt: skip
        a, b = adapter.tensors[pair.a].shape, adapter.tensors[pair.b].shape
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or (b[0], a[1]) != info.shape:
            raise Fault(
                "E0610",
                f"the adapter changes `{weight}` by {list(b)} times {list(a)}, but the model's "
                f"is {list(info.shape)}",
                at=at,
                help="apply it to the model that it was trained on",
            )


def adapter_config(
    *,
    rank: int,
    alpha: float,
    targets: Iterable[str],
    dropout: float = 0.0,
    base: str | None = None,
) -> bytes:
    """adapter_config.json as PEFT reads it; ``targets`` are weight names, given as their last
    parts."""
    modules = sorted({name.removesuffix(".weight").rpartition(".")[2] for name in targets})
    document: dict[str, object] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "inference_mode": True, "r": rank,
        "lora_alpha": alpha, "lora_dropout": dropout, "bias": "none", "fan_in_fan_out": False,
        "use_rslora": False, "use_dora": False, "modules_to_save": None, "rank_pattern": {},
        "alpha_pattern": {}, "target_modules": modules, "base_model_name_or_path": base,
        "init_lora_weights": True, "layers_to_transform": None, "layers_pattern": None,
    }  # fmt: skip
    return json.dumps(document, indent=2, sort_keys=True).encode()


def _check_kind(config: Mapping[str, object], where: str) -> None:
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise fault("E0733", f"{where} is a `{readable(str(kind), 40)}` adapter; only LoRA is read")
    for key in ("use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias", "use_qalora"):
        if config.get(key) not in (None, False, [], {}):
            raise fault("E0733", f"{where} uses `{key}`, which is not read")
    if config.get("bias", "none") != "none":
        raise fault("E0733", f"{where} changes biases (`bias`), which is not read")


def _scale(config: Mapping[str, object], module: str, where: str) -> float:
    rank = _pattern(config.get("rank_pattern"), module, config.get("r"))
    alpha = _pattern(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise fault(
            "E0733",
            f"{where}: the rank `r` is {readable(repr(rank), 30)}, expected 1 to {MAX_RANK}",
        )
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not isfinite(alpha):
        raise fault(
            "E0733", f"{where}: `lora_alpha` is {readable(repr(alpha), 30)}, expected a number"
        )
    return alpha / sqrt(rank) if config.get("use_rslora") is True else alpha / rank


def _pattern(table: object, module: str, default: object) -> object:
    """PEFT's rule: a key matches a module that ends with it, after a dot or whole."""
    for key, value in (as_object(table) or {}).items():
        if module == key or module.endswith(f".{key}"):
            return value
    return default
