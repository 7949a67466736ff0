"""Low-rank adapters in PEFT's file format (``adapter_config.json``, ``adapter_model.safetensors``).

What their tensors mean is read in :mod:`recipelang.weights.peft`.

Example:
    >>> written = json.loads(adapter_config(rank=2, alpha=4.0, targets=["model.up_proj.weight"]))
    >>> written["peft_type"], written["target_modules"]
    ('LORA', ['up_proj'])
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recipelang.diagnostics import fault
from recipelang.sources import locate
from recipelang.types import AdapterType, TensorInfo
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.folder import AUXILIARY
from recipelang.weights.metadata import checkpoint_type
from recipelang.weights.peft import contents
from recipelang.weights.safetensors import Entry, read_header
from recipelang.weights.strict_json import parse_object, read_small

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AdapterFolder",
    "adapter_config",
    "adapter_type",
    "adapter_type_of",
    "open_adapter",
]

WEIGHTS = "adapter_model.safetensors"
TOKENIZER = tuple(name for name in AUXILIARY if name != "generation_config.json")


@dataclass(frozen=True, eq=False)
class AdapterFolder:
    """A :class:`~recipelang.weights.checkpoint.Checkpoint` over an adapter's folder. Its files are
    those of a tokenizer, which trainers write beside adapters."""

    path: Path
    config: Mapping[str, object]
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path | bytes]
    places: Mapping[str, Entry]

    @classmethod
    def open(cls, path: Path) -> AdapterFolder:
        """Read configuration and header. Raises RecipeError E0733 (not a LoRA that is read),
        E0727."""
        config = _read_config(path)
        weights = path / WEIGHTS
        if not weights.exists() and (path / "adapter_model.bin").exists():
            from recipelang.weights.folder import pickle_fault

            raise pickle_fault(path, "adapter_model.bin")
        header = read_header(weights)
        tensors = {name: entry.info for name, entry in header.entries.items()}
        contents(config, tensors, f"`{path}`")
        files: dict[str, Path | bytes] = {n: path / n for n in TOKENIZER if (path / n).is_file()}
        return cls(path, config, dict(sorted(tensors.items())), files, header.entries)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Elements ``[start, stop)`` of a tensor."""
        from recipelang.weights.rawread import read_elements

        return read_elements(self.path / WEIGHTS, self.places[name], start, stop)

    def release(self, name: str) -> None:
        """Nothing is kept between reads."""


def _read_config(path: Path) -> dict[str, object]:
    file = path / "adapter_config.json"
    if not file.is_file():
        raise fault("E0733", f"`{path}` has no `adapter_config.json`")
    return parse_object(read_small(file, "E0733"), str(file), "E0733")


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
    """The type of the adapter at a URI; all None when it was not fetched yet, without tensors when
    only metadata were. Raises RecipeError E0733."""
    place = locate(uri, revision, folder=folder)
    if place is None:
        return AdapterType()
    if uri.startswith("hf:") and not any(place.path.glob("adapter_model.*")):
        return AdapterType(_read_config(place.path))
    return adapter_type_of(AdapterFolder.open(place.path))


def adapter_type_of(adapter: Checkpoint) -> AdapterType:
    """The type of an open adapter."""
    known = checkpoint_type(adapter)
    return AdapterType(adapter.config, adapter.tensors, None, known.tokenizer, known.chat_template)


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
