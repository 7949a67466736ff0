"""The tables of conformance with mergekit, from the fixtures alone: no mergekit is needed.

python -m benchmarks.conformance                        print them
python -m benchmarks.conformance --into docs/merging.md write them between the page's markers

A page has the lines ``<!-- conformance -->`` and ``<!-- /conformance -->``, and the same with
``definitions``; what stands between them is replaced.

Example:
    >>> number(2.34e-8), number(0.0)
    ('2e-08', '0')
"""

from __future__ import annotations

import argparse
import tempfile
import tomllib
from pathlib import Path

from benchmarks.mergekit.cases import Case
from benchmarks.mergekit.compare import Bench, available_cases
from benchmarks.mergekit.masks import expected, kept_entries, recorded_entries
from benchmarks.pages import replaced

DEFINITIONS = Path(__file__).parent / "mergekit" / "definitions.toml"


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, help="a page with markers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = {"conformance": conformance(Bench.open(Path(folder)))}
    tables["definitions"] = definitions()
    if options.into is None:
        print("\n\n".join(tables.values()))
        return
    text = options.into.read_text("utf-8")
    for name, table in tables.items():
        text = replaced(text, name, table)
    options.into.write_text(text, "utf-8")


def conformance(bench: Bench) -> str:
    """A row a case, by method: the largest difference of what gives mergekit's result, and of what
    one would write where that means something else."""
    lines = [
        "| mergekit | case | same meaning | as one would write it | because of |",
        "|---|---|---|---|---|",
    ]
    for case in sorted(available_cases(), key=lambda case: case.method):
        same, plain = differences(bench, case)
        because = ", ".join(case.differs)
        lines.append(f"| {case.method} | {case.shows} | {same} | {plain} | {because} |")
    return "\n".join(lines)


def differences(bench: Bench, case: Case) -> tuple[str, str]:
    """The two differences, as a table shows them. That of random masks is between each result and
    the formula, given its masks."""
    if case.masks:
        step = bench.step(case.recipe)
        theirs = bench.difference(case, expected(step, recorded_entries(bench, case, step)))
        ours = bench.distance(bench.run(step).tensors, expected(step, kept_entries(bench, step)))
        same = number(max(theirs, ours)) + " (given the masks)"
        if not case.plain:
            return same, ""
        plain = bench.step(case.plain)
        masks = kept_entries(bench, plain)
        return same, number(bench.distance(bench.run(plain).tensors, expected(step, masks)))
    same = "none"
    if case.recipe:
        result = bench.result(case.recipe, compat=case.compat)
        same = number(bench.difference(case, result.tensors)) + " (compat)" * case.compat
    if case.refused:
        return same, f"error {case.refused}"
    if not case.differs:
        return same, ""
    other = bench.result(case.plain or case.recipe)
    return same, number(bench.difference(case, other.tensors))


def definitions() -> str:
    """What differs by name, and whether `compat = mergekit` undoes it."""
    lines = [
        "| | recipelang | mergekit 0.1.5 | `compat = mergekit` |",
        "|---|---|---|---|",
    ]
    for name, entry in tomllib.loads(DEFINITIONS.read_text("utf-8")).items():
        undone = "mergekit's" if entry.get("compat") else "the same"
        row = (name, entry["recipelang"], entry["mergekit"], undone)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return "\n".join(lines)


def number(difference: float) -> str:
    """One digit: more would differ from processor to processor."""
    if difference == float("inf"):
        return "other shapes"
    return f"{difference:.0e}" if difference else "0"


if __name__ == "__main__":
    main()
