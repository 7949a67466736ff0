"""Which merge of three fine-tunes knows all three domains best: the table of docs/merging.md.

    python -m benchmarks.domains [--store FOLDER] [--steps 24] [--scored 1536]

Runs `domains.recipe` on torch and writes results/domains.json and .md. What was computed stays in
the store (`benchmarks/.recipe` unless another one is named), so a run that was ended goes on from
its last finished step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPE = HERE / "domains.recipe"
METRIC = "bits-per-byte"
BASE, SIBLINGS = "base", ("lexicon", "spanish", "cynic")
DOMAINS = {
    "unseen_definitions": "definitions",
    "unseen_verses": "Spanish verses",
    "unseen_satire": "satire",
}


def main() -> None:
    """Run the recipe and write its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=HERE / ".recipe")
    parser.add_argument("--steps", type=int, default=24, help="of each fine-tune")
    parser.add_argument("--scored", type=int, default=1536, help="tokens of each domain")
    given = parser.parse_args()
    found = run(given.store, given.steps, given.scored)
    rows = rows_of(found["tables"])
    result = {
        "command": f"python -m benchmarks.domains --steps {given.steps} --scored {given.scored}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "metric": METRIC,
        "rows": rows,
        "soup": found["soups"]["greedy_soup"],
    }
    folder = HERE / "results"
    (folder / "domains.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (folder / "domains.md").write_text(markdown(result), "utf-8")


def run(store: Path, steps: int, scored: int) -> Any:
    """The results of `recipe run`, as JSON."""
    settings = ("--set", f"steps={steps} steps", "--set", f"scored={scored} tokens")
    command = (sys.executable, "-m", "recipelang", "run", str(RECIPE), "--backend", "torch")
    path = os.pathsep.join((str(HERE.parent), str(HERE.parent / "backends")))
    ran = subprocess.run(
        [*command, *settings, "--format", "json"], check=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "RECIPE_STORE": str(store)},
    )  # fmt: skip
    return json.loads(ran.stdout)


def rows_of(tables: Any) -> dict[str, Any]:
    """Model -> domain -> the measurement, and the plain mean of the domains."""
    found: dict[str, Any] = {}
    for table in tables.values():
        for model in table["models"]:
            cells = {
                name: {
                    key: table["cells"][model][data][METRIC][key]
                    for key in ("value", "low", "high", "count")
                }
                for data, name in DOMAINS.items()
            }
            mean = sum(cell["value"] for cell in cells.values()) / len(cells)
            found[model] = {"domains": cells, "mean": mean}
    return found


def markdown(result: Any) -> str:
    """The table, the merges by their means, and what it says."""
    rows = result["rows"]
    merges = [name for name in rows if name not in (BASE, *SIBLINGS)]
    order = [BASE, *SIBLINGS, *sorted(merges, key=lambda name: rows[name]["mean"])]
    lines = [f"| | {' | '.join(DOMAINS.values())} | mean |", "|---" * (len(DOMAINS) + 2) + "|"]
    for name in order:
        cells = [
            f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"
            for cell in rows[name]["domains"].values()
        ]
        lines.append(f"| {' | '.join([_plain(name), *cells])} | {rows[name]['mean']:.3f} |")
    return "\n".join([*lines, "", *said(rows, merges), "", *notes(result), ""])


def said(rows: Any, merges: list[str]) -> list[str]:
    """How the merges stand to the base and to the best of the fine-tunes."""
    best = min(SIBLINGS, key=lambda name: rows[name]["mean"])
    better = [m for m in merges if rows[m]["mean"] < rows[best]["mean"]]
    worse = [m for m in merges if m not in better]
    first = min(merges, key=lambda name: rows[name]["mean"])
    text = (
        f"{len(better)} of the {len(merges)} merges beat every fine-tune on the mean: the best "
        f"fine-tune, {best}, is at {rows[best]['mean']:.3f}, the base at {rows[BASE]['mean']:.3f}, "
        f"and {_plain(first)} at {rows[first]['mean']:.3f}."
    )
    if worse:
        named = ", ".join(_plain(name) for name in worse)
        text += f" Those that do not: {named}."
    owners = zip(DOMAINS.values(), SIBLINGS, strict=True)
    beaten = [
        domain
        for domain, owner in owners
        if any(
            rows[m]["domains"][domain]["value"] < rows[owner]["domains"][domain]["value"]
            for m in merges
        )
    ]
    text += (
        f" Some merge beats a fine-tune on that fine-tune's own domain in: {', '.join(beaten)}."
        if beaten
        else " On its own domain every fine-tune is better than every merge."
    )
    return [text]


def notes(result: Any) -> list[str]:
    """What was measured, and what the soup took."""
    rows, soup = result["rows"], result["soup"]
    counts = [cell["count"] for cell in rows[BASE]["domains"].values()]
    names = [soup["candidates"][i]["name"] for i in soup["accepted"]]
    taken = f"{names[0]} alone" if len(names) == 1 else " and ".join(names)
    taken = "all three" if len(names) == len(SIBLINGS) else taken
    scored = f"{counts[0]:,}" if len(set(counts)) == 1 else " to ".join(map(str, sorted(counts)))
    return [
        f"Bits per byte on {scored} scored tokens a domain, with 95 % bootstrap intervals over "
        "windows of 256 tokens; less is better. Merges have their default parameters and no "
        "weights, but half task arithmetic the scale 0.5. The greedy soup, chosen on other texts, "
        f"took {taken}.",
        "",
        f"`{result['command']}`",
    ]


def _plain(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    main()
