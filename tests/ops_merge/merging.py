"""Merges of models in memory, and what counts as equal to a float64 reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from recipelang.weights.numbers import narrow
from recipelang.weights.region import Operand
from tests.ops_merge.test_formulas import step
from tests.weights.models import Memory, compute

DTYPES = ["F64", "F32", "BF16", "F16"]


def close(got: Any, expected: Any, dtype: str) -> None:
    """Equal up to one rounding to the stored dtype, and a few of float32 at the tensor's size."""
    relative = {"F64": 1e-14, "F32": 4e-7, "BF16": 2**-8, "F16": 2**-10}[dtype]
    size = float(np.abs(expected).max())
    absolute = size * (1e-13 if dtype == "F64" else 1e-6)
    absolute += 2**-25 if dtype == "F16" else 0  # half of float16's least step
    np.testing.assert_allclose(got.astype(np.float64), expected, rtol=relative, atol=absolute)


def one(values: Any, dtype: str = "F64") -> Memory:
    """A model of one tensor ``w``."""
    array = np.asarray(values, np.float64)
    wide = array if dtype == "F64" else array.astype(np.float32)
    return Memory({"w": narrow(wide.reshape(-1), dtype).reshape(array.shape)})


def merged(folder: Path, verb: str, models: Any, base: Any = None, **fields: Any) -> dict[str, Any]:
    """The arrays of a merge."""
    roles: dict[str, tuple[Operand, ...]] = {"inputs": tuple(models)}
    if base is not None:
        roles["base"] = (base,)
    return compute(step(verb, roles, **fields), folder)[0]
