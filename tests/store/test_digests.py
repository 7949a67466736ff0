"""The digests of input files: taken once, side by side, and never of other bytes."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from recipelang.store import Store
from recipelang.store.digests import cached_digest, cached_digests
from recipelang.store.objects import Hashed, Range, hash_object, hash_ranges
from recipelang.store.ranges import Watch
from recipelang.weights.safetensors import read_header
from tests.weights.models import random_model, write_folder

LONG_AGO = 10**18
SHAPES = {"model.embed_tokens.weight": (50, 40), "model.norm.weight": (40,), "model.none": (0, 4)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    made = Store(tmp_path / "store")
    made.prepare()
    return made


def kept(store: Store) -> list[Path]:
    """The entries of the cache."""
    return [path for path in (store.root / "sum").rglob("*") if path.is_file()]


def settled(path: Path) -> Path:
    """A file that was written long ago."""
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


def model(folder: Path, seed: int = 0, dtype: str = "BF16") -> Path:
    """The safetensors file of a small model."""
    write_folder(folder, random_model(seed, SHAPES, dtype), {"model_type": "toy"})
    return settled(folder / "model.safetensors")


def test_a_digest_follows_the_file(store: Store, tmp_path: Path) -> None:
    """A settled file is hashed once; any change of size or time is seen."""
    path = tmp_path / "data"
    path.write_bytes(b"one")
    settled(path)
    assert cached_digest(store, path) == Hashed(hashlib.sha256(b"one").hexdigest())
    assert len(kept(store)) == 1
    path.write_bytes(b"two")
    assert cached_digest(store, path).name == hashlib.sha256(b"two").hexdigest()
    assert len(kept(store)) == 1  # too fresh to be kept


def test_a_checkpoint_is_called_as_a_shard_is(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header and its tensors' digests, which are told and kept."""
    path = model(tmp_path / "a")
    found = cached_digest(store, path)
    assert found == hash_object(path, shard=True)
    entries, data = read_header(path).entries, path.read_bytes()
    assert found.tensors == {
        (entry.start, entry.stop): hashlib.sha256(data[entry.start : entry.stop]).hexdigest()
        for entry in entries.values()
    }
    monkeypatch.setattr("recipelang.store.digests.hash_ranges", None)
    assert cached_digest(store, path) == found


@pytest.mark.parametrize("at", ["header", "tensor"])
def test_any_other_byte_gives_another_digest(store: Store, tmp_path: Path, at: str) -> None:
    """Of the header too, which names and shapes the tensors."""
    path = model(tmp_path / "a")
    before = cached_digest(store, path)
    data = bytearray(path.read_bytes())
    place = data.index(b"norm") if at == "header" else len(data) - 1
    data[place] ^= 1
    path.write_bytes(data)
    after = cached_digest(store, path)
    assert after.name != before.name
    assert (after.tensors == before.tensors) == (at == "header")


def test_no_file_is_called_as_a_checkpoint_is(store: Store, tmp_path: Path) -> None:
    """The same bytes under another ending, and a checkpoint whose header is wrong, have their
    sha256."""
    path = model(tmp_path / "a")
    other = tmp_path / "a" / "model.bin"
    other.write_bytes(path.read_bytes())
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-1])
    found = cached_digests(store, [path, other, broken], print)
    assert found[other] == Hashed(hashlib.sha256(other.read_bytes()).hexdigest())
    assert found[broken] == Hashed(hashlib.sha256(broken.read_bytes()).hexdigest())
    assert found[path].name not in (found[other].name, found[broken].name)


def test_files_are_hashed_side_by_side(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file has its digest, those that cannot be read are left out, and a reader who waits is
    told how far it is; one who stops waiting is not held up."""
    paths = [tmp_path / f"{i}" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * (3 << 20))
    whole = {path: Hashed(hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths}
    checkpoints = [model(tmp_path / f"m{i}", i) for i in range(3)]
    whole |= {path: hash_object(path, shard=True) for path in checkpoints}
    asked = [*paths, *checkpoints, tmp_path / "none", tmp_path]
    assert cached_digests(store, asked, print) == whole
    told: list[str] = []
    monkeypatch.setattr("recipelang.store.digests.QUIET_SECONDS", 0.0)
    assert cached_digests(store, paths, told.append) == {path: whole[path] for path in paths}
    assert re.fullmatch(r"hashing inputs: 0\.0 of 0\.0 GB", told[0])

    def give_up(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_digests(store, paths, give_up)


def test_a_checkpoint_that_cannot_be_read_takes_none_along(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have their digests."""
    paths = [model(tmp_path / f"m{i}", i) for i in range(5)]
    whole = {path: hash_object(path, shard=True) for path in paths}

    def failing(wanted: Sequence[tuple[Path, Range]], watch: Watch) -> list[str]:
        if any(path == paths[2] for path, _ in wanted):
            raise OSError(5, "input/output error")
        return hash_ranges(wanted, watch)

    monkeypatch.setattr("recipelang.store.digests.hash_ranges", failing)
    del whole[paths[2]]
    assert cached_digests(store, paths, print) == whole


def test_who_stops_waiting_is_not_held_up_by_large_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing more of them is read, and none is tried alone."""
    paths, asked = [model(tmp_path / f"m{i}", i) for i in range(2)], list[int]()

    def counted(wanted: Sequence[tuple[Path, Range]], watch: Watch) -> list[str]:
        asked.append(len(wanted))
        while not watch.stopped:
            time.sleep(0.01)
        return hash_ranges(wanted, watch)

    def give_up(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("recipelang.store.digests.hash_ranges", counted)
    monkeypatch.setattr("recipelang.store.digests.QUIET_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        cached_digests(store, paths, give_up)
    assert asked == [2 * len(SHAPES)]


def test_a_file_is_called_by_its_own_ending(store: Store, tmp_path: Path) -> None:
    """Whatever was asked first: a link of another name is hashed as that name says."""
    path = model(tmp_path / "a")
    link = tmp_path / "blob"
    link.hardlink_to(path)
    whole = {path: hash_object(path, shard=True), link: hash_object(link, shard=False)}
    for order in ([path, link], [link, path], [path], [link]):
        for one in order:
            assert cached_digest(store, one) == whole[one]


def test_what_cannot_be_kept_is_hashed_all_the_same(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is deleted meanwhile, and a full disk, are no faults here."""
    path = model(tmp_path / "a")
    whole = hash_object(path, shard=True)

    def full(*arguments: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("recipelang.store.store.write_file", full)
    assert cached_digest(store, path) == whole

    def gone(wanted: Sequence[tuple[Path, Range]], watch: Watch) -> list[str]:
        found = hash_ranges(wanted, watch)
        path.unlink()
        return found

    monkeypatch.setattr("recipelang.store.digests.hash_ranges", gone)
    assert cached_digests(store, [path], print) == {path: whole}


def test_a_damaged_digest_cache_is_ignored(store: Store, tmp_path: Path) -> None:
    """A broken entry costs a hash, never a wrong answer."""
    path = model(tmp_path / "a")
    whole = cached_digest(store, path)
    (entry,) = kept(store)
    text = entry.read_text()
    damaged = (
        "", "{}", "[]", "7", '{"stamp": "x", "sha256": "00"}', "\0\0", text[:-9],
        text.replace(whole.name, whole.name[:-1]), text.replace(whole.name, whole.name[:-1] + "g"),
        text.replace('"tensors": [', '"tensors": [["x", 1, "y"], '), text.replace("tree", "file"),
    )  # fmt: skip
    for other in damaged:
        entry.write_text(other)
        assert cached_digest(store, path) == whole


def test_what_cannot_be_read_has_no_digest(store: Store, tmp_path: Path) -> None:
    """It is an error where one is asked for."""
    with pytest.raises(OSError, match="No such file"):
        cached_digest(store, tmp_path / "none")
    with pytest.raises(OSError, match="cannot be read"):
        cached_digest(store, tmp_path)
