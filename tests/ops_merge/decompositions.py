"""Merges and adapters by LAPACK's singular value decomposition in float64, written from the papers
and not from the product's code."""

from __future__ import annotations

from typing import Any

import numpy as np

ZERO = 2.0**-20


def triplets(matrix: Any, rank: int) -> tuple[Any, Any, Any]:
    """U, s and V^T of the leading singular triplets that are not zero."""
    u, s, vt = np.linalg.svd(np.asarray(matrix).astype(np.float64), full_matrices=False)
    kept = min(rank, int((s > ZERO * s[0]).sum()))
    return u[:, :kept], s[:kept], vt[:kept]


def truncated(matrix: Any, rank: int) -> Any:
    """The closest matrix of that rank."""
    u, s, vt = triplets(matrix, rank)
    return (u * s) @ vt


def nearest_isometry(matrix: Any) -> Any:
    """P Q^T of P S Q^T, without what S has no share of."""
    p, s, qt = np.linalg.svd(matrix, full_matrices=False)
    kept = s > ZERO * s[0]
    return p[:, kept] @ qt[kept]


def tsv(base: Any, models: Any, weights: Any, rank: int, scale: float = 1.0) -> Any:
    """Gargiulo et al. 2025, algorithm TSV-Merge; tensors that are no matrices: the mean."""
    base, *models = (np.asarray(a).astype(np.float64) for a in (base, *models))
    used = [(w, m - base) for w, m in zip(weights, models, strict=True) if w]
    if base.ndim != 2:
        return base + scale * sum(w * d for w, d in used) / len(used)
    parts = [triplets(d, rank) for _, d in used]
    left = nearest_isometry(np.hstack([u for u, _, _ in parts]))
    right = nearest_isometry(np.vstack([vt for _, _, vt in parts]))
    spectrum = np.concatenate([w * s for (w, _), (_, s, _) in zip(used, parts, strict=True)])
    return base + scale * (left * spectrum) @ right


def iso(base: Any, models: Any, weights: Any, scale: float = 1.0) -> Any:
    """Marczak et al. 2025, Iso-C; tensors that are no matrices: the mean."""
    base, *models = (np.asarray(a).astype(np.float64) for a in (base, *models))
    used = [w * (m - base) for w, m in zip(weights, models, strict=True) if w]
    if base.ndim != 2:
        return base + scale * sum(used) / len(used)
    u, s, vt = triplets(sum(used), min(base.shape))
    return base + scale * s.mean() * u @ vt
