"""LoRA inside the decoder: stacked over layers, trained in float32, beside frozen weights.

``y = W x + scale * B (A drop(x))`` (Hu et al. 2021, arXiv 2106.09685). For each adapted weight the
layers' A and B are stacked to (L, rank, in) and (L, out, rank). A layer without an adapter, or with
a smaller rank, has zeros there: both gradients of a zero pair are zero, so it stays zero exactly.

Example:
    >>> pair = (np.zeros((8, 64), np.float32), np.zeros((32, 8), np.float32))
    >>> tree = stack({"model.layers.0.mlp.up_proj.weight": pair}, layers=2, dtype=np.float32)
    >>> tree["layers"]["mlp.up_proj"]["A"].shape
    (2, 8, 64)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from recipelang.diagnostics import fault
from recipelang.weights.kernels.uniform_bits import dropout_keys, threshold
from recipelang_jax.arrays import Arithmetic, Array, Tree, named, uniform_bits

__all__ = ["apply", "check", "keys", "split_name", "stack", "unstack"]

Pairs = Mapping[str, tuple[NDArray[Any], NDArray[Any]]]


def split_name(name: str) -> tuple[int | None, str]:
    """A tensor's layer (None outside the layers) and its name within.

    >>> split_name("model.layers.3.mlp.up_proj.weight")
    (3, 'mlp.up_proj.weight')
    """
    parts = name.split(".", 3)
    if name.startswith("model.layers.") and len(parts) == 4 and parts[2].isdigit():
        return int(parts[2]), parts[3]
    return None, name


def check(pairs: Pairs, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises RecipeError E0803 for an adapter on what is not a linear layer's weight."""
    for name in pairs:
        if len(shapes.get(name, ())) != 2 or "embed" in name:
            raise fault(
                "E0803", f"the JAX backend cannot put an adapter on `{name}`",
                help="only weights of linear layers take an adapter",
            )  # fmt: skip


def stack(pairs: Pairs, layers: int, dtype: Any) -> Tree:
    """The adapters as a tree ``{"layers": {module: {"A", "B"}}, "lm_head": {"A", "B"}}`` of numpy
    arrays."""
    tree: dict[str, Any] = {"layers": {}}
    for name in sorted(pairs):
        layer, inner = split_name(name)
        module = inner.removesuffix(".weight")
        a, b = pairs[name]
        if layer is None:
            tree[module] = {"A": a.astype(dtype), "B": b.astype(dtype)}
            continue
        rank = max(pairs[n][0].shape[0] for n in pairs if split_name(n)[1] == inner)
        room = tree["layers"].setdefault(
            module,
            {"A": np.zeros((layers, rank, a.shape[1]), dtype),
             "B": np.zeros((layers, b.shape[0], rank), dtype)},
        )  # fmt: skip
        room["A"][layer, : a.shape[0]] = a
        room["B"][layer, :, : b.shape[1]] = b
    return tree


def unstack(tree: Tree, pairs: Pairs) -> dict[str, NDArray[Any]]:
    """``NAME.lora_A`` and ``NAME.lora_B`` of every adapted tensor, from what :func:`stack` made."""
    out: dict[str, NDArray[Any]] = {}
    for name, (a, _) in pairs.items():
        layer, inner = split_name(name)
        module, rank = inner.removesuffix(".weight"), a.shape[0]
        pair = tree[module] if layer is None else tree["layers"][module]
        first, second = np.asarray(pair["A"]), np.asarray(pair["B"])
        if layer is not None:
            first, second = first[layer], second[layer]
        out[f"{name}.lora_A"] = np.ascontiguousarray(first[:rank])
        out[f"{name}.lora_B"] = np.ascontiguousarray(second[:, :rank])
    return out


def keys(tree: Tree, draws: str, step: int) -> Tree:
    """The dropout keys of a step, shaped like the adapters: (L, 2) uint32 a module, (2,) outside
    the layers."""
    out: dict[str, Any] = {"layers": {}}
    for module, pair in tree["layers"].items():
        names = [f"model.layers.{i}.{module}.weight" for i in range(pair["A"].shape[0])]
        out["layers"][module] = np.array([dropout_keys(draws, n, step) for n in names], np.uint32)
    for module in tree.keys() - {"layers"}:
        out[module] = np.array(dropout_keys(draws, f"{module}.weight", step), np.uint32)
    return out


def apply(
    arithmetic: Arithmetic,
    x: Array,
    pair: Tree,
    scale: float,
    drop: tuple[float, Array, Array, Array] | None,
) -> Array:
    """``scale * B (A drop(x))`` of ``x (..., in)``; ``drop`` is the probability, the key (2,), and
    the indices of each leading position: token in its row and row in the step's batch, uint32 of
    x's leading shape."""
    if drop is not None:
        p, key, token, row = drop
        width = x.shape[-1]
        low = token[..., None] * jnp.uint32(width) + jnp.arange(width, dtype=jnp.uint32)
        kept = uniform_bits(key, low, row[..., None]) >= jnp.uint32(threshold(p))
        x = jnp.where(kept, x / (1.0 - p), 0.0)
    inner = arithmetic.contract("...i,ri->...r", x, pair["A"])
    return arithmetic.contract("...r,or->...o", named(inner), pair["B"]) * scale
