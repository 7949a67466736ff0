"""Where merges run: on the CPU unless `--backend` names one whose best device is an accelerator."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipelang import processors
from recipelang.backend import Device
from recipelang.lineage.lockfile import lock_path
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


def record_of(recipe: Path, options: RunOptions, warned: str = "") -> ActionRecord:
    """Run, and give the merge's action record; ``warned`` is the one code that is warned of."""
    outcome = run_recipe(recipe, options)
    assert outcome.exit_code == 0, [str(d) for d in outcome.diagnostics]
    assert [d.code for d in outcome.diagnostics] == [warned] * bool(warned)
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


def test_what_was_hashed_is_not_read_twice(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm is equal in both folders: it is read from one of them."""
    from recipelang.weights.folder import Folder

    norm = random_model(0, SHAPES).arrays["model.norm.weight"]
    model = near(random_model(0, SHAPES), 1)
    model.arrays["model.norm.weight"][:] = norm  # type: ignore[index]
    write_folder(recipe.parent / "b", model, {"model_type": "toy", "num_hidden_layers": 1})
    reads: list[tuple[str, str]] = []
    read = Folder.read

    def noted(self: Folder, name: str, start: int = 0, stop: int | None = None) -> Any:
        reads.append((self.path.name, name))
        return read(self, name, start, stop)

    monkeypatch.setattr(Folder, "read", noted)
    record_of(recipe, RunOptions())
    assert [name for _, name in reads].count("model.norm.weight") == 1
    assert [name for _, name in reads].count("model.embed_tokens.weight") == 2


@pytest.fixture
def jax_gpu(monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    """JAX's CPU, which says that it is a GPU; the class of its arrays."""
    from recipelang_jax import JaxBackend
    from recipelang_jax.weights import WeightArrays

    monkeypatch.setattr(processors, "may_have_gpu", lambda: True)
    monkeypatch.setattr(JaxBackend, "devices", lambda self: (Device("gpu", "one", 1 << 30),))
    return WeightArrays


def test_jax_merges_on_an_accelerator_that_does_as_the_host(
    recipe: Path, jax_gpu: type[Any]
) -> None:
    """As torch does; the first tensor of each kind was computed on both."""
    record = record_of(recipe, RunOptions(backend="jax"))
    assert (record.backend, record.device, record.devices) == ("jax", "gpu", 1)


def twice(stored: Any) -> Any:
    """Other numbers."""
    return stored * 2


def not_a_number(stored: Any) -> Any:
    """None at all."""
    return stored * float("nan")


def failing(stored: Any) -> Any:
    """A fault of the device."""
    raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")


@pytest.mark.parametrize("spoil", [twice, not_a_number, failing])
def test_wrong_numbers_of_an_accelerator_are_not_kept(
    recipe: Path, jax_gpu: type[Any], spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merge is made on the host, with its bits, and the run says so."""
    expected = record_of(recipe, RunOptions())
    shutil.rmtree(recipe.parent / ".recipe")
    lock_path(recipe).unlink()
    narrow = jax_gpu.narrow
    monkeypatch.setattr(
        jax_gpu, "narrow", lambda self, wide, dtype: spoil(narrow(self, wide, dtype))
    )
    record = record_of(recipe, RunOptions(backend="jax"), warned="W0805")
    assert (record.backend, record.device, record.devices) == ("", "", 0)
    assert record.artifact == expected.artifact
    assert not list((recipe.parent / ".recipe" / "store" / "work").glob("*/*"))


@pytest.mark.parametrize("backend", ["jax", None])
def test_what_is_not_finite_in_an_input_is_not_the_device_s(
    recipe: Path, jax_gpu: type[Any], backend: str | None
) -> None:
    """The host finds it as well, and it is the input that is told of."""
    model = random_model(0, SHAPES)
    model.arrays["model.norm.weight"][1] = float("nan")
    write_folder(recipe.parent / "a", model, {"model_type": "toy", "num_hidden_layers": 1})
    outcome = run_recipe(recipe, RunOptions(backend=backend))
    assert outcome.exit_code == 4
    assert [d.code for d in outcome.diagnostics] == ["E0620"]
