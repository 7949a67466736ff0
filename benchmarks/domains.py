"""Which merge of three fine-tunes knows all three domains best: the table of docs/merging.md.

    python -m benchmarks.domains [--store FOLDER] [--steps 24] [--scored 1536]

Runs `domains.recipe` on torch, scores the windows behind its tables once more for the intervals of
means and of differences, and writes results/domains.json and .md. What was computed stays in the
store (`benchmarks/.recipe` unless another one is named), so a run that was ended goes on from its
last finished step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.windows import Sums, interval, mean, resampled_means, window_sums

HERE = Path(__file__).parent
RECIPE = HERE / "domains.recipe"
BACKEND, METRIC = "torch", "bits-per-byte"
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
    settings = {"steps": f"{given.steps} steps", "scored": f"{given.scored} tokens"}
    os.environ["RECIPE_STORE"] = str(given.store)
    found = run(settings)
    rows = rows_of(found["tables"])
    add_means(rows, window_sums(RECIPE, settings, BACKEND))
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


def run(settings: Mapping[str, str]) -> Any:
    """The results of `recipe run`, as JSON."""
    given = [word for item in settings.items() for word in ("--set", "=".join(item))]
    command = (sys.executable, "-m", "recipelang", "run", str(RECIPE), "--backend", BACKEND)
    path = os.pathsep.join((str(HERE.parent), str(HERE.parent / "backends")))
    ran = subprocess.run(
        [*command, *given, "--format", "json"], check=True, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    return json.loads(ran.stdout)


def rows_of(tables: Any) -> dict[str, Any]:
    """Model -> ``domains`` -> domain -> the measurement."""
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
            found[model] = {"domains": cells}
    return found


def add_means(rows: dict[str, Any], sums: Mapping[str, Mapping[str, Sums]]) -> None:
    """To each row the mean of its domains, the difference to the best fine-tune's, both with 95 %
    intervals from resampled windows, and the sums of its windows.

    The best fine-tune is the one of the lowest mean. Raises ValueError where the windows do not
    give the value of a cell.
    """
    for name, row in rows.items():
        for data, domain in DOMAINS.items():
            cell = row["domains"][domain]
            if abs(sums[name][data].bits_per_byte - cell["value"]) > 1e-9:
                raise ValueError(f"the windows of {name} on {data} are not those of its cell")
    best = min(SIBLINGS, key=lambda name: mean(sums[name]))
    reference = resampled_means(sums[best])
    for name, row in rows.items():
        drawn = resampled_means(sums[name])
        low, high = interval(drawn)
        row["mean"] = {"value": mean(sums[name]), "low": low, "high": high}
        low, high = interval(drawn - reference)
        value = mean(sums[name]) - mean(sums[best])
        row["difference"] = {"to": best, "value": value, "low": low, "high": high}
        row["windows"] = {
            domain: {"bits": sums[name][data].bits, "bytes": sums[name][data].bytes}
            for data, domain in DOMAINS.items()
        }


def markdown(result: Any) -> str:
    """The table, the merges by their means, and what it says."""
    rows = result["rows"]
    merges = [name for name in rows if name not in (BASE, *SIBLINGS)]
    order = [BASE, *SIBLINGS, *sorted(merges, key=lambda name: _mean(rows[name]))]
    best = rows[BASE]["difference"]["to"]
    heads = [*DOMAINS.values(), "mean", f"mean, less that of {best}"]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in order:
        row = rows[name]
        cells = [_cell(cell) for cell in (*row["domains"].values(), row["mean"])]
        less = "" if name == best else _cell(row["difference"], "+.3f")
        lines.append(f"| {' | '.join([_plain(name), *cells, less])} |")
    return "\n".join([*lines, "", *said(rows, merges), "", *notes(result), ""])


def said(rows: Any, merges: list[str]) -> list[str]:
    """How the merges stand to the base and to the best of the fine-tunes."""
    best = rows[BASE]["difference"]["to"]
    lower = [m for m in merges if rows[m]["difference"]["value"] < 0]
    surely = [m for m in merges if rows[m]["difference"]["high"] < 0]
    worse = [m for m in merges if m not in lower]
    first = min(merges, key=lambda name: _mean(rows[name]))
    text = (
        f"{len(lower)} of the {len(merges)} merges have a lower mean than every fine-tune, "
        f"{len(surely)} of them with an interval of the difference that lies below 0: the best "
        f"fine-tune, {best}, is at {_mean(rows[best]):.3f}, the base at {_mean(rows[BASE]):.3f}, "
        f"and {_plain(first)} at {_mean(rows[first]):.3f}."
    )
    if worse:
        named = ", ".join(_plain(name) for name in worse)
        text += f" Not lower: {named}."
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
    scored = _range(counts)
    windows = _range([len(each["bits"]) for each in rows[BASE]["windows"].values()])
    return [
        f"Bits per byte on {scored} scored tokens a domain, with 95 % bootstrap intervals over "
        f"{windows} windows of 256 tokens a domain; less is better. The intervals of means draw "
        "windows within each domain, those of differences the same windows for both models: they "
        "tell what other texts of these domains would, not other domains. Merges have their "
        "default parameters and no weights, but half task arithmetic the scale 0.5; SLERP, "
        "NuSLERP, nearswap (t = 0.0002) and fusion take two models, so they merge lexicon with "
        "spanish and the result with cynic, the first two with equal shares in the end. The greedy "
        f"soup, chosen on other texts, took {taken}.",
        "",
        f"`{result['command']}`",
    ]


def _mean(row: Any) -> float:
    return float(row["mean"]["value"])


def _cell(found: Any, form: str = ".3f") -> str:
    """``1.324 [1.290, 1.370]``."""
    value, low, high = (format(found[key], form) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _range(counts: list[int]) -> str:
    """Equal counts once, others from the least to the most."""
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _plain(name: str) -> str:
    return name.replace("_", " ")


if __name__ == "__main__":
    main()
