"""The CPU time of `recipe check`, from process start, warm: 40 lines, the quick start, and 10,000
lines; beside it `import recipelang` and an empty interpreter.

Rounds are interleaved and every figure is the median over processes of user and system time. The
first round warms the caches and does not count.

    python -m benchmarks.check --rounds 15
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "check.json"
HEAD = """\
language 1

base = model "hf:org/base" at "c1899de"
notes = dataset "notes.jsonl"

recipe tuned(start: Model, rate: Float) => Model {
    result = finetune start on notes { lr = rate }
    give result
}
"""


def generated(lines: int) -> str:
    """A sound recipe of about so many lines: fine-tunes, calls of a template, and merges."""
    text = [HEAD.rstrip("\n")]
    count = HEAD.count("\n")
    for i in range((lines - count) // 8):
        text.append(
            f"\na{i} = finetune base on notes {{\n    lr = {i + 1}e-6\n    epochs = 2\n}}\n"
            f"b{i} = tuned(start = base, rate = {i + 1}e-7)\n"
            f"c{i} = a{i} -> ties-merge with b{i}(weight = 0.4)\n"
        )
    return "\n".join(text)


def seconds(command: Sequence[str], folder: Path) -> float:
    """User and system time of a process in a folder, which must end well."""
    silent = os.open(os.devnull, os.O_WRONLY)
    try:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
        pid = os.posix_spawn(
            command[0], list(command), environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, silent, 1), (os.POSIX_SPAWN_DUP2, silent, 2)],
        )  # fmt: skip
        _, status, usage = os.wait4(pid, 0)
    finally:
        os.close(silent)
    if status != 0:
        raise SystemExit(f"`{' '.join(command)}` failed in {folder}")
    return usage.ru_utime + usage.ru_stime


def measure(rounds: int, folder: Path) -> dict[str, float]:
    """The median of each row, in seconds."""
    (folder / "notes.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    files = {"40 lines": folder / "short.recipe", "10,000 lines": folder / "long.recipe"}
    files["40 lines"].write_text(generated(40))
    files["10,000 lines"].write_text(generated(10_000))
    files["quick start"] = ROOT / "recipes" / "quickstart.recipe"
    python = sys.executable
    commands: dict[str, tuple[str, ...]] = {
        f"`recipe check`, {name}": (python, "-m", "recipelang", "check", str(file))
        for name, file in files.items()
    }
    commands["`import recipelang`"] = (python, "-c", "import recipelang")
    commands["an empty interpreter"] = (python, "-c", "pass")
    found: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            took = seconds(command, folder)
            if number:
                found[name].append(took)
    return {name: round(statistics.median(times), 4) for name, times in found.items()}


def table(medians: dict[str, float]) -> str:
    """The rows in Markdown."""
    rows = [f"| {name} | {value * 1000:.0f} ms |" for name, value in medians.items()]
    return "\n".join(["| from process start, warm | CPU time |", "|---|---|", *rows])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the result beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="processes a row")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the figures go")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        medians = measure(options.rounds, Path(folder))
    print(table(medians))
    result = {
        "command": f"python -m benchmarks.check --rounds {options.rounds}",
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rounds": options.rounds,
        "cpu_seconds": medians,
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(table(medians) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
