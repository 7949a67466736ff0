"""Build the wheel from the sdist, install it in a clean environment, and use it outside the checkout.

Run by ``make wheel``; not a test of the suite, since it downloads the core's dependencies.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import sys
import recipelang, recipelang_torch, recipelang_jax
from recipelang.cli import main
assert main(["new", "starter"]) == 0
assert main(["check", "starter/starter.recipe"]) == 0
assert not {"torch", "jax", "numpy"} & set(sys.modules), "check imported an array library"
assert "site-packages" in recipelang.__file__, recipelang.__file__
"""


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
        print(f"{wheel.name}: built from the sdist, installed and used outside the checkout")


if __name__ == "__main__":
    main()
