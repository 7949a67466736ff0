"""Every merge by the compiled library has the bits that it has on numpy."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipelang.native import library
from recipelang.weights import blocks
from recipelang.weights.arrays import HOST
from recipelang.weights.strips.arrays import STRIPS
from tests.conformance.merge_cases import cases, merge_verbs
from tests.weights.models import bits, compute


@pytest.mark.skipif(library() is None, reason="the compiled part was not built")
@pytest.mark.parametrize("size", [1 << 17, 12])
@pytest.mark.parametrize("verb", merge_verbs())
def test_a_merge_has_numpys_bits(
    verb: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every setting of every merge, in each dtype, in one block and in several."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", size)
    for dtype in ("F64", "F32", "F16", "BF16"):
        for number, case in enumerate(cases(verb, dtype)):
            place = tmp_path / dtype / str(number)
            expected, _ = compute(case.step, place / "numpy", arrays=HOST)
            got, _ = compute(case.step, place / "strips", arrays=STRIPS)
            assert {n: bits(a) for n, a in got.items()} == {
                n: bits(a) for n, a in expected.items()
            }, (dtype, case.setting)
