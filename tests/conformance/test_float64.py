"""The page of differences from float64: it has every merge and structure, and its numbers hold.

Its merges are held beside their device's in ``test_weight_arrays``, which computes them anyway.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipelang.ops.registry import lookup, verbs
from recipelang.weights.arrays import HOST
from tests.conformance import float64_table
from tests.conformance.merge_cases import Case, cases, merge_verbs
from tests.conformance.places import ARRAYS, LIBRARIES
from tests.conformance.structure_cases import structures
from tests.ops_merge.references import RULES
from tests.weights.models import compute


def test_the_page_has_every_row(tmp_path: Path) -> None:
    """A new verb, field or choice needs one: `python -m tests.conformance.float64_table --into
    docs/parts/merging-float64.md`."""
    assert list(float64_table.recorded()) == list(float64_table.keys(tmp_path))


def test_every_operation_on_weights_has_a_row() -> None:
    """A merge has a float64 reference, anything else stands among the structures."""
    found = {verb for verb in verbs() if (o := lookup(verb)) and o.kind == "weights"}
    assert set(merge_verbs()) == set(RULES)
    assert found <= {verb for verb, _ in float64_table.recorded()}


@LIBRARIES
@pytest.mark.parametrize("dtype", float64_table.DTYPES)
def test_structures_agree_with_float64(dtype: str, library: str, tmp_path: Path) -> None:
    """Up to the roundings that the page shows; on numpy it is the host's engine."""
    place = "engine" if library == "numpy" else library
    arrays = HOST if library == "numpy" else ARRAYS[library]
    page = float64_table.recorded()
    for structure in structures(dtype, tmp_path / "models"):
        got, _ = compute(structure.step, tmp_path / "result", arrays=arrays)
        found = float64_table.of_structure(structure, got)
        cell = page[structure.verb, structure.setting][dtype, place]
        assert float64_table.in_step(found, cell), (structure.setting, found, cell)


def merge(verb: str, setting: str, dtype: str) -> Case:
    """One of the cases."""
    return next(case for case in cases(verb, dtype) if case.setting == setting)


@pytest.mark.parametrize(("dtype", "units"), [("BF16", 1.0), ("F16", 1.0), ("F32", 8.0)])
def test_another_rounding_is_noticed(dtype: str, units: float, tmp_path: Path) -> None:
    """One number that is one unit off in 16 bits, eight in float32."""
    case = merge("magmax-merge", "defaults", dtype)
    got, _ = compute(case.step, tmp_path)
    assert float64_table.in_step(float64_table.of_case(case, got), "0")
    array = got["model.norm.weight"]
    step = float64_table.unit(dtype, float(np.max(np.abs(array.astype(np.float64)))))
    array[0] += array.dtype.type(units * step)
    found = float64_table.of_case(case, got)
    assert found.units == pytest.approx(units, abs=0.5)
    assert not found.good
    assert not float64_table.in_step(found, f"{found.units:.2f}")


def test_a_cell_that_was_other_is_noticed(tmp_path: Path) -> None:
    """A page that was not written anew."""
    case = merge("linear-merge", "defaults", "BF16")
    got, _ = compute(case.step, tmp_path)
    found = float64_table.of_case(case, got)
    assert float64_table.in_step(found, str(found))
    assert not float64_table.in_step(found, "0")


def test_only_choices_that_are_made_in_float32_may_flip(tmp_path: Path) -> None:
    """A number of the other model counts as one where mergekit's fusion took it, and only few do;
    elsewhere it is a difference."""
    rounded = merge("fusion-merge", "… compat = mergekit", "F32")
    plain = merge("fusion-merge", "defaults", "F32")
    name = "model.embed_tokens.weight"
    for case, good in ((rounded, True), (plain, False)):
        got, _ = compute(case.step, tmp_path)
        before = float64_table.of_case(case, got)
        a, b = (model.arrays[name].reshape(-1) for model in case.models[1:3])
        ours = got[name].reshape(-1)
        place = int(np.flatnonzero(ours == a)[0])
        ours[place] = b[place]
        found = float64_table.of_case(case, got)
        assert before.good
        assert found.good == good
        assert found.flips >= good
    got[name][:] = rounded.models[3].arrays[name]
    assert not float64_table.of_case(rounded, got).good
