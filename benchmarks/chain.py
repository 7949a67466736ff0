"""A chain of four merges over checkpoints of about 1 GiB: one output, reads, and peak memory.

The merge runs in a process of its own, whose peak resident memory is the kernel's figure
(ru_maxrss).

    python benchmarks/chain.py --folder /var/tmp/chain
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.synthetic import Size, family

SIZE = Size(hidden=2048, intermediate=5632, layers=9, vocabulary=32000)


def merge(folder: Path) -> None:
    """Four merges in one region; prints one JSON object."""
    from recipelang.ops.registry import lookup
    from recipelang.weights.engine import run_region
    from recipelang.weights.folder import Folder
    from recipelang.weights.region import Operand, Step, make_step
    from recipelang.weights.writer import ModelWriter

    base, a, b, c = (Folder.open(folder / n) for n in ("base", "tuned1", "tuned2", "tuned3"))

    def step(verb: str, fields: dict[str, float], **roles: tuple[Operand, ...]) -> Step:
        operation = lookup(verb)
        assert operation is not None
        return make_step(operation, roles, fields)

    first = step("ties-merge", {"density": 0.5}, inputs=(a, b), base=(base,))
    second = step("slerp-merge", {"t": 0.4}, inputs=(first, c))
    third = step("task-arithmetic-merge", {"scale": 0.8}, inputs=(second, a), base=(base,))
    last = step("linear-merge", {}, inputs=(third, b))
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


def main() -> None:
    """Make the inputs if needed, run the merge in its own process, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where checkpoints go (6 GB)")
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
    result = {"command": "python -m benchmarks.chain --folder FOLDER", **json.loads(out)}
    Path(__file__).with_name("results").joinpath("chain.json").write_text(
        json.dumps(result, indent=2) + "\n"
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
