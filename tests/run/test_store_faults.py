"""Whole runs over a store that lost or damaged what it held, is full, or must not be written."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from recipelang.lineage.lockfile import lock_path, read_lock
from recipelang.run.running import RunOptions, run_recipe
from recipelang.store import Store
from tests.run.project import TEXT, Finished, codes_of, ran_of


def test_lost_objects_are_made_again(finished: Finished, tmp_path: Path) -> None:
    """An artifact whose object is gone is a miss; it comes back with the same id."""
    recipe = finished.copy(tmp_path)
    store = Store.open_for(recipe)
    lock = read_lock(lock_path(recipe))
    manifest = store.manifest(lock.steps["both"].out)
    assert manifest is not None
    for tensor in manifest.tensors.values():
        store.object_path(tensor.shard).unlink(missing_ok=True)
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 0
    assert ran_of(outcome) == ["both"]
    assert read_lock(lock_path(recipe)).steps == lock.steps


@pytest.mark.parametrize(
    ("name", "size"), [("model.safetensors", 0), ("model.safetensors", 100), ("config.json", 0)]
)
def test_short_objects_are_made_again(
    finished: Finished, tmp_path: Path, name: str, size: int
) -> None:
    """An object that was cut short is no hit; what is published has the bits of before."""
    recipe = finished.copy(tmp_path)
    store, lock = Store.open_for(recipe), read_lock(lock_path(recipe))
    manifest = store.manifest(lock.steps["both"].out)
    assert manifest is not None
    digest = manifest.files.get(name) or next(iter(manifest.tensors.values())).shard
    path = store.object_path(digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:size])
    shutil.rmtree(tmp_path / "out")
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert (outcome.exit_code, "both" in ran_of(outcome)) == (0, True)
    assert read_lock(lock_path(recipe)).steps == lock.steps
    for file in ("model.safetensors", "config.json"):
        published, before = (r.parent / "out" / "both" / file for r in (recipe, finished.recipe))
        assert published.read_bytes() == before.read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_objects_are_not_published(finished: Finished, tmp_path: Path, name: str) -> None:
    """Wrong bytes never leave the store: the run fails, and the next one makes the object anew."""
    recipe = finished.copy(tmp_path)
    store, lock = Store.open_for(recipe), read_lock(lock_path(recipe))
    manifest = store.manifest(lock.steps["both"].out)
    assert manifest is not None
    digest = manifest.files.get(name) or next(iter(manifest.tensors.values())).shard
    path = store.object_path(digest)
    path.chmod(0o644)
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    shutil.rmtree(tmp_path / "out")
    outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert (outcome.exit_code, codes_of(outcome)) == (4, ["E0761"])
    assert not (recipe.parent / "out" / "both").exists()
    again = run_recipe(recipe, RunOptions(backend="torch"))
    assert (again.exit_code, "both" in ran_of(again)) == (0, True)
    assert path.read_bytes() == data


def test_a_full_disk_is_reported_and_survived(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk fills during the run the exit code is 4, and with room again the run goes
    on.
    """
    recipe = finished.copy(tmp_path)
    recipe.write_text(TEXT.replace("with curious\n", "with curious { density = 30% }\n"))
    real = os.rename

    def full(source: object, target: object) -> None:
        if "/obj/" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        outcome = run_recipe(recipe, RunOptions(backend="torch"))
    assert outcome.exit_code == 4
    assert set(codes_of(outcome)) == {"E0852"}
    assert run_recipe(recipe, RunOptions(backend="torch")).exit_code == 0


def test_a_read_only_store_serves_hits(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every result there, a run writes nothing into a store that it may not change."""
    recipe = finished.copy(tmp_path)
    root = Store.open_for(recipe).root
    before = sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob("*"))
    monkeypatch.setattr(Store, "writable", property(lambda self: False))
    outcome = run_recipe(recipe, RunOptions(backend="torch", locked=True))
    assert outcome.exit_code == 0
    assert sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob("*")) == before
