"""mergekit 0.1.5's rules, each written anew from a description of its formulas: what `compat =
mergekit` promises. In the precision of the arrays, float32 as in mergekit or float64."""

from __future__ import annotations

from typing import Any

import numpy as np


def size(vector: Any) -> Any:
    """The norm of all elements."""
    return vector.dtype.type(np.sqrt(np.sum(vector.astype(np.float64) ** 2)))


def dot(a: Any, b: Any) -> Any:
    """The dot product of all elements."""
    return a.dtype.type(np.sum(a.astype(np.float64) * b))


def slerp(a: Any, b: Any, t: float) -> Any:
    """Norms of at most 1e-8 count as 1; straight above a cosine of 0.9995."""
    F = a.dtype.type
    la, lb = (F(1) if size(x) <= 1e-8 else size(x) for x in (a, b))
    cosine = np.clip(dot(a / la, b / lb), F(-1), F(1))
    if abs(cosine) > 0.9995:
        return F(1 - t) * a + F(t) * b
    angle = np.arccos(cosine)
    return np.sin(F(1 - t) * angle) / np.sin(angle) * a + np.sin(F(t) * angle) / np.sin(angle) * b


def nuslerp(
    a: Any, b: Any, weights: Any, base: Any = None, *, flatten: bool = True, row_wise: bool = False
) -> Any:
    """Norms of 1e-7 at least, half of the way where the weights cancel."""
    F = a.dtype.type
    total = sum(weights)
    t = 0.5 if abs(total) < 1e-6 else weights[1] / total
    origin = np.zeros_like(a) if base is None else base
    a, b = a - origin, b - origin

    def one(x: Any, y: Any) -> Any:
        cosine = np.clip(dot(x / max(size(x), F(1e-7)), y / max(size(y), F(1e-7))), F(-1), F(1))
        if 1 - cosine * cosine <= 1e-16:
            return F(1 - t) * x + F(t) * y
        angle = np.arccos(cosine)
        left, right = np.sin(F(1 - t) * angle), np.sin(F(t) * angle)
        return left / np.sin(angle) * x + right / np.sin(angle) * y

    if flatten:
        return origin + one(a, b)
    axis = 0 if row_wise else a.ndim - 1
    left, right = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
    made = np.zeros_like(left)
    for place in np.ndindex(*left.shape[:-1]):
        made[place] = one(left[place], right[place])
    return origin + np.moveaxis(made, -1, axis)


def multislerp(models: Any, weights: Any, base: Any = None, *, normalize: bool = True) -> Any:
    """An epsilon of 1e-8 on every norm, and a step along the tangent."""
    if len(models) == 1:
        return models[0]
    F = models[0].dtype.type
    origin = np.zeros_like(models[0]) if base is None else base
    vectors = [x - origin for x in models]
    shares = [F(w / sum(weights)) if normalize else F(w) for w in weights]
    units = [v / (size(v) + F(1e-8)) for v in vectors]
    mean = sum(s * u for s, u in zip(shares, units, strict=True))
    if size(mean) < 1e-8:
        return origin + sum(s * v for s, v in zip(shares, vectors, strict=True))
    mean = mean / size(mean)
    tangent = sum(s * (u - dot(u, mean) * mean) for s, u in zip(shares, units, strict=True))
    step = size(tangent) + F(1e-8)
    length = sum(s * size(v) for s, v in zip(shares, vectors, strict=True))
    return origin + (mean * np.cos(step) + tangent * np.sin(step) / step) * length


def karcher(models: Any, iterations: int = 10, weights: Any = None) -> Any:
    """A tolerance of 1e-5 for norms, angles and steps; mergekit's shares are equal."""
    F = models[0].dtype.type
    tolerance = 1e-5
    given = weights or (1,) * len(models)
    live = [i for i, x in enumerate(models) if size(x) > tolerance]
    if not live:
        return np.zeros_like(models[0])
    total = sum(given[i] for i in live)
    pairs = [(F(given[i] / total), models[i] / size(models[i])) for i in live]
    mean = sum(share * unit for share, unit in pairs)
    mean = pairs[0][1] if size(mean) < tolerance else mean / size(mean)
    for _ in range(iterations):
        tangent = np.zeros_like(mean)
        for share, unit in pairs:
            cosine = np.clip(dot(unit, mean), F(-1), F(1))
            angle = np.arccos(cosine)
            if angle >= tolerance:
                tangent += angle / np.sin(angle) * (unit - cosine * mean) * share
        step = size(tangent)
        if step < tolerance:
            break
        mean = np.cos(step) * mean + np.sin(step) * tangent / step
        mean = mean / size(mean)
    return mean * sum(F(w / sum(given)) * size(x) for w, x in zip(given, models, strict=True))


def sce(base: Any, models: Any, select: float = 1.0, scale: float = 1.0) -> Any:
    """Equal shares below a mean square of 1e-6, a divisor of 1e-6 at least."""
    F = base.dtype.type
    changes = np.stack([x - base for x in models])
    if select < 1:
        variance = changes.astype(np.float64).var(axis=0).reshape(-1)
        k = int(np.count_nonzero(variance) * select)
        mask = np.zeros(base.size, F)
        mask[np.argsort(-variance, kind="stable")[:k]] = 1
        changes = changes * mask.reshape(base.shape)
    squares = np.array([np.mean(d * d) for d in changes])
    low = squares.sum() < 1e-6
    shares = np.full(len(models), 1 / len(models)) if low else squares / squares.sum()
    sign = np.where(changes.sum(axis=0) >= 0, F(1), F(-1))
    mask = (np.sign(changes) == sign).astype(F)
    c = shares.astype(F).reshape(-1, *(1,) * base.ndim)
    divisor = np.maximum((c * mask).sum(axis=0), F(1e-6))
    return base + F(scale) * (c * changes * mask).sum(axis=0) / divisor


def model_stock(base: Any, models: Any, *, by_row: bool = False) -> Any:
    """The product of two norms is 1e-6 at least, and t may leave [0, 1]."""
    if by_row:
        rows = [x.reshape(-1, base.shape[-1]) for x in (base, *models)]
        made = [model_stock(row[0], row[1:]) for row in zip(*rows, strict=True)]
        return np.stack(made).reshape(base.shape)
    F = base.dtype.type
    changes = [x - base for x in models]
    n = len(models)
    cosines = [
        np.clip(dot(d, e) / max(size(d) * size(e), F(1e-6)), F(-1), F(1))
        for i, d in enumerate(changes)
        for e in changes[i + 1 :]
    ]
    cosine = F(sum(cosines) / len(cosines))
    divisor = 1 + (n - 1) * cosine
    t = F(0) if abs(divisor) < 1e-6 else n * cosine / divisor
    return t * (sum(models) / F(n)) + (1 - t) * base


def nearswap(a: Any, b: Any, t: float) -> Any:
    """A share of t / |b - a|, of 1e-6 at least."""
    F = a.dtype.type
    share = np.clip(F(t) / np.maximum(np.abs(a - b), F(1e-6)), F(0), F(1))
    return share * b + (1 - share) * a


def fusion(a: Any, b: Any) -> Any:
    """Probabilities with 1e-8 added, quartiles by index."""
    F = a.dtype.type

    def softmax(x: Any) -> Any:
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    p, q = softmax(b) + F(1e-8), softmax(a) + F(1e-8)
    importance = np.abs(b - a) * (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    ranked = np.sort(importance.reshape(-1))
    low, middle, high = (ranked[int(q * (ranked.size - 1))] for q in (0.25, 0.5, 0.75))
    return a + (b - a) * (importance >= middle + F(1.5) * (high - low))


def ramplus(
    base: Any, models: Any, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5,
    scale: float = 1.0,
) -> Any:  # fmt: skip
    """What one model changed alone is enlarged; `r = 0` is ram."""
    F = base.dtype.type
    changes = np.stack([x - base for x in models])
    there = np.abs(changes) > F(epsilon)
    count = there.sum(axis=0)
    result = (changes * there).sum(axis=0) / np.maximum(count, 1).astype(F)
    for change, own in zip(changes, there, strict=True):
        alone = own & (count == 1)
        ratio = (own & (count > 1)).sum() / max(alone.sum(), epsilon)
        result = np.where(alone, F(1 + r * np.clip(ratio, 0, alpha)) * change, result)
    return base + F(scale) * result
