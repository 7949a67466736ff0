"""Laws that merges declare, as the passes use them: on recipes that are run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipelang.checking import check_text
from recipelang.lineage.keys import StepIds
from recipelang.ops.registry import lookup
from recipelang.passes import run_passes, start
from tests.merging.projects import arrays_of, models, published, write_model

TWICE = models("a", "b") + (
    "x = a(weight = 0.5) -> linear-merge with b(weight = 0) {{ normalize = {0} }}\n"
    "m = x(weight = 0.5) -> linear-merge with b(weight = 0) {{ normalize = {0} }}\n"
)


@pytest.mark.parametrize(("normalize", "factor"), [("true", 1.0), ("false", 0.25)])
def test_a_mean_of_one_model_twice(normalize: str, factor: float, tmp_path: Path) -> None:
    """With `normalize` it is the model, and one step; without it each step scales by its weight,
    and both are carried out."""
    arrays = arrays_of(1)
    for name in ("a", "b"):
        write_model(tmp_path / name, arrays if name == "a" else arrays_of(2))
    text = TWICE.format(normalize)
    got = published(tmp_path, text)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], factor * array)
    program = check_text(text, folder=str(tmp_path)).program
    assert program is not None
    targets = program.roots(("m",))
    ids = StepIds(lambda node: str(node.attr("uri")), lookup)
    state = run_passes(start(program, targets, ids), check=True)
    steps = [node for node in state.nodes() if node.op == "linear-merge"]
    assert len(steps) == (1 if normalize == "true" else 2)
