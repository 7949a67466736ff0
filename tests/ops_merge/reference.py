"""Merges of single tensors in float64, written from the papers and not from the product's code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def f64(arrays: Any) -> list[Any]:
    """Arrays as float64."""
    return [np.asarray(a).astype(np.float64) for a in arrays]


def linear(models: Any, weights: Any, normalize: bool = True) -> Any:
    """Weighted mean."""
    total = sum(w * m for w, m in zip(weights, f64(models), strict=True))
    return total / sum(weights) if normalize else total


def slerp(a: Any, b: Any, t: float) -> Any:
    """Shoemake's formula on the whole tensor as a vector."""
    a, b = f64([a, b])
    cosine = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
    angle = math.acos(max(-1.0, min(1.0, cosine)))
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def task_arithmetic(
    base: Any, models: Any, weights: Any, scale: float = 1.0, normalize: bool = False
) -> Any:
    """Ilharco et al. 2023."""
    base, *models = f64([base, *models])
    total = sum(w * (m - base) for w, m in zip(weights, models, strict=True))
    return base + scale * total / (sum(weights) if normalize else 1.0)


def trim(delta: Any, k: int) -> Any:
    """The k largest magnitudes, lowest index first among equals; the others zero."""
    flat = delta.reshape(-1)
    order = np.lexsort((np.arange(flat.size), -np.abs(flat)))
    result = np.zeros_like(flat)
    result[order[:k]] = flat[order[:k]]
    return result.reshape(delta.shape)


def ties(
    base: Any, models: Any, weights: Any, counts: Any, scale: float = 1.0, normalize: bool = True
) -> Any:
    """Yadav et al. 2023, element by element."""
    base, *models = f64([base, *models])
    vectors = [w * trim(m - base, k) for w, m, k in zip(weights, models, counts, strict=True)]
    stacked = np.stack([v.reshape(-1) for v in vectors])
    result = base.reshape(-1).copy()
    for e in range(result.size):
        column = stacked[:, e]
        elected = 1.0 if column.sum() >= 0 else -1.0
        agreeing = [i for i, v in enumerate(column) if v != 0 and math.copysign(1.0, v) == elected]
        merged = sum(column[i] for i in agreeing)
        share = sum(abs(weights[i]) for i in agreeing)
        if normalize and share:
            merged /= share
        result[e] += scale * merged
    return result.reshape(base.shape)
