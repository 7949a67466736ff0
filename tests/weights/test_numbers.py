"""Number formats: one rounding, to nearest even, for every kind of number."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recipelang.weights.numbers import all_finite, narrow, numpy_dtype, widen


def test_every_bfloat16_survives() -> None:
    """Widening and narrowing gives the bits back for all 65536 patterns but the payloads of NaN."""
    every = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    wide = widen(every, np.dtype(np.float32))
    back = narrow(wide, "BF16")
    nan = np.isnan(wide)
    assert np.array_equal(back.view(np.uint16)[~nan], every.view(np.uint16)[~nan])
    assert np.isnan(back[nan].astype(np.float32)).all()
    assert np.array_equal(wide[~nan], every.astype(np.float32)[~nan])


@given(st.floats(width=64, allow_nan=False, allow_infinity=False, min_value=-1e38, max_value=1e38))
def test_double_to_bfloat16_rounds_once(value: float) -> None:
    """float64 goes to the nearest bfloat16, ties to even, not by way of float32."""
    got = narrow(np.array([value]), "BF16")
    number = Fraction(float(got[0]))
    place = int(got.view(np.uint16)[0])
    for step in (-1, 1):
        other = np.array([(place + step) & 0xFFFF], np.uint16).view(ml_dtypes.bfloat16)
        if not np.isfinite(float(other[0])):
            continue
        gap, best = abs(Fraction(float(other[0])) - Fraction(value)), abs(number - Fraction(value))
        assert best < gap or (
            best == gap and (place % 2 == 0 or number == Fraction(float(other[0])))
        )


def test_non_finite_numbers_are_seen() -> None:
    """Infinities and NaN of every format are found, and the largest finite number is none of
    them."""
    for name in ("F64", "F32", "F16", "BF16"):
        dtype = numpy_dtype(name)
        largest = np.array([ml_dtypes.finfo(dtype).max], dtype)
        assert all_finite(largest, name)
        for bad in (np.inf, -np.inf, np.nan):
            assert not all_finite(np.array([1, bad, 2]).astype(dtype), name)
    assert all_finite(np.empty(0, np.float32), "F32")
