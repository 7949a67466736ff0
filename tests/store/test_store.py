"""The store: what is put is found again, nothing is half there, and damage is named."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipelang.diagnostics import RecipeError
from recipelang.store import ActionRecord, Manifest, Store, StoredTensor
from recipelang.store.check import check_artifact
from recipelang.store.locks import key_locks
from recipelang.store.objects import hash_object, shard_digest
from recipelang.store.place import find_root
from recipelang.types import TensorInfo
from recipelang.weights.shards import layout


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / ".recipe")
    made.prepare()
    return made


VALUES = {"v": b"\5\6\7\0", "w": b"\1\2\3\4"}


def _shard(dtype: str = "U8", shape: tuple[int, ...] = (4,)) -> tuple[bytes, bytes]:
    """A shard's header and data, as the writer puts them down."""
    (planned,) = layout(dict.fromkeys(VALUES, TensorInfo(dtype, shape)), 100)
    return planned.header, b"".join(VALUES.values())


def _model(store: Store) -> Manifest:
    header, data = _shard()
    sums = {name: hashlib.sha256(values).hexdigest() for name, values in VALUES.items()}
    shard = shard_digest(header, sums.values())
    with store.temporary() as folder:
        (folder / "shard").write_bytes(header + data)
        store.adopt(folder / "shard", shard)
    tensors = {
        name: StoredTensor("U8", (4,), sums[name], shard, len(header) + 4 * i)
        for i, name in enumerate(VALUES)
    }
    return Manifest("model", tensors, {"config.json": store.put_bytes(b"{}")})


def test_opening_makes_nothing(tmp_path: Path) -> None:
    """A store that is only looked into leaves no folder."""
    store = Store.open_for(tmp_path / "a.recipe")
    assert store.records("ab" * 32) == ()
    assert store.manifest("ab" * 32) is None
    assert not store.is_whole("ab" * 32)
    assert list(tmp_path.iterdir()) == []


def test_place(tmp_path: Path) -> None:
    """The variable, the nearest .recipe upward, the git root, the recipe's folder: in this
    order.
    """
    inner = tmp_path / "git" / "a" / "b"
    inner.mkdir(parents=True)
    recipe = inner / "x.recipe"
    assert find_root(recipe, {}) == inner / ".recipe" or (tmp_path / ".git").exists()
    (tmp_path / "git" / ".git").mkdir()
    assert find_root(recipe, {}) == tmp_path / "git" / ".recipe"
    (tmp_path / "git" / "a" / ".recipe").mkdir()
    assert find_root(recipe, {}) == tmp_path / "git" / "a" / ".recipe"
    assert find_root(recipe, {"RECIPE_STORE": "/elsewhere"}) == Path("/elsewhere")


def test_prepare_writes_a_gitignore(store: Store) -> None:
    """Git sees nothing of a store."""
    assert (store.root / ".gitignore").read_text().splitlines()[-1] == "*"
    assert (store.root / "format").read_text() == "1\n"


def test_a_newer_format_is_refused(store: Store) -> None:
    """A store of a later release is not touched."""
    (store.root / "format").write_text("2\n")
    with pytest.raises(RecipeError, match="E0850"):
        Store.open(store.root)


@settings(max_examples=20, deadline=None)
@given(data=st.binary(max_size=300))
def test_put_twice_is_put_once(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """An object is named by its sha256, read-only, and putting it again changes nothing."""
    store = Store(tmp_path_factory.mktemp("s") / ".recipe")
    store.prepare()
    digest = store.put_bytes(data)
    first = store.object_path(digest).stat()
    assert store.put_bytes(data) == digest == hashlib.sha256(data).hexdigest()
    again = store.object_path(digest).stat()
    assert (first.st_ino, first.st_mode & 0o777) == (again.st_ino, 0o444)
    assert store.object_path(digest).read_bytes() == data
    assert list(store.tmp.iterdir()) == []


def test_adopt_and_put_file(store: Store, tmp_path: Path) -> None:
    """A file of the temporary folder is renamed in; one from outside is copied, never linked."""
    digest = hashlib.sha256(b"shard").hexdigest()
    with store.temporary() as folder:
        for name in "xy":
            (folder / name).write_bytes(b"shard")
            store.adopt(folder / name, digest)
            assert not (folder / name).exists()
    assert store.object_path(digest).read_bytes() == b"shard"
    outside = tmp_path / "file"
    outside.write_bytes(b"mine")
    copied = store.put_file(outside)
    assert store.object_path(copied).stat().st_ino != outside.stat().st_ino
    assert os.stat(store.object_path(copied)).st_nlink == 1
    assert list(store.tmp.iterdir()) == []


def test_manifest_needs_its_objects(store: Store) -> None:
    """A manifest of missing objects is refused; a stored one reads back equal."""
    manifest = _model(store)
    artifact = store.put_manifest(manifest)
    assert store.manifest(artifact) == manifest
    assert store.is_whole(artifact)
    with pytest.raises(ValueError, match="not stored"):
        store.put_manifest(Manifest("model", files={"config.json": "0" * 64}))


def test_an_artifact_without_its_objects_is_not_whole(store: Store) -> None:
    """A hit whose objects are gone is a miss, and storing it again mends it."""
    artifact = store.put_manifest(_model(store))
    store.object_path(_model(store).tensors["w"].shard).unlink()
    assert not store.is_whole(artifact)
    assert store.put_manifest(_model(store)) == artifact
    assert store.is_whole(artifact)


def test_a_damaged_manifest_is_none(store: Store) -> None:
    """A manifest with a flipped byte is not believed, and is written anew."""
    artifact = store.put_manifest(_model(store))
    path = store.manifest_path(artifact)
    text = path.read_bytes()
    path.chmod(0o644)
    for damaged in (b"", text[: len(text) // 2], text.replace(b'"U8"', b'"I8"'), b"[]", b"\0" * 20):
        path.write_bytes(damaged)
        assert store.manifest(artifact) is None
    assert check_artifact(store, artifact) == (f"the manifest {artifact[:12]} is damaged",)
    store.put_manifest(_model(store))
    assert store.is_whole(artifact)


def test_check_artifact_names_damage(store: Store) -> None:
    """A flipped bit is found in the object and in the tensor, and in a file."""
    manifest = _model(store)
    artifact = store.put_manifest(manifest)
    assert check_artifact(store, artifact) == ()
    shard, config = manifest.tensors["w"].shard, manifest.files["config.json"]
    for name, data in ((shard, b"".join(_shard())[:-1] + b"\5"), (config, b"[]")):
        store.object_path(name).chmod(0o644)
        store.object_path(name).write_bytes(data)
    assert set(check_artifact(store, artifact)) == {
        f"the shard {shard[:12]} has other bytes than its name says",
        "the tensor `w` has other values than the manifest says",
        "the file `config.json` has other bytes than its name says",
    }


def test_a_manifest_with_a_wrong_place_is_damage(store: Store) -> None:
    """A manifest's identity leaves places out; the check looks at them."""
    manifest = _model(store)
    artifact = store.put_manifest(manifest)
    path = store.manifest_path(artifact)
    text, right = path.read_text(), f'"offset":{manifest.tensors["w"].offset}'
    path.chmod(0o644)
    path.write_text(text.replace(right, f'"offset":{manifest.tensors["w"].offset - 4}'))
    wrong = ("the tensor `w` has other values than the manifest says",)
    assert check_artifact(store, artifact) == wrong


HEADER, DATA = _shard()
DAMAGED = {
    "a value": HEADER + DATA[:-1] + b"\5",
    "values in another order": HEADER + DATA[4:] + DATA[:4],
    "names in another order": HEADER.translate(bytes.maketrans(b"vw", b"wv")) + DATA,
    "another dtype": _shard("I8")[0] + DATA,
    "another shape": _shard(shape=(2, 2))[0] + DATA,
    "another metadata": HEADER.replace(b'"pt"', b'"tp"') + DATA,
    "more padding": (len(HEADER) - 7).to_bytes(8, "little") + HEADER[8:] + b" " + DATA,
    "a wrong length": (len(HEADER) - 9).to_bytes(8, "little") + HEADER[8:] + DATA,
    "no JSON": HEADER.replace(b"{", b"[") + DATA,
    "bytes behind the data": HEADER + DATA + b"\0",
    "one byte less": HEADER + DATA[:-1],
    "half a header": HEADER[:40],
    "nothing": b"",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_every_damage_of_a_shard_is_found(store: Store, damage: str) -> None:
    """Whatever byte of a shard is another one, it is not what its name says, and is removed."""
    assert DAMAGED[damage] != HEADER + DATA
    manifest = _model(store)
    artifact, path = store.put_manifest(manifest), store.object_path(manifest.tensors["w"].shard)
    store.ensure_sound(artifact)
    path.chmod(0o644)
    path.write_bytes(DAMAGED[damage])
    assert any("shard" in line for line in check_artifact(store, artifact))
    with pytest.raises(RecipeError, match="E0761"):
        store.ensure_sound(artifact)
    assert not path.exists()


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, len(HEADER + DATA) - 1), flip=st.integers(1, 255))
def test_every_byte_of_a_shard_counts(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    """No change of a byte keeps the name; the file of a shard has another name than the shard."""
    path = tmp_path_factory.getbasetemp() / "shard"
    whole = bytearray(HEADER + DATA)
    path.write_bytes(whole)
    name = hash_object(path, shard=True).name
    whole[at] ^= flip
    path.write_bytes(whole)
    assert name not in (hash_object(path, shard=True).name, hash_object(path, shard=False).name)


def test_records_of_a_key(store: Store) -> None:
    """Several results of a key are kept beside each other, each once; a damaged one is left out."""
    one = ActionRecord({"op": "x"}, "a" * 64, "torch", "cpu", 1, "run1", 2.0)
    two = ActionRecord({"op": "x"}, "b" * 64, "jax", "cpu", 1, "run2", 2.0)
    for record in (one, two, one):
        store.record_action("c" * 64, record)
    assert sorted(store.records("c" * 64), key=lambda r: r.run) == [one, two]
    damaged = store.root / "act" / "cc" / ("c" * 64) / "zz"
    damaged.write_text("{")
    assert {r.artifact for r in store.records("c" * 64)} == {"a" * 64, "b" * 64}


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "E0852"),
        (errno.EDQUOT, "E0852"),
        (errno.EACCES, "E0851"),
        (errno.EROFS, "E0851"),
    ],
)
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open"])
def test_a_failing_disk_is_a_diagnostic(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: str
) -> None:
    """When the N-th call fails there is one message with the path, nothing is kept, and the store
    works on.
    """
    real = getattr(os, call)

    def fail(*args: object, **kwargs: object) -> object:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(RecipeError, match=code):
            store.put_bytes(b"some bytes")
    assert getattr(os, call) is real
    assert not store.has(hashlib.sha256(b"some bytes").hexdigest())
    assert list(store.tmp.iterdir()) == []
    assert store.has(store.put_bytes(b"some bytes"))


WORKER = """
import sys, time
from pathlib import Path
from recipelang.store import Store
from recipelang.store.locks import key_locks
store = Store(Path(sys.argv[1]))
log = Path(sys.argv[2])
with key_locks(store.root, ["ab" * 32], lambda: print("waiting", flush=True)):
    if not store.records("ab" * 32):
        with open(log, "a") as file:
            file.write("computed\\n")
        time.sleep(0.3)
        from recipelang.store import ActionRecord
        store.record_action("ab" * 32, ActionRecord({}, store.put_bytes(b"r")))
"""


def test_two_processes_compute_once(store: Store, tmp_path: Path) -> None:
    """The second run waits for the first and takes its result."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(store.root), str(log)]
    root = str(Path(__file__).parents[2])
    runs = [
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [run.communicate(timeout=60)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert log.read_text() == "computed\n"
    assert sum(b"waiting" in text for text in said) >= 1


def test_locks_of_several_keys(store: Store) -> None:
    """One process may hold the locks of a group of keys, equal stripes included."""
    with key_locks(store.root, ["ab" * 32, "cd" * 32, "ab" + "00" * 31]):
        assert {p.name for p in (store.root / "lock").iterdir()} == {"key-ab", "key-cd"}
