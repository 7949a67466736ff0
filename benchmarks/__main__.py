"""Run every benchmark and write its results: ``python -m benchmarks`` (``make bench``).

Needs about 20 GB of free space in the temporary folder and an hour of a quiet machine. Merging is
measured beside mergekit: ``MERGEKIT`` names a Python that has it (half an hour more); without, that
table stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.pages import write_pages

ROOT = Path(__file__).parents[1]


def main() -> None:
    """One benchmark after the other; each writes ``benchmarks/results/NAME.json`` and its table."""
    with tempfile.TemporaryDirectory() as folder:
        beside = os.environ.get("MERGEKIT")
        merge = ["merge", "--folder", f"{folder}/merge", "--rounds", "1", "--mergekit", str(beside)]
        runs = (
            ["check"],
            *([merge] if beside else []),
            ["scaling", "--folder", f"{folder}/scaling"],
            ["quickstart"],
            ["domains", "--store", f"{folder}/domains"],
            ["chain", "--folder", f"{folder}/chain"],
            ["training", "--rounds", "3", "--steps", "3", "--threads", "1"],
        )
        for name, *arguments in runs:
            print(f"== {name}", flush=True)
            command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
            subprocess.run(command, check=True, cwd=ROOT)
    write_pages()
    for module, page in (
        ("benchmarks.conformance", "docs/merging.md"),
        ("tests.conformance.float64_table", "docs/parts/merging-float64.md"),
    ):
        subprocess.run([sys.executable, "-m", module, "--into", page], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
