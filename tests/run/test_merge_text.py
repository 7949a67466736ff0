"""Reports of merges as text and as pictures, and what of them is warned of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from recipelang.run.merge_plot import merge_svg
from recipelang.run.merge_reports import warnings
from recipelang.run.merge_text import bar_lines, bars, merge_line, merge_rows, merge_title, notes
from recipelang.run.results import plain_table
from recipelang.weights.figures import InputFigures, LayerFigures, MergeReport, Origin


def layer(label: str, norm: float | None = 1.0, cosine: float = 0.99, **changes: Any) -> Any:
    """A row of two inputs."""
    inputs = (
        InputFigures(norm, cosine, 0.8, 0.75), InputFigures(norm, cosine - 0.02, None, None),
    )  # fmt: skip
    row = LayerFigures(label, 2, 1000, 100, 0, norm, 0.8, 0.25, inputs)
    return replace(row, **changes)


def report(*rows: Any, whole: Any = None, **changes: Any) -> MergeReport:
    """A report with these rows."""
    made = MergeReport(
        "ties-merge", (Origin("chat"), Origin("code")), Origin("base"), rows,
        whole or layer("all", elements=4000, sampled=400), 0, (), None,
    )  # fmt: skip
    return replace(made, **changes)


def test_the_terminal_s_table() -> None:
    """The table, the bars and the notes, as they are printed."""
    found = report(
        layer("before", 1.01), layer("0", 0.97, 0.981, conflicts=0.31), layer("1", None, 0.95),
        layer("after", 1.2, conflicts=None, nonfinite=1234),
        whole=layer("all", 1.003, nonfinite=1234, elements=4000, sampled=400), unseen=2,
    )  # fmt: skip
    assert merge_title(found) == "ties-merge of chat and code from base"
    assert plain_table(merge_rows(found)).splitlines() == [
        "layer    norm  cos lowest  change  Δ cos chat  Δ cos code  conflicts  non-finite",
        "before  1.010      0.9700   0.800      0.7500           -      25.0%           0",
        "0       0.970      0.9610   0.800      0.7500           -      31.0%           0",
        "1           -      0.9300   0.800      0.7500           -      25.0%           0",
        "after   1.200      0.9700   0.800      0.7500           -          -       1,234",
        "all     1.003      0.9700   0.800      0.7500           -      25.0%       1,234",
    ]
    assert bar_lines(found) == [
        "by layer    before to after",
        "norm        ▂▁ █  0.970 to 1.200",
        "change      ▅▅▅▅  0.800 to 0.800",
        "Δ cos chat  ▅▅▅▅  0.7500 to 0.7500",
        "conflicts   ▁█▁   25.0% to 31.0%",
    ]
    assert notes(found) == [
        "norm: the result's to the mean of its inputs'; cos: cosine of the result to an input",
        "change, Δ cos: the same of the differences to base; conflicts: elements that inputs move "
        "both ways",
        "estimated from 400 of 4,000 elements; infinities and NaN are counted in all",
        "2 tensors are left out: an interrupted run wrote them, and their figures are lost",
    ]
    assert merge_line(found) == (
        "norm 1.003, cos lowest 0.9700, change 0.800, Δ cos chat 0.7500, Δ cos code -, "
        "conflicts 25.0%, non-finite 1,234"
    )


def test_many_inputs_share_columns() -> None:
    """Of more than four inputs the lowest and the highest figure is shown."""
    inputs = tuple(InputFigures(1.0, 0.9 + i / 100, None, None) for i in range(5))
    row = LayerFigures("0", 1, 1, 1, 0, 1.0, None, None, inputs)
    names = tuple(Origin(name) for name in "abcde")
    found = MergeReport("linear-merge", names, None, (row,), row, 0, (), None)
    assert merge_title(found) == "linear-merge of a, b, c, d and e"
    assert merge_rows(found)[:2] == [
        ["layer", "norm", "cos lowest", "cos highest"], ["0", "1.000", "0.9000", "0.9400"],
    ]  # fmt: skip


def test_bars() -> None:
    """From the lowest to the highest value; a small range is not blown up."""
    assert bars([0, 1, 2, 3, 4, 5, 6, 7], least=0.02) == "▁▂▃▄▅▆▇█"
    assert bars([1.0, 1.0001], least=0.02) == "▄▅"
    assert bars([None, None], least=0.02) == "  "


def test_pictures_have_a_panel_a_kind() -> None:
    """Ratios, cosines and conflicts; without a base the last is left out, and names are escaped."""
    found = report(layer("0"), layer("1"), inputs=(Origin("a<b"), Origin("c")))
    drawn = ElementTree.fromstring(merge_svg("both", found))
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert {"ratio", "cosine", "share", "0", "1", "norm", "Δ cos a<b"} <= set(texts)
    alone = MergeReport("linear-merge", found.inputs, None,
                        tuple(replace(r, conflicts=None) for r in found.layers),
                        replace(found.whole, conflicts=None), 0, (), None)  # fmt: skip
    drawn = ElementTree.fromstring(merge_svg("both", alone))
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert "share" not in texts
    assert "cos a<b" in texts


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (report(layer("0", 0.51), layer("1", 1.99)), []),
        (report(layer("0", 0.49), layer("1"), layer("2", 0.1)),
         ["W0651: `m` has 0.1 times the norm of its inputs in layers 0 and 2"]),
        (report(layer("before", 0.0), layer("0", 3.0)),
         ["W0651: `m` has 0 times the norm of its inputs in layer 0 and the tensors before the "
          "layers"]),
        (report(layer("0", cosine=0.45), layer("1", cosine=0.51)),
         ["W0652: `m` is unlike each of its inputs in layer 0: the cosine to the nearest is "
          "0.45"]),
        (report(layer("0"), whole=layer("all", change_ratio=12.5)),
         ["W0653: `m` is 12.5 times as far from `base` as its inputs are"]),
        (report(layer("0"), equal_to=2, whole=layer("all")),
         ["W0654: `m` is `base` in each of 100 numbers that were compared, though another input "
          "differs"]),
        (report(layer("0"), nonfinite=(("x", 3),), whole=layer("all", nonfinite=3)),
         ["W0650: `m` holds 3 infinities or NaN, the first in `x`"]),
    ],
)  # fmt: skip
def test_warnings(found: MergeReport, told: list[str]) -> None:
    """Each sign has one warning, and figures just within the bounds have none."""
    assert [f"{d.code}: {d.message}" for d in warnings("m", found)] == told
