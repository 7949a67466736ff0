"""Merges of synthetic llama checkpoints beside mergekit, and beside the machine's limit.

Every figure is of a whole process, start-up included: mergekit's `mergekit-yaml`, `recipe run` in
an empty store (inputs are hashed), `recipe run` of the merge once more as another step (they are
known), and reading all inputs and writing and syncing as many bytes as the output, which no merge
can beat.
A round runs them one after the other; figures are medians over the rounds. Inputs are in the page
cache, as far as they fit.

    python -m benchmarks.merge --folder FOLDER --millions 1100 --rounds 1 --mergekit ENV/bin/python

Without `--mergekit` (a Python that has mergekit 0.1.5) its columns stay empty.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Taken, measure

ROOT = Path(__file__).parents[1]
TUNED = ("tuned1", "tuned2", "tuned3")
PLAIN = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
LIMIT = """
import os, sys
*inputs, out = sys.argv[1:]
buffer = bytearray(1 << 24)
for path in inputs:
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
size = os.stat(inputs[0]).st_size
with open(out, "wb", buffering=0) as file:
    for start in range(0, size, len(buffer)):
        file.write(memoryview(buffer)[: min(len(buffer), size - start)])
    os.fsync(file.fileno())
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A merge for both: mergekit's YAML, and the recipe's statements. ``DTYPE`` in them is left out
    in the first run and written in the later one, which makes it another step. ``inputs`` are the
    models that are read."""

    name: str
    yaml: str
    recipe: str
    inputs: tuple[str, ...] = ("base", *TUNED)


def _models(parameters: str) -> str:
    return "models:\n" + "".join(
        f"  - model: {name}\n    parameters: {{{parameters}}}\n" for name in TUNED
    )


def _inputs(parameters: str) -> str:
    return f"a({parameters}) with b({parameters}) and c({parameters})"


CASES = (
    Case(
        "linear", "merge_method: linear\n" + _models("weight: 0.3333"),
        f"merged = linear-merge {_inputs('weight = 0.3333')} {{ DTYPE }}", TUNED,
    ),
    Case(
        "slerp",
        "merge_method: slerp\nbase_model: tuned1\nmodels:\n  - model: tuned1\n  - model: tuned2\n"
        "parameters: {t: 0.5}\n",
        "merged = slerp-merge a with b { t = 0.5, DTYPE }", TUNED[:2],
    ),
    Case(
        "task-arithmetic",
        "merge_method: task_arithmetic\nbase_model: base\n" + _models("weight: 0.4"),
        f"merged = task-arithmetic-merge {_inputs('weight = 0.4')} from base {{ DTYPE }}",
    ),
    Case(
        "model-stock", "merge_method: model_stock\nbase_model: base\n" + _models(""),
        "merged = model-stock-merge a with b and c from base { DTYPE }",
    ),
    Case(
        "ties", "merge_method: ties\nbase_model: base\n" + _models("weight: 1.0, density: 0.5"),
        "merged = ties-merge a with b and c from base { density = 50%, DTYPE }",
    ),
    Case(
        "dare-ties",
        "merge_method: dare_ties\nbase_model: base\n" + _models("weight: 0.4, density: 0.5"),
        f"merged = dare-ties-merge {_inputs('weight = 0.4')} from base {{ density = 50%, DTYPE }}",
    ),
    Case(
        "della",
        "merge_method: della\nbase_model: base\n"
        + _models("weight: 0.4, density: 0.5, epsilon: 0.1"),
        f"merged = della-ties-merge {_inputs('weight = 0.4')} from base {{\n"
        "    density = 50%\n    epsilon = 0.1\n    rescale = l1\n    DTYPE\n}",
    ),
)  # fmt: skip
CHAIN = Case(
    "ties, slerp, linear",
    "name: first\nmerge_method: ties\nbase_model: base\ndtype: bfloat16\n"
    + _models("weight: 1.0, density: 0.5")
    + "---\nname: second\nmerge_method: slerp\nbase_model: first\ndtype: bfloat16\nmodels:\n"
    "  - model: first\n  - model: tuned1\nparameters: {t: 0.5}\n"
    "---\nmerge_method: linear\nmodels:\n  - model: second\n    parameters: {weight: 0.5}\n"
    "  - model: tuned2\n    parameters: {weight: 0.5}\n",
    "first = ties-merge a with b and c from base { density = 50% }\n"
    "second = slerp-merge first with a { t = 0.5 }\n"
    "merged = linear-merge second(weight = 0.5) with b(weight = 0.5) { DTYPE }",
)


def rows_of(case: Case, folder: Path, mergekit: Path | None) -> Iterator[tuple[str, Taken]]:
    """One round: the name of each contestant with what it took."""
    store, out = folder / "store", folder / "out"
    for place in (store, out, folder / "between"):
        shutil.rmtree(place, ignore_errors=True)
    if mergekit is not None:
        yield "mergekit", _mergekit(case, folder, mergekit)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(folder / "between", ignore_errors=True)
    recipe = folder / "merge.recipe"
    names = {"a": "tuned1", "b": "tuned2", "c": "tuned3", "base": "base"}
    sources = [f'{short} = model "{path}"' for short, path in names.items()]
    text = "\n".join(["language 1\n", *sources, case.recipe, ""])
    environment = {"RECIPE_STORE": str(store), "PYTHONPATH": f"{ROOT}:{ROOT / 'backends'}"}
    command = [sys.executable, "-m", "recipelang", "run", recipe, "merged"]
    for who, written in (("first run", ""), ("later run", "dtype = bf16")):
        shutil.rmtree(store / "obj", ignore_errors=True)  # what an equal result would find
        recipe.write_text(text.replace("DTYPE", written))
        yield who, measure(command, folder=folder, environment=environment)
    shutil.rmtree(store)
    paths = [folder / name / "model.safetensors" for name in case.inputs]
    yield "limit", measure([sys.executable, "-c", LIMIT, *paths, folder / "limit"])
    (folder / "limit").unlink()


def _mergekit(case: Case, folder: Path, python: Path) -> Taken:
    file = folder / "merge.yml"
    chain = "---" in case.yaml
    file.write_text(case.yaml + "dtype: bfloat16\n")
    script = "multimerge" if chain else "run_yaml"
    command: list[str | Path] = [python, "-m", f"mergekit.scripts.{script}", file]
    if chain:
        command += ["--intermediate-dir", folder / "between", "--out-path", folder / "out"]
    else:
        command += [folder / "out"]
    command += ["--no-copy-tokenizer", "--no-write-model-card", "--random-seed", "42"]
    return measure(command, folder=folder, environment=PLAIN)


def median(taken: list[Taken]) -> Taken:
    """The median of each figure."""
    middle: Callable[[str], float] = lambda name: statistics.median(  # noqa: E731
        getattr(one, name) for one in taken
    )
    return Taken(middle("seconds"), middle("cpu_seconds"), middle("peak_mib"))


def table(found: dict[str, dict[str, Taken]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| merge | mergekit | first run | later run | limit | wall of mergekit | CPU of mergekit | "
        "later run / limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        cells = [_cell(row.get(who)) for who in ("mergekit", "first run", "later run")]
        later, limit, peer = row["later run"], row["limit"], row.get("mergekit")
        wall = f"1/{peer.seconds / later.seconds:.1f}" if peer else ""
        cpu = f"1/{peer.cpu_seconds / later.cpu_seconds:.1f}" if peer else ""
        ratio = f"{later.seconds / limit.seconds:.2f}"
        cells += [f"{limit.seconds:.1f} s", wall, cpu, ratio]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(taken: Taken | None) -> str:
    if taken is None:
        return ""
    return f"{taken.seconds:.1f} s, {taken.cpu_seconds:.0f} CPU s, {taken.peak_mib:.0f} MiB"


def main() -> None:
    """Make the inputs, run the rounds, write results/merge.json and results/merge.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints go (15 GB)")
    parser.add_argument("--millions", type=int, default=1100, help="parameters of a model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mergekit", type=Path, help="a Python that has mergekit")
    parser.add_argument("--only", nargs="*", help="names of merges to measure again")
    given = parser.parse_args()
    layers = max(1, round((given.millions * 1e6 - 2 * 32000 * 2048) / 60.8e6))
    shape = (2048, 8192, layers, 32000)
    folder = given.folder / f"{given.millions}M"
    if not (folder / "tuned3" / "config.json").exists():
        # In a process of its own: what this one holds would count as its children's peak memory.
        code = "from benchmarks.synthetic import *; "
        code += f"family(Path({str(folder)!r}), Size{shape}, fine_tunes=3)"
        measure([sys.executable, "-c", code], folder=ROOT)
    cases = [c for c in (*CASES, CHAIN) if not given.only or c.name in given.only]
    taken: dict[str, dict[str, list[Taken]]] = {c.name: {} for c in cases}
    loads: list[float] = []
    for _ in range(given.rounds):
        for case in cases:
            loads.append(os.getloadavg()[0])
            for who, one in rows_of(case, folder, given.mergekit):
                taken[case.name].setdefault(who, []).append(one)
                print(f"{case.name:20} {who:10} {_cell(one)}", flush=True)
    stored = (folder / "base" / "model.safetensors").stat().st_size
    command = f"python -m benchmarks.merge --folder FOLDER --millions {given.millions}"
    command += f" --rounds {given.rounds}"
    command += " --mergekit ENV/bin/python" if given.mergekit else ""
    result: dict[str, Any] = {
        "command": command,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "loads": [round(one, 1) for one in loads],
        "model_bytes": stored,
        "taken": {
            n: {who: [asdict(t) for t in all_] for who, all_ in row.items()}
            for n, row in taken.items()
        },
    }
    results = Path(__file__).with_name("results")
    if given.only and (results / "merge.json").exists():
        before = json.loads((results / "merge.json").read_text())
        if before["command"] == command:  # the other merges' rows of the same kind stay
            result["taken"] = before["taken"] | result["taken"]
    (results / "merge.json").write_text(json.dumps(result, indent=2) + "\n")
    medians = {
        n: {who: median([Taken(**t) for t in all_]) for who, all_ in row.items()}
        for n, row in result["taken"].items()
    }
    text = f"{table(medians)}\n\n`{command}`; {stored / 1e9:.2f} GB a model.\n"
    (results / "merge.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
