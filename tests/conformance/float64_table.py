"""The differences of every merge and structure from float64, as a table.

    python -m tests.conformance.float64_table                                        print it
    python -m tests.conformance.float64_table --into docs/parts/merging-float64.md   write it

A page has the lines ``<!-- float64 -->`` and ``<!-- /float64 -->``; what stands between them is
replaced. Differences are in units of the last place that the result's dtype has at the largest
number of the tensor.

Example:
    >>> unit("BF16", 1.5), unit("F32", 0.75) * 2**24
    (0.0078125, 1.0)
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import frexp
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pages import replaced
from recipelang.weights.arrays import HOST, Arrays
from tests.conformance.merge_cases import EPSILON, ROUNDED_CHOICES, Case, cases, merge_verbs
from tests.conformance.structure_cases import Structure, structures
from tests.ops_merge.references import expected
from tests.weights.models import compute

PAGE = Path(__file__).parents[2] / "docs" / "parts" / "merging-float64.md"
NAME = "float64"
DTYPES = ("BF16", "F16", "F32")
PLACES = {"engine": "engine", "torch": "torch", "jax": "JAX"}
BOUND = {"BF16": 0.51, "F16": 0.51, "F32": 4.0, "F64": 4.0}
"""Units that a result may be off by: one rounding, and in float32 what a few operations round."""
APART = {"BF16": 0.05, "F16": 0.05, "F32": 2.0, "F64": 2.0}
"""Units that two machines' results may be apart by."""
FLIPS = 0.1
"""The share of a tensor's numbers that a choice in float32 may take from the other model."""


@dataclass(frozen=True, slots=True)
class Found:
    """The largest difference in units, how many numbers are the other model's, and whether that is
    as it should be. ``dtype`` is what the result is stored in."""

    units: float
    flips: int
    good: bool
    dtype: str

    def __str__(self) -> str:
        text = f"{self.units:.2f}" if self.units else "0"
        return f"{text} ({self.flips} other)" if self.flips else text


Key = tuple[str, str]
"""Verb and setting."""


def unit(dtype: str, size: float) -> float:
    """The step from a number of this size to the next that the dtype has."""
    least = 2.0**-24 if dtype == "F16" else 2.0**-149
    return max(2.0 ** (frexp(size)[1] - 1) * EPSILON[dtype], least)


def of_case(case: Case, got: Mapping[str, Any]) -> Found:
    """A merge's difference; of a choice that is made in float32 the numbers that it took from the
    other model are counted."""
    wanted = expected(case.step)
    flips, good, values = 0, True, dict(got)
    if (case.verb, case.setting) in ROUNDED_CHOICES:
        for name, array in got.items():
            other = array.astype(np.float64) != wanted[name]
            stored = [model.arrays[name] == array for model in case.models]
            flipped = other & np.any(stored, axis=0)
            flips += int(flipped.sum())
            good &= bool(flipped.mean() <= FLIPS)
            values[name] = np.where(flipped, wanted[name], array.astype(np.float64))
    units, dtype = _largest(case.step.tensors, values, wanted)
    return Found(units, flips, good and units <= BOUND[dtype], dtype)


def of_structure(structure: Structure, got: Mapping[str, Any]) -> Found:
    """A structure's difference."""
    values = structure.read(dict(got))
    units, dtype = _largest(structure.step.tensors, values, structure.expected())
    return Found(units, 0, units <= BOUND[dtype], dtype)


def _largest(
    tensors: Mapping[str, Any], got: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[float, str]:
    """The largest difference, and the dtype. What is made of factors has float32's units."""
    assert set(got) == set(wanted)
    dtypes = {name: tensors[name].dtype if name in tensors else "F32" for name in got}
    (dtype,) = set(dtypes.values())
    units = [
        np.max(np.abs(got[n].astype(np.float64) - wanted[n]))
        / unit(dtype, float(np.max(np.abs(wanted[n]))))
        for n in got
    ]
    return float(np.max(units)), dtype


def keys(folder: Path) -> Iterator[Key]:
    """The table's rows."""
    for verb in merge_verbs():
        yield from ((case.verb, case.setting) for case in cases(verb, DTYPES[0]))
    yield from ((s.verb, s.setting) for s in structures(DTYPES[0], folder))


def column(dtype: str, arrays: Arrays, folder: Path) -> dict[Key, Found]:
    """The differences of one dtype in one place."""
    found: dict[Key, Found] = {}
    for verb in merge_verbs():
        for case in cases(verb, dtype):
            got, _ = compute(case.step, folder / "result", arrays=arrays)
            found[case.verb, case.setting] = of_case(case, got)
    for structure in structures(dtype, folder / "models"):
        got, _ = compute(structure.step, folder / "result", arrays=arrays)
        found[structure.verb, structure.setting] = of_structure(structure, got)
    return found


def table(columns: Mapping[tuple[str, str], Mapping[Key, Found]]) -> str:
    """Markdown, from the columns by dtype and place."""
    titles = [f"{dtype.lower()} {PLACES[place]}" for dtype, place in columns]
    head = ["verb", "setting", *titles]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for verb, setting in next(iter(columns.values())):
        cells = [str(column[verb, setting]) for column in columns.values()]
        lines.append("| " + " | ".join([verb, setting, *cells]) + " |")
    return "\n".join(lines)


def recorded() -> dict[Key, dict[tuple[str, str], str]]:
    """The page's cells: by verb and setting, by dtype and place."""
    text = PAGE.read_text("utf-8")
    text = text.partition(f"<!-- {NAME} -->\n")[2].partition(f"\n<!-- /{NAME} -->")[0]
    places = [(dtype, place) for dtype in DTYPES for place in PLACES]
    found: dict[Key, dict[tuple[str, str], str]] = {}
    for line in text.splitlines()[2:]:
        verb, setting, *cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        found[verb, setting] = dict(zip(places, cells, strict=True))
    return found


def in_step(found: Found, cell: str) -> bool:
    """Whether a page's cell is what is found now, on whatever machine: the result is good, and the
    two numbers are near one another. Which choices flip is the processor's."""
    return found.good and abs(float(cell.split()[0]) - found.units) <= APART[found.dtype]


def main() -> None:
    """Print the table, or write it into a page."""
    from tests.conformance.places import ARRAYS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, help="a page with markers")
    options = parser.parse_args()
    places: dict[str, Arrays] = {**ARRAYS, "engine": HOST}
    with tempfile.TemporaryDirectory() as folder:
        made = {
            (dtype, place): column(dtype, places[place], Path(folder))
            for dtype in DTYPES
            for place in PLACES
        }
    if options.into is None:
        print(table(made))
    else:
        page = options.into.read_text("utf-8")
        options.into.write_text(replaced(page, NAME, table(made)), "utf-8")
    bad = [key for column in made.values() for key, found in column.items() if not found.good]
    raise SystemExit(f"outside the bound: {bad}" if bad else 0)


if __name__ == "__main__":
    main()
