"""Means on the sphere in float64, one vector at a time, from the definitions and not from the
product's code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CANCELLED = 1e-3


def wide(arrays: Any) -> list[Any]:
    """Arrays as float64."""
    return [np.asarray(a).astype(np.float64) for a in arrays]


def norm(vector: Any) -> float:
    """The length of a tensor as a vector."""
    return math.sqrt(float((vector * vector).sum()))


def arc(a: Any, b: Any, t: float) -> Any:
    """Shoemake's formula on one pair; the straight line where it has no direction."""
    lengths = norm(a) * norm(b)
    if lengths == 0:
        return (1 - t) * a + t * b
    angle = math.acos(max(-1.0, min(1.0, float((a * b).sum()) / lengths)))
    if math.sin(angle) < 1e-9 or angle > math.pi - CANCELLED:
        return (1 - t) * a + t * b
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def nuslerp(
    a: Any, b: Any, weights: Any, base: Any = None, *, flatten: bool = True, row_wise: bool = False
) -> Any:
    """The arc at w_2 / (w_1 + w_2), vector by vector."""
    a, b = wide([a, b])
    origin = np.zeros_like(a) if base is None else wide([base])[0]
    a, b, t = a - origin, b - origin, weights[1] / sum(weights)
    if flatten or a.ndim < 2:
        return origin + arc(a, b, t)
    axis = 0 if row_wise else -1
    left, right = (np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]) for x in (a, b))
    made = np.stack([arc(x, y, t) for x, y in zip(left, right, strict=True)])
    moved = np.moveaxis(a, axis, -1)
    return origin + np.moveaxis(made.reshape(moved.shape), -1, axis)


def multislerp(models: Any, weights: Any, base: Any = None, *, normalize: bool = True) -> Any:
    """The weighted sum of directions, brought to the sphere, then the exponential map of the
    weighted sum of the tangent parts, as mergekit writes it without its epsilons."""
    models = wide(models)
    origin = np.zeros_like(models[0]) if base is None else wide([base])[0]
    vectors = [x - origin for x in models]
    shares = [w / sum(weights) for w in weights] if normalize else list(weights)
    lengths = [norm(v) for v in vectors]
    units = [v / n if n else v for v, n in zip(vectors, lengths, strict=True)]
    mean = sum(s * u for s, u in zip(shares, units, strict=True))
    live = sum(abs(s) for s, n in zip(shares, lengths, strict=True) if n)
    if norm(mean) <= CANCELLED * live:
        return origin + sum(s * v for s, v in zip(shares, vectors, strict=True))
    mean = mean / norm(mean)
    parts = [u - float((u * mean).sum()) * mean for u in units]
    tangent = sum(s * p for s, p in zip(shares, parts, strict=True))
    step = norm(tangent)
    point = mean * math.cos(step) + tangent * (math.sin(step) / step if step else 1.0)
    return origin + point * sum(s * n for s, n in zip(shares, lengths, strict=True))


def logarithm(mean: Any, unit: Any) -> Any:
    """The tangent at ``mean`` that leads to ``unit``; nothing for the opposite point."""
    cosine = max(-1.0, min(1.0, float((mean * unit).sum())))
    angle = math.acos(cosine)
    if angle > math.pi - CANCELLED:
        return np.zeros_like(mean)
    return (unit - cosine * mean) * (angle / math.sin(angle) if angle > 1e-9 else 1.0)


def karcher(models: Any, weights: Any, iterations: int) -> Any:
    """The intrinsic mean by steps along the mean logarithm, on whole vectors."""
    models = wide(models)
    shares = [w / sum(weights) for w in weights]
    lengths = [norm(x) for x in models]
    live = [i for i, n in enumerate(lengths) if n and shares[i]]
    if not live:
        return np.zeros_like(models[0])
    total = sum(shares[i] for i in live)
    units = [(shares[i] / total, models[i] / lengths[i]) for i in live]
    mean = sum(s * u for s, u in units)
    if norm(mean) <= CANCELLED:
        return sum(s * x for s, x in zip(shares, models, strict=True))
    mean = mean / norm(mean)
    for _ in range(iterations):
        tangent = sum(s * logarithm(mean, u) for s, u in units)
        step = norm(tangent)
        if step < 1e-9:
            break
        mean = math.cos(step) * mean + math.sin(step) / step * tangent
        mean = mean / norm(mean)
    return mean * sum(s * n for s, n in zip(shares, lengths, strict=True))


def model_stock(base: Any, models: Any, *, by_row: bool = False) -> Any:
    """Jang et al. 2024 with the mean cosine of all pairs, none below zero."""
    base, *models = wide([base, *models])
    if by_row and base.ndim:
        rows = [x.reshape(-1, base.shape[-1]) for x in (base, *models)]
        made = [model_stock(row[0], row[1:]) for row in zip(*rows, strict=True)]
        return np.stack(made).reshape(base.shape)
    vectors = [x - base for x in models]
    n = len(vectors)
    cosines: list[float] = []
    for i in range(n):
        for j in range(i + 1, n):
            lengths = norm(vectors[i]) * norm(vectors[j])
            cosines.append(float((vectors[i] * vectors[j]).sum()) / lengths if lengths else 0.0)
    cosine = max(0.0, sum(cosines) / len(cosines))
    t = n * cosine / (1 + (n - 1) * cosine)
    return t * sum(models) / n + (1 - t) * base
