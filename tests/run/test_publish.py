"""Publishing: all or nothing, beside and renamed, never over what is not ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recipelang.diagnostics import RecipeError
from recipelang.run.publish import (
    MARKER,
    Publication,
    check_place,
    is_published,
    publish_all,
    resolve,
)
from recipelang.run.values import ModelValue
from recipelang.weights.folder import Folder
from tests.run.project import Finished


@pytest.fixture
def model(finished: Finished) -> ModelValue:
    """A small model that lies in a folder."""
    return ModelValue(Folder.open(finished.outcome.published[0]), "a" * 64)


def _publication(model: ModelValue, target: Path, overwrite: bool = False) -> Publication:
    return Publication(model, target, overwrite, "both", "a.recipe")


def test_resolve(tmp_path: Path) -> None:
    """Places are relative to the recipe; what is no folder is refused by name."""
    assert resolve("out/x", str(tmp_path)) == tmp_path / "out" / "x"
    assert resolve("../x", str(tmp_path / "a")) == tmp_path / "x"
    with pytest.raises(RecipeError, match="E0856"):
        resolve("hf:me/model", str(tmp_path))


def test_it_replaces_only_its_own(model: ModelValue, tmp_path: Path) -> None:
    """An empty folder and an earlier publication are replaced; others are refused."""
    target = tmp_path / "out"
    publish_all([_publication(model, target)])
    assert is_published(target, "a" * 64)
    other = ModelValue(model.checkpoint, "b" * 64)
    publish_all([_publication(other, target)])
    assert is_published(target, "b" * 64)
    assert not is_published(target, "a" * 64)
    (target / MARKER).unlink()
    with pytest.raises(RecipeError, match="E0855"):
        check_place(target, overwrite=False)
    publish_all([_publication(model, target, overwrite=True)])
    assert is_published(target, "a" * 64)
    (tmp_path / "empty").mkdir()
    check_place(tmp_path / "empty", overwrite=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecipeError, match="E0855"):
        check_place(tmp_path / "file", overwrite=False)


def test_a_changed_folder_is_written_again(model: ModelValue, tmp_path: Path) -> None:
    """A publication that lost bytes is not taken for whole."""
    target = tmp_path / "out"
    publish_all([_publication(model, target)])
    stamp = (target / MARKER).stat().st_mtime_ns
    publish_all([_publication(model, target)])
    assert (target / MARKER).stat().st_mtime_ns == stamp
    (target / "config.json").write_text("{")
    publish_all([_publication(model, target)])
    assert is_published(target, "a" * 64)


def test_all_or_nothing(model: ModelValue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second of two renames fails the first is taken back, and the old folder is there."""
    one, two = tmp_path / "one", tmp_path / "two"
    publish_all([_publication(model, one)])
    newer = ModelValue(model.checkpoint, "b" * 64)
    real = os.rename

    def fail(source: object, target: object) -> None:
        if str(target) == str(two):
            raise OSError(28, "No space left on device")
        real(source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(RecipeError, match="E0852"):
            publish_all([_publication(newer, one), _publication(newer, two)])
    assert is_published(one, "a" * 64)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one"]
    publish_all([_publication(newer, one), _publication(newer, two)])
    assert is_published(one, "b" * 64)
    assert is_published(two, "b" * 64)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
