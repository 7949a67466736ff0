"""The compiled part is left out where there is no compiler, and nothing else fails."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from recipelang.native import library

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false", str(ROOT)])
def test_a_compiler_that_does_not_run(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``CC`` may name what is not there, what fails, or what is no program."""
    name = "hatchling.builders.hooks.plugin.interface"  # the build's alone
    plugin = ModuleType(name)
    vars(plugin)["BuildHookInterface"] = list
    monkeypatch.setitem(sys.modules, name, plugin)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("CC", compiler)
    sources = sorted((ROOT / "recipelang" / "native").glob("*.c"))
    assert module._compile(sources, tmp_path / "native.lib") is False
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    not os.environ.get("CI") or not shutil.which("cc"), reason="asked of a full installation"
)
def test_the_compiled_part_was_built() -> None:
    """Else the tests that compare it with numpy would be skipped unseen."""
    assert library() is not None
