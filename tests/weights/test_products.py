"""Products of thin matrices: exact within their rounding, the same bits without the library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recipelang.weights.strips import products


@pytest.mark.parametrize(
    ("rows", "rank", "columns"), [(1, 1, 1), (3, 4, 5), (7, 5, 257), (40, 16, 576), (2, 130, 513)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_one_order(
    rows: int, rank: int, columns: int, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, or longer, and with numpy alone; from transposed views too."""
    rng = np.random.default_rng(rank)
    left = rng.standard_normal((rank, rows)).astype(dtype).T
    right = rng.standard_normal((columns, rank)).astype(dtype).T
    found = products.thin_product(left, right)
    exact = left.astype(np.longdouble) @ right.astype(np.longdouble)
    bound = rank * np.finfo(dtype).eps * (np.abs(left) @ np.abs(right))
    assert (np.abs(found - exact) <= bound).all()
    by_rows = [products.thin_product(left[i : i + 1], right) for i in range(rows)]
    assert np.concatenate(by_rows).tobytes() == found.tobytes()
    monkeypatch.setattr(products, "library", lambda: None)
    assert products.thin_product(left, right).tobytes() == found.tobytes()
