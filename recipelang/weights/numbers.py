"""Number formats: widening to float32 (float64), and rounding once to what is stored.

Rounding is to nearest, ties to even (IEEE 754); NaN stays NaN, and what is too large becomes an
infinity, which a merge reports.

Example:
    >>> import numpy as np
    >>> narrow(np.array([1.00390625], np.float32), "BF16").astype(np.float32)
    array([1.], dtype=float32)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOATS", "all_finite", "compute_dtype", "narrow", "numpy_dtype", "widen"]

DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16), "I64": np.dtype("<i8"), "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"), "I8": np.dtype("i1"), "U8": np.dtype("u1"), "BOOL": np.dtype("?"),
    "U16": np.dtype("<u2"), "U32": np.dtype("<u4"), "U64": np.dtype("<u8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""The dtypes that weight operations compute with; tensors of others are copied."""
EXPONENTS = {"F64": 0x7FF0_0000_0000_0000, "F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a safetensors dtype name."""
    return DTYPES[name]


def compute_dtype(name: str) -> np.dtype[Any]:
    """What a stored dtype is computed in: float64 for F64, float32 for the others."""
    return np.dtype(np.float64) if name == "F64" else np.dtype(np.float32)


def widen(stored: NDArray[Any], to: np.dtype[Any]) -> NDArray[Any]:
    """Stored numbers as float32 or float64; exact but from F64 to float32, which rounds."""
    return stored.astype(to)


def narrow(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Values as a stored dtype, rounded once."""
    if dtype == "BF16" and values.dtype == np.float64:
        return _to_odd(values).astype(DTYPES["BF16"])
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return values.astype(DTYPES[dtype], copy=False)


def _to_odd(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """float64 to float32 rounded to odd, after which a rounding to bfloat16 is the only one (Boldo
    and Melquiond 2008): converting to nearest twice would be wrong by one unit near halfway
    cases."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        near = values.astype(np.float32)
        back = near.astype(np.float64)
        toward_zero = np.where(
            np.abs(back) > np.abs(values), np.nextafter(near, np.float32(0)), near
        )
    inexact = (toward_zero.astype(np.float64) != values) & np.isfinite(values)
    odd = toward_zero.view(np.uint32) | inexact.astype(np.uint32)
    result: NDArray[np.float32] = odd.view(np.float32)
    return result


def all_finite(stored: NDArray[Any], dtype: str) -> bool:
    """Whether no number is an infinity or NaN, from the bits alone: as signed integers the positive
    ones among them stand above all other numbers, as unsigned ones the negative ones do."""
    if dtype not in EXPONENTS or stored.size == 0:
        return True
    size, exponent = stored.dtype.itemsize, EXPONENTS[dtype]
    sign = 1 << (8 * size - 1)
    if int(stored.view(f"i{size}").max()) >= exponent:
        return False
    return int(stored.view(f"u{size}").max()) < sign | exponent
