"""Where merges run: on the CPU unless `--backend` names one whose best device is an accelerator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recipelang import processors
from recipelang.backend import Device
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from recipelang.store.records import ActionRecord
from tests.weights.models import near, random_model, write_folder

RECIPE = """\
language 1

a = model "a"
b = model "b" from a
mean = a -> linear-merge with b
"""
SHAPES = {"model.embed_tokens.weight": (8, 4), "model.norm.weight": (4,)}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two small folders and a recipe that merges them."""
    base = random_model(0, SHAPES)
    for name, model in (("a", base), ("b", near(base, 1))):
        write_folder(tmp_path / name, model, {"model_type": "toy", "num_hidden_layers": 1})
    path = tmp_path / "mean.recipe"
    path.write_text(RECIPE)
    return path


def record_of(recipe: Path, options: RunOptions) -> ActionRecord:
    """Run, and give the merge's action record."""
    outcome = run_recipe(recipe, options)
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    assert outcome.record is not None
    (row,) = (step for step in outcome.record.steps if step.op == "linear-merge")
    assert row.result == "ran"
    (record,) = Store.open_for(recipe).records(row.key)
    return record


@pytest.mark.parametrize("backend", [None, "torch"])
def test_a_cpu_merges_by_numpy_whatever_the_backend(
    recipe: Path, backend: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names no backend, so every machine may take the result."""
    from recipelang_torch import TorchBackend

    monkeypatch.setattr(TorchBackend, "devices", lambda self: (Device("cpu", "cpu", 1 << 30),))
    record = record_of(recipe, RunOptions(backend=backend))
    assert (record.backend, record.device, record.devices) == ("", "", 0)


def test_an_accelerator_merges_where_the_backend_is_named(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the device's arrays, and the record says on what."""
    import torch

    from recipelang_torch import TorchBackend, shard
    from recipelang_torch.weights import WeightArrays

    loads: list[str] = []
    load = WeightArrays.load

    def counted(self: WeightArrays, read: object, dtype: str, start: int, stop: int) -> object:
        loads.append(dtype)
        return load(self, read, dtype, start, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(processors, "may_have_gpu", lambda: True)
    monkeypatch.setattr(WeightArrays, "load", counted)
    monkeypatch.setattr(shard, "place", lambda: torch.device("cpu"))
    monkeypatch.setattr(TorchBackend, "devices", lambda self: (Device("gpu", "one", 1 << 30),))
    record = record_of(recipe, RunOptions(backend="torch"))
    assert (record.backend, record.device, record.devices) == ("torch", "gpu", 1)
    assert loads == ["BF16"] * 4


@pytest.mark.parametrize("backend", ["", "torch"])
def test_a_merge_on_a_machine_without_gpu_imports_no_backend(recipe: Path, backend: str) -> None:
    """Not even where one is installed and named: importing takes longer than many a merge."""
    code = (
        "import sys; from pathlib import Path; from recipelang import processors; "
        "from recipelang.run.running import *; processors.GPU_FILES = (); "
        f"print(run_recipe(Path({str(recipe)!r}), RunOptions(backend={backend!r} or None))"
        ".exit_code, [m for m in ('torch', 'jax') if m in sys.modules])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["0", "[]"]
