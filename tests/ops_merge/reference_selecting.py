"""Merges that select elements, in float64 and element by element, from the papers and definitions
and not from the product's code."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np


def wide(arrays: Any) -> list[Any]:
    """Arrays as float64."""
    return [np.asarray(a).astype(np.float64) for a in arrays]


def nearswap(a: Any, b: Any, t: float) -> Any:
    """b where it is near, else t from a towards it."""
    a, b = wide([a, b])
    return np.where(np.abs(b - a) <= t, b, a + np.sign(b - a) * t)


def divergence(p: Any, q: Any) -> float:
    """KL(softmax(p) || softmax(q)) of two rows, in exact enough arithmetic."""
    ps, qs = ([math.exp(x - max(row)) for x in row] for row in (p, q))
    return math.fsum(
        x / math.fsum(ps) * math.log((x / math.fsum(ps)) / (y / math.fsum(qs)))
        for x, y in zip(ps, qs, strict=True)
    )


def fusion(a: Any, b: Any) -> Any:
    """Outliers of |b - a| KL come from b."""
    a, b = wide([a, b])
    width = a.shape[-1] if a.ndim else 1
    old, new = a.reshape(-1, width), b.reshape(-1, width)
    kl = [max(0.0, divergence(y, x)) for x, y in zip(old, new, strict=True)]
    importance = np.abs(new - old) * np.array(kl)[:, None]
    ranked = sorted(importance.reshape(-1))
    low, middle, high = (ranked[math.floor(q * (len(ranked) - 1))] for q in (0.25, 0.5, 0.75))
    taken = importance >= middle + 1.5 * (high - low)
    return np.where(taken, new, old).reshape(a.shape)


def ram(base: Any, models: Any, epsilon: float = 1e-5, scale: float = 1.0) -> Any:
    """Yuan et al. 2026: the mean of the changes that are there."""
    return ramplus(base, models, 0.0, 0.0, epsilon, scale)


def ramplus(
    base: Any, models: Any, r: float = 0.1, alpha: float = 0.2, epsilon: float = 1e-5,
    scale: float = 1.0,
) -> Any:  # fmt: skip
    """Yuan et al. 2026: what one model changed alone grows with the share it has in common."""
    base, *models = wide([base, *models])
    changes = np.stack([(x - base).reshape(-1) for x in models])
    there = np.abs(changes) > epsilon
    growth: list[float] = []
    for row in range(len(models)):
        alone = sum(1 for e in range(base.size) if there[row, e] and there[:, e].sum() == 1)
        common = int(there[row].sum()) - alone
        ratio = common / alone if alone else 0.0
        growth.append(1 + r * min(alpha, ratio))
    result = base.reshape(-1).copy()
    for e in range(base.size):
        who = [i for i in range(len(models)) if there[i, e]]
        if len(who) == 1:
            result[e] += scale * growth[who[0]] * changes[who[0], e]
        elif who:
            result[e] += scale * sum(changes[i, e] for i in who) / len(who)
    return result.reshape(base.shape)


def magmax(base: Any, models: Any, scale: float = 1.0) -> Any:
    """Marczak et al. 2024: the largest change of any model."""
    base, *models = wide([base, *models])
    changes = np.stack([(x - base).reshape(-1) for x in models])
    result = base.reshape(-1).copy()
    for e in range(base.size):
        result[e] += scale * max(changes[:, e], key=lambda d: (abs(d), d))
    return result.reshape(base.shape)


def sce(base: Any, models: Any, select: float = 1.0, scale: float = 1.0) -> Any:
    """Wan et al. 2024: select by variance, calculate shares, erase minority signs."""
    base, *models = wide([base, *models])
    changes = np.stack([(x - base).reshape(-1) for x in models])
    if select < 1:
        variance = [float(np.var(changes[:, e])) for e in range(base.size)]
        variance = [v if np.ptp(changes[:, e]) else 0.0 for e, v in enumerate(variance)]
        count = sum(1 for v in variance if v)
        k = max(1, math.floor(Fraction(str(select)) * count)) if count else 0
        order = sorted(range(base.size), key=lambda e: (-variance[e], e))
        for e in order[k:]:
            changes[:, e] = 0
    squares = [float((row * row).sum()) for row in changes]
    total = sum(squares)
    shares = [s / total if total else 1 / len(models) for s in squares]
    result = base.reshape(-1).copy()
    for e in range(base.size):
        column = changes[:, e]
        sign = 1.0 if column.sum() >= 0 else -1.0
        agree = [i for i, d in enumerate(column) if d * sign > 0]
        weight = sum(shares[i] for i in agree)
        if weight:
            result[e] += scale * sum(shares[i] * column[i] for i in agree) / weight
    return result.reshape(base.shape)
