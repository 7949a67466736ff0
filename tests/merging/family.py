"""A base and its fine-tunes ``a`` and ``b`` in folders, as recipes and tests name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.merging.projects import (
    load_folder,
    models,
)

MLP, QUERY = "model.layers.{}.mlp.up_proj.weight", "model.layers.{}.self_attn.q_proj.weight"
HEAD = models("base", a="base", b="base")


def of(folder: Path, name: str) -> dict[str, Any]:
    """The tensors of a model."""
    return load_folder(folder / name)
