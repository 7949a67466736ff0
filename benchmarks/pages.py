"""Puts tables into pages, between the markers ``<!-- name -->`` and ``<!-- /name -->``.

    python -m benchmarks.pages      write benchmarks/README.md and the table of domains in
                                    docs/merging.md anew from benchmarks/results

Example:
    >>> replaced("<!-- a -->\\nold\\n<!-- /a -->", "a", "new")
    '<!-- a -->\\nnew\\n<!-- /a -->'
"""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["replaced", "write_pages"]

HERE = Path(__file__).parent
ELSEWHERE = {"domains": HERE.parent / "docs" / "merging.md"}
"""The tables that do not stand in benchmarks/README.md."""


def replaced(page: str, name: str, table: str) -> str:
    """The page with what stands between the markers replaced. Raises ValueError without them."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(start)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no lines `{start}` and `{end}`")
    return f"{before}{start}\n{table}\n{end}{after}"


def write_pages() -> None:
    """Every table of ``results`` into its page, and the figures of the chain."""
    tables = {f.stem: f.read_text("utf-8").strip() for f in (HERE / "results").glob("*.md")}
    for name, table in {**tables, "chain": _chain()}.items():
        page = ELSEWHERE.get(name, HERE / "README.md")
        page.write_text(replaced(page.read_text("utf-8"), name, table), "utf-8")


def _chain() -> str:
    found = json.loads((HERE / "results" / "chain.json").read_text("utf-8"))
    passes = ", ".join(f"{p:.2f}" for p in found["passes"])
    bits = "the same" if found["bits of the merges one by one"] else "others"
    return (
        "| output | peak resident memory | wall | each input is read "
        "| bits of the four merges made one by one |\n|---|---|---|---|---|\n"
        f"| {found['output_bytes'] / 1e9:.2f} GB | {found['peak_rss_bytes'] / 2**20:.0f} MiB | "
        f"{found['seconds']:.1f} s | {passes} times | {bits} |"
    )


if __name__ == "__main__":
    write_pages()
