"""Adapters of every kind for a small model, and what they make of it in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.weights.models import Memory

KINDS = ("lora", "rslora", "dora", "whole")
RANK, ALPHA = 3, 5


def model_shapes(size: int = 1) -> dict[str, tuple[int, ...]]:
    """A model with an embedding, a linear layer and a Conv1D; of size 100 they are several blocks
    long."""
    return {
        "model.embed_tokens.weight": (7 * size, 2 * size),
        "h.0.attn.c_proj.weight": (6 * size, 4 * size),
        "h.0.q_proj.weight": (4 * size, 6 * size),
        "h.0.q_proj.bias": (4 * size,),
        "model.norm.weight": (2 * size,),
    }


def low_rank(kind: str, seed: int = 5, *, size: int = 1) -> Memory:
    """An adapter of all its matrices; ``whole`` also replaces its other tensors."""
    rng = np.random.default_rng(seed)
    rows, columns, into, out = (size * n for n in (7, 2, 6, 4))

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32) * 0.1

    arrays: dict[str, Any] = {}
    for module in ("h.0.q_proj", "h.0.attn.c_proj"):
        arrays[f"base_model.model.{module}.lora_A.weight"] = draw(RANK, into)
        arrays[f"base_model.model.{module}.lora_B.weight"] = draw(out, RANK)
        if kind == "dora":
            arrays[f"base_model.model.{module}.lora_magnitude_vector"] = 1 + draw(out)
    table = "base_model.model.model.embed_tokens"
    arrays[f"{table}.lora_embedding_A"] = draw(RANK, rows)
    arrays[f"{table}.lora_embedding_B"] = draw(columns, RANK)
    if kind == "dora":
        arrays[f"{table}.lora_magnitude_vector"] = 1 + draw(columns)
    if kind == "whole":
        arrays[f"{table}.base_layer.weight"] = draw(rows, columns)
        arrays["base_model.model.model.norm.weight"] = draw(columns)
        arrays["base_model.model.h.0.q_proj.base_layer.bias"] = draw(out)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA}
    return Memory(arrays, {**config, "use_rslora": kind == "rslora", "use_dora": kind == "dora"})


def wanted(base: Memory, change: Memory) -> dict[str, Any]:
    """W + s B A and DoRA on whole matrices in float64."""
    made = {name: array.astype(np.float64) for name, array in base.arrays.items()}
    stored = {name: array.astype(np.float64) for name, array in change.arrays.items()}
    for name, array in stored.items():
        if ".lora_" not in name:
            made[name.removeprefix("base_model.model.").replace(".base_layer", "")] = array
    scale = ALPHA / (np.sqrt(RANK) if change.config["use_rslora"] else RANK)
    for module, a, b in (
        ("h.0.q_proj", "lora_A.weight", "lora_B.weight"),
        ("h.0.attn.c_proj", "lora_A.weight", "lora_B.weight"),
        ("model.embed_tokens", "lora_embedding_A", "lora_embedding_B"),
    ):
        prefix, turned = f"base_model.model.{module}", module != "h.0.q_proj"
        weight = made[f"{module}.weight"]
        total = scale * stored[f"{prefix}.{b}"] @ stored[f"{prefix}.{a}"]
        total += weight.T if turned else weight
        if change.config["use_dora"]:
            length = stored[f"{prefix}.lora_magnitude_vector"][:, None]
            total *= length / np.linalg.norm(total, axis=1, keepdims=True)
        made[f"{module}.weight"] = total.T if turned else total
    return made
