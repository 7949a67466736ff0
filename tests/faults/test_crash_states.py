"""Power cuts: every disk that a crash may leave is a legal one (after ALICE, OSDI'14).

The store's calls of the operating system are recorded while three steps are stored; then, for every
prefix of the record, disks are built on which only some of what was not synced has arrived. On each
of them no lock and no action record may name a missing or damaged object. Mutants of the protocol,
each with one rule broken, must be caught, or the test has no teeth.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recipelang.lineage.keys import KEY, digest
from recipelang.lineage.lockfile import Lock, LockedStep, lock_path, read_lock
from recipelang.run.locking import write_lock
from recipelang.store import ActionRecord, Manifest, Store, files
from recipelang.store.check import check_artifact

CALLS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "close")


@dataclass
class Recorder:
    """Wraps ``os`` and keeps what was done, in order."""

    log: list[tuple[Any, ...]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for call in CALLS:
            patch.setattr(os, call, getattr(self, call)(getattr(os, call)))
        patch.setattr(os, "finished", lambda: self.log.append(("finished",)), raising=False)

    def open(self, real: Any) -> Any:
        def call(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            descriptor: int = real(path, flags, mode, **more)
            self.names[descriptor] = str(path)
            if flags & os.O_CREAT:
                self.log.append(("create", str(path)))
            return descriptor

        return call

    def write(self, real: Any) -> Any:
        def call(descriptor: int, data: Any) -> int:
            self.log.append(("write", self.names[descriptor], bytes(data)))
            return int(real(descriptor, data))

        return call

    def fsync(self, real: Any) -> Any:
        def call(descriptor: int) -> None:
            self.log.append(("fsync", self.names[descriptor]))
            real(descriptor)

        return call

    def rename(self, real: Any) -> Any:
        def call(old: Any, new: Any) -> None:
            self.log.append(("rename", str(old), str(new)))
            real(old, new)

        return call

    def mkdir(self, real: Any) -> Any:
        def call(path: Any, mode: int = 0o777) -> None:
            real(path, mode)
            self.log.append(("mkdir", str(path)))

        return call

    def unlink(self, real: Any) -> Any:
        def call(path: Any, **more: Any) -> None:
            self.log.append(("unlink", str(path)))
            real(path, **more)

        return call

    def close(self, real: Any) -> Any:
        def call(descriptor: int) -> None:
            self.names.pop(descriptor, None)
            real(descriptor)

        return call


Names = dict[str, int]


def _replay(
    log: list[tuple[Any, ...]],
) -> tuple[Names, list[tuple[Any, ...]], dict[int, bytes], dict[int, bytes]]:
    """Durable names, names that may have arrived, current bytes and durable bytes by inode."""
    counter = itertools.count()
    bytes_now: dict[int, bytes] = {}
    durable_bytes: dict[int, bytes] = {}
    now: Names = {}
    durable: Names = {}
    pending: list[tuple[Any, ...]] = []
    for op in log:
        match op:
            case ("create", path) if path in now:
                bytes_now[now[path]] = b""
            case ("create", path):
                inode = next(counter)
                bytes_now[inode] = durable_bytes[inode] = b""
                now[path] = inode
                pending.append(("add", path, inode))
            case ("write", path, data):
                bytes_now[now[path]] += data
            case ("rename", old, new):
                now[new] = now.pop(old)
                pending.append(("move", old, new, now[new]))
            case ("unlink", path):
                now.pop(path, None)
            case ("fsync", path) if path in now:
                durable_bytes[now[path]] = bytes_now[now[path]]
            case ("fsync", path):
                ready = [
                    e for e in pending if os.path.dirname(e[2] if e[0] == "move" else e[1]) == path
                ]
                for entry in ready:
                    _arrive(durable, entry)
                pending = [e for e in pending if e not in ready]
            case _:
                pass
    return durable, pending, bytes_now, durable_bytes


def _arrive(names: Names, entry: tuple[Any, ...]) -> None:
    if entry[0] == "add":
        names[entry[1]] = entry[2]
    else:
        names.pop(entry[1], None)
        names[entry[2]] = entry[3]


def crash_states(
    log: list[tuple[Any, ...]], seed: int = 0, draws: int = 4
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Disks after a crash: only what was synced, all that was done, and draws between the two; with
    each the number of steps that were reported as finished by then."""
    rng = random.Random(seed)
    for length in range(len(log) + 1):
        durable, pending, now, synced = _replay(log[:length])
        for draw in range(2 + draws):
            names = dict(durable)
            for entry in pending:
                if draw == 1 or (draw > 1 and rng.random() < 0.5):
                    _arrive(names, entry)
            disk: dict[str, bytes] = {}
            for path, inode in names.items():
                whole, kept = now[inode], synced[inode]
                torn = [kept, whole, whole[: len(whole) // 2], b"\0" * len(whole)]
                some = whole if draw == 1 else kept if draw == 0 else rng.choice(torn)
                disk[path] = whole if whole == kept else some
            yield sum(op[0] == "finished" for op in log[:length]), disk


def _object(i: int) -> bytes:
    return f"tensor {i}".encode() * 20


def _steps(store: Store, recipe: Path) -> None:
    """What a run does, step by step."""
    lock = Lock()
    for i in range(3):
        artifact = store.put_manifest(
            Manifest("model", files={"config.json": store.put_bytes(_object(i))})
        )
        lock = _record(store, recipe, lock, i, artifact)


def _record(store: Store, recipe: Path, lock: Lock, i: int, artifact: str) -> Lock:
    document: dict[str, object] = {
        "op": f"op{i}", "opv": "1", "class": "exact", "params": {}, "in": {}, "draws": None,
    }  # fmt: skip
    key = digest(KEY, document)
    store.record_action(key, ActionRecord(document, artifact))
    step = LockedStep(f"op{i}@1", "0" * 64, key, artifact)
    lock = Lock({}, {**lock.steps, f"step{i}": step})
    write_lock(recipe, lock)
    os.finished()  # type: ignore[attr-defined]
    return lock


def _faults(store: Store, recipe: Path, finished: int) -> list[str]:
    """What is wrong on this disk, when so many steps were reported as finished."""
    wrong: list[str] = []
    try:
        lock = read_lock(lock_path(recipe))
    except Exception as error:
        return [f"lock: {error}"]
    if len(lock.steps) < finished:
        wrong.append(f"lock: has {len(lock.steps)} of {finished} finished steps")
    for place, step in lock.steps.items():
        if not step.agrees or not _sound(store, step.out):
            wrong.append(f"lock: {place}")
    for path in sorted((store.root / "act").glob("*/*/*")):
        records = store.records(path.parent.name)
        if not records:
            wrong.append("record: unreadable")
        wrong += [f"record: {r.artifact[:8]}" for r in records if not _sound(store, r.artifact)]
    return wrong


def _sound(store: Store, artifact: str) -> bool:
    return store.is_whole(artifact) and check_artifact(store, artifact) == ()


def _bad_states(
    tmp_path: Path, work: Callable[[Store, Path], None], patch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """How many crash states there are, and how many of them are not legal."""
    home = tmp_path / "home"
    home.mkdir()
    recorder = Recorder()
    with patch.context() as inner:
        recorder.install(inner)
        store = Store(home / ".recipe")
        store.prepare()
        work(store, home / "a.recipe")
    bad = total = 0
    seen: dict[tuple[object, ...], bool] = {}
    for number, (finished, disk) in enumerate(crash_states(recorder.log)):
        total += 1
        state = (finished, *sorted(disk.items()))
        if state not in seen:
            place = tmp_path / f"disk{number}"
            for name, data in disk.items():
                path = place / Path(name).relative_to(home)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            seen[state] = bool(_faults(Store(place / ".recipe"), place / "a.recipe", finished))
        bad += seen[state]
    return total, bad


def test_no_crash_leaves_a_dangling_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all states a power cut may leave, none has a lock or record without its object."""
    total, bad = _bad_states(tmp_path, _steps, monkeypatch)
    assert total > 300
    assert bad == 0


def _lock_first(store: Store, recipe: Path) -> None:
    lock = Lock()
    for i in range(3):
        name = hashlib.sha256(_object(i)).hexdigest()
        manifest = Manifest("model", files={"config.json": name})
        lock = _record(store, recipe, lock, i, manifest.identity)
        store.put_bytes(_object(i))
        store.put_manifest(manifest)


def test_mutant_without_data_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming before the bytes are on the disk is caught."""
    monkeypatch.setattr(files, "sync", lambda descriptor: None)
    assert _bad_states(tmp_path, _steps, monkeypatch)[1] > 0


def test_mutant_without_folder_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on before a name is on the disk is caught."""
    monkeypatch.setattr(files, "sync_folder", lambda path: None)
    assert _bad_states(tmp_path, _steps, monkeypatch)[1] > 0


def test_mutant_lock_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing the record and the lock before the object is caught."""
    assert _bad_states(tmp_path, _lock_first, monkeypatch)[1] > 0


def test_mutant_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing a file where it stays, without a rename, is caught."""

    def in_place(path: Path, data: bytes, tmp: Path, *, mode: int = 0o644) -> None:
        files.ensure_folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
        files.sync_folder(path.parent)

    monkeypatch.setattr("recipelang.run.locking.write_file", in_place)
    assert _bad_states(tmp_path, _steps, monkeypatch)[1] > 0
