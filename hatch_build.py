"""Builds the compiled part of the package, where there is a C compiler (see recipelang/native).

Without one, or with ``RECIPELANG_NATIVE=0``, the wheel is pure Python and everything works, only
more slowly.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = "-O3 -fPIC -shared -ffp-contract=off -fno-math-errno -fno-trapping-math"
"""One rounding an operation: products and sums are not contracted."""
EXTRA = "-mprefer-vector-width=512"
"""Where the compiler knows it: whole registers on processors that have wide ones."""


class Native(BuildHookInterface[Any]):
    """Compiles recipelang/native/*.c into one library beside them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build for wheels and editable installs; what cannot be built is left out."""
        folder = Path(self.root) / "recipelang" / "native"
        library = folder / "native.lib"
        if self.target_name != "wheel":
            return
        library.unlink(missing_ok=True)
        if os.environ.get("RECIPELANG_NATIVE") == "0":
            return
        if not _compile(sorted(folder.glob("*.c")), library):
            self.app.display_warning(
                "recipelang is installed without native code: no C compiler could build it"
            )
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append("recipelang/native/native.lib")


def _compile(sources: list[Path], library: Path) -> bool:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.byteorder != "little" or sys.platform == "win32":
        return False
    made = library.with_suffix(f".{os.getpid()}.lib")
    for extra in ([EXTRA], []):
        command = [*compiler.split(), *FLAGS.split(), *extra, *map(str, sources), "-o", str(made)]
        try:
            done = subprocess.run([*command, "-lm"], check=False, capture_output=True)
        except OSError:  # `CC` names what cannot be run
            return False
        if done.returncode == 0:
            made.replace(library)
            return True
    return False
