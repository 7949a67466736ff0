"""The artifact of a training: a model with all its tensors, or an adapter on its base.

Example:
    >>> manifest = adapted_model(store, base, trained, Form("lora"))  # doctest: +SKIP
    >>> manifest.kind  # doctest: +SKIP
    'adapted'
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipelang.backend import Trained
from recipelang.ops.train._select import linear_weights
from recipelang.run.artifacts import Tensor, store_tensors
from recipelang.run.schedules import settings
from recipelang.run.values import ModelValue
from recipelang.store.artifact import Manifest
from recipelang.store.store import Store
from recipelang.values import Attr, Form

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["adapted_model", "number", "peft_config", "scale_of", "whole_model"]


def number(given: Mapping[str, Attr], name: str) -> float:
    """A number among settings."""
    value = given[name]
    assert isinstance(value, int | float)
    return value


def scale_of(given: Mapping[str, Attr]) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rslora (Kalajdzievski 2023, arXiv 2312.03732)."""
    alpha, rank = number(given, "alpha"), number(given, "rank")
    return alpha / sqrt(rank) if given["variant"] == "rslora" else alpha / rank


def adapted_model(store: Store, base: ModelValue, found: Trained, form: Form) -> Manifest:
    """The adapter in PEFT's layout, on the base's artifact."""
    given = settings(form)
    names = [
        name.removesuffix(".lora_A") for name in sorted(found.tensors) if name.endswith(".lora_A")
    ]

    rows = [_peft_tensor(name, side, found) for name in names for side in ("lora_A", "lora_B")]
    config = store.put_bytes(peft_config(given, names, base))
    return Manifest(
        "adapted", store_tensors(store, rows), {"adapter_config.json": config}, base.artifact
    )


def _peft_tensor(name: str, side: str, found: Trained) -> Tensor:
    """One factor under PEFT's name for it."""
    values = found.tensors[f"{name}.{side}"]
    dtype = "F64" if values.dtype.itemsize == 8 else "F32"
    module = name.removesuffix(".weight")
    return Tensor(f"base_model.model.{module}.{side}.weight", dtype, values.shape, lambda: values)


def peft_config(given: Mapping[str, Attr], names: list[str], base: ModelValue) -> bytes:
    """adapter_config.json as PEFT reads it. Modules go by their last name where all of that name
    are adapted.
    """
    from recipelang.weights.adapter import adapter_config
    from recipelang.weights.peft_names import target_modules

    modules = target_modules(names, linear_weights(base.checkpoint.tensors))
    written = adapter_config(
        rank=int(number(given, "rank")), alpha=number(given, "alpha"), targets=names,
        dropout=number(given, "dropout"),
    )  # fmt: skip
    document = json.loads(written)
    document |= {"target_modules": modules, "use_rslora": given["variant"] == "rslora"}
    return json.dumps(document, indent=2, sort_keys=True).encode()


def whole_model(
    store: Store, base: ModelValue, found: Trained, trainable: frozenset[str]
) -> Manifest:
    """All tensors in their stored dtype, trained ones rounded once; configuration and files of the
    base.
    """
    from recipelang.weights.numbers import narrow

    checkpoint = base.checkpoint

    def reader(name: str) -> Callable[[], NDArray[Any]]:
        if name in trainable:
            return lambda: narrow(found.tensors[name].reshape(-1), checkpoint.tensors[name].dtype)
        return lambda: checkpoint.read(name)

    tensors = store_tensors(
        store,
        [Tensor(n, info.dtype, info.shape, reader(n)) for n, info in checkpoint.tensors.items()],
    )
    files = {name: store.put_bytes(_bytes(data)) for name, data in checkpoint.files.items()}
    config = json.dumps(
        dict(checkpoint.config), indent=2, sort_keys=True, ensure_ascii=False
    ).encode()
    return Manifest("model", tensors, {**files, "config.json": store.put_bytes(config)})


def _bytes(data: Path | bytes) -> bytes:
    return data if isinstance(data, bytes) else data.read_bytes()
