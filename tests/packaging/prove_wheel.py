"""Build the wheel from the sdist, install it in a clean environment, use it outside the checkout.

Run by ``make wheel``; not a test of the suite, since it downloads the core's dependencies.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import json, sys
from importlib.util import find_spec
from pathlib import Path
import recipelang
from recipelang.cli import main
assert "site-packages" in recipelang.__file__, recipelang.__file__
assert find_spec("recipelang_torch") and find_spec("recipelang_jax")
assert find_spec("torch") is None and find_spec("jax") is None
from recipelang import native
assert native.library() is not None or not native.FILE.exists()
assert main(["new", "starter"]) == 0
assert main(["check", "starter.recipe"]) == 0
assert "numpy" not in sys.modules, "check imported an array library"

import numpy as np
from recipelang.types import TensorInfo
from recipelang.weights.writer import ModelWriter
for name, value in (("a", 1.0), ("b", 2.0)):
    writer = ModelWriter(Path(name), {"w": TensorInfo("F32", (3,))})
    writer.write("w", 0, np.full(3, value, np.float32))
    writer.finish()
    Path(name, "config.json").write_text(json.dumps({"model_type": "toy"}))
Path("merge.recipe").write_text(
    'language 1\\n\\na = model "a"\\nb = model "b"\\nsoup = a -> linear-merge with b\\n'
    'publish soup to "out"\\n'
)
assert main(["run", "merge.recipe"]) == 0
Path("merge.yml").write_text(
    "merge_method: linear\\nparameters: {weight: 1}\\nmodels: [{model: ./a}, {model: ./b}]\\n"
)
assert main(["import", "merge.yml", "-o", "imported.recipe"]) == 0
assert main(["check", "imported.recipe"]) == 0
from recipelang.weights.folder import Folder
assert Folder.open(Path("out")).read("w").tolist() == [1.5, 1.5, 1.5]
"""
"""What an installation without torch and jax must do: find its backends, check without numpy, and
merge."""


def main() -> None:
    """Raise CalledProcessError where any step fails."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run = subprocess.check_call
        run([sys.executable, "-m", "build", "--outdir", str(place / "dist"), str(ROOT)],
            stdout=subprocess.DEVNULL)  # fmt: skip
        (wheel,) = (place / "dist").glob("*.whl")
        run([str(Path(sys.executable).parent / "check-wheel-contents"), str(wheel)], cwd=ROOT)
        venv.create(place / "venv", with_pip=True)
        python = str(place / "venv" / "bin" / "python")
        constraints = str(ROOT / "constraints.txt")
        run([python, "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)])
        run([python, "-W", "error", "-c", PROBE], cwd=place)
        names = subprocess.check_output([python, "-m", "zipfile", "-l", str(wheel)], text=True)
        assert "recipelang/grammar/recipe.lark" in names
        assert "recipelang/native/native.lib" in names or not shutil.which("cc")
        print(f"{wheel.name}: built from the sdist, installed and used outside the checkout")


if __name__ == "__main__":
    main()
