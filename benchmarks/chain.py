"""A chain of four merges over checkpoints of about 1 GiB: one output, reads, peak memory, and
whether it has the bits of the four merges made one after the other, each from the last one's files.

The merge runs in a process of its own, whose peak resident memory is the kernel's figure
(ru_maxrss).

    python -m benchmarks.chain --folder /var/tmp/chain
"""

from __future__ import annotations

import argparse
import filecmp
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.synthetic import Size, family

if TYPE_CHECKING:
    from recipelang.weights.region import Operand, Step

SIZE = Size(hidden=2048, intermediate=5632, layers=9, vocabulary=32000)


def chain(folder: Path, between: Callable[[str, Step], Operand]) -> Step:
    """The four merges; ``between`` gives what the next one reads of a merge."""
    from recipelang.ops.registry import lookup
    from recipelang.weights.folder import Folder
    from recipelang.weights.region import make_step

    base, a, b, c = (Folder.open(folder / n) for n in ("base", "tuned1", "tuned2", "tuned3"))

    def step(verb: str, fields: dict[str, float], **roles: tuple[Operand, ...]) -> Step:
        operation = lookup(verb)
        assert operation is not None
        return make_step(operation, roles, fields)

    first = between("ties", step("ties-merge", {"density": 0.5}, inputs=(a, b), base=(base,)))
    second = between("slerp", step("slerp-merge", {"t": 0.4}, inputs=(first, c)))
    scaled = step("task-arithmetic-merge", {"scale": 0.8}, inputs=(second, a), base=(base,))
    return step("linear-merge", {}, inputs=(between("scaled", scaled), b))


def merge(folder: Path) -> None:
    """Four merges in one region; prints one JSON object."""
    from recipelang.weights.engine import run_region
    from recipelang.weights.writer import ModelWriter

    last = chain(folder, lambda _, step: step)
    start = time.perf_counter()
    writer = ModelWriter(folder / "out", last.tensors)
    stats = run_region([(last, writer)])
    written = writer.finish()
    print(
        json.dumps(
            {
                "seconds": round(time.perf_counter() - start, 2),
                "files": [s.path.name for s in written.shards],
                "output_bytes": sum(s.bytes for s in written.shards),
                "input_bytes": [sum(i.bytes for i in m.tensors.values()) for m in stats.inputs],
                "passes": [round(p, 3) for p in stats.passes],
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


def one_by_one(folder: Path) -> Path:
    """The same merges, each written and opened again; gives the last one's folder."""
    from recipelang.weights.engine import run_region
    from recipelang.weights.folder import Folder
    from recipelang.weights.writer import ModelWriter

    def write(name: str, step: Step) -> Path:
        made = folder / "steps" / name
        writer = ModelWriter(made, step.tensors)
        run_region([(step, writer)])
        writer.finish()
        return made

    def between(name: str, step: Step) -> Operand:
        made = write(name, step)
        shutil.copy(folder / "base" / "config.json", made)
        return Folder.open(made)

    return write("last", chain(folder, between))


def equal_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same weight files."""
    names = [sorted(f.name for f in folder.glob("*.safetensors")) for folder in (one, other)]
    return names[0] == names[1] != [] and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in names[0]
    )


def main() -> None:
    """Make the inputs if needed, run the merge in its own process, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints go (10 GB)")
    parser.add_argument("--only-merge", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_merge:
        merge(given.folder)
        return
    if not (given.folder / "tuned3" / "config.json").exists():
        family(given.folder, SIZE, fine_tunes=3)
    command = [
        sys.executable,
        "-m",
        "benchmarks.chain",
        "--folder",
        str(given.folder),
        "--only-merge",
    ]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    equal = equal_files(given.folder / "out", one_by_one(given.folder))
    result = {
        "command": "python -m benchmarks.chain --folder FOLDER",
        **json.loads(out),
        "bits of the merges one by one": equal,
    }
    Path(__file__).with_name("results").joinpath("chain.json").write_text(
        json.dumps(result, indent=2) + "\n"
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
