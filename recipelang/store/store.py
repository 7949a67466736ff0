"""The store: objects, manifests and action records under one folder, shared by any number of runs.

    obj/ab/abcd…        an object, 0444: a file, named by its sha256, or a canonical safetensors
                        shard, named by its header and its tensors' sha256
    man/ab/abcd…        an artifact's manifest, named by its identity
    act/ab/KEY/ID       an action record: what an action key gave, on which backend and device
    src/ab/KEY          a source's artifact id, so that its weights are hashed once
    sum/ab/STAT         a file's digest by device, inode, size and mtime
    rep/ab/abcd…/KEY    what was seen of an artifact while an action made it: no part of either
    run/ID/             what a run did: run.json, report.md, results.json, plots
    work/KEY…/          an unfinished training's checkpoint
    tmp/ lock/ format .gitignore

Objects are durable before the manifest that names them, manifests before action records, and those
before the lock file. Nothing in it is ever changed, only added or removed, and nothing is
hard-linked out of it, so that nobody changes it from outside.

A shard is not named by the sha256 of its file, because its tensors' are taken while it is written:
hashing every byte a second time was half of a merge's hashing, and a processor without SHA
instructions hashes 320 MB a second. :mod:`recipelang.store.objects` has the rule.

Example:
    >>> store = Store.open_for(Path("a.recipe"))  # doctest: +SKIP
    >>> digest = store.put_bytes(b"hello")  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from stat import S_ISREG
from uuid import uuid4

from recipelang.diagnostics import fault
from recipelang.store.artifact import Manifest
from recipelang.store.files import READ_ONLY, ensure_folder, move_in, write_file
from recipelang.store.objects import file_digest, hash_object
from recipelang.store.place import find_root
from recipelang.store.records import ActionRecord
from recipelang.types import DTYPE_BYTES

__all__ = ["FORMAT", "Store"]

FORMAT = 1
EMPTY = hashlib.sha256().hexdigest()
IGNORE = "# written by recipelang: models and caches do not belong in git\n*\n"


@dataclass(frozen=True, slots=True)
class Store:
    """A store at ``root``. Opening makes nothing; :meth:`prepare` does."""

    root: Path

    # ------------------------------------------------------------ the folder

    @classmethod
    def open_for(cls, recipe: Path) -> Store:
        """The store of a recipe file; it need not exist yet. Raises RecipeError E0850."""
        return cls.open(find_root(recipe))

    @classmethod
    def open(cls, root: Path) -> Store:
        """The store at a folder; it need not exist yet.

        Raises RecipeError E0850 when a later recipelang wrote it.
        """
        try:
            found = (root / "format").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return cls(root)
        if found != str(FORMAT):
            raise fault(
                "E0850", f"the store `{root}` has format {found}, this recipelang reads {FORMAT}",
                help="upgrade recipelang, or point `RECIPE_STORE` at another folder",
            )  # fmt: skip
        return cls(root)

    def prepare(self) -> None:
        """Make the folders and files that every store has. Raises RecipeError E0851, E0852."""
        if (self.root / "format").exists():
            return
        for name in ("obj", "man", "act", "run", "tmp", "lock"):
            ensure_folder(self.root / name)
        write_file(self.root / ".gitignore", IGNORE.encode(), self.tmp)
        write_file(self.root / "format", f"{FORMAT}\n".encode(), self.tmp)

    @property
    def tmp(self) -> Path:
        """Temporary files, on the same disk as the objects."""
        return self.root / "tmp"

    @property
    def writable(self) -> bool:
        """Whether this process may add to the store."""
        folder = self.root
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        return os.access(folder, os.W_OK)

    @contextlib.contextmanager
    def temporary(self) -> Generator[Path, None, None]:
        """A new folder under ``tmp`` that is gone afterwards; :meth:`adopt` takes files out of
        it.
        """
        folder = self.tmp / f"{os.getpid()}-{uuid4().hex[:16]}"
        ensure_folder(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------ objects

    def object_path(self, digest: str) -> Path:
        """Where an object is, or would be."""
        return self.root / "obj" / digest[:2] / digest

    def has(self, digest: str, least: int = 1) -> bool:
        """Whether the object is there, with ``least`` bytes or more: a file that was cut short, or
        emptied, counts as missing. Its bytes are not hashed.
        """
        try:
            found = self.object_path(digest).stat()
        except OSError:
            return False
        return S_ISREG(found.st_mode) and (found.st_size >= least or digest == EMPTY)

    def _holds(self, digest: str, size: int) -> bool:
        """Whether the object is there in its size, so that it need not be written."""
        return self.has(digest) and self.object_path(digest).stat().st_size == size

    def ensure_sound(self, artifact: str) -> None:
        """Hash the objects of an artifact that is about to leave the store, and of what it stands
        on. A damaged one is removed, so that the next run makes it anew.

        Raises RecipeError E0761.
        """
        manifest = self.manifest(artifact)
        if manifest is None:
            return
        for digest in sorted(_objects(manifest)):
            self._ensure_object(digest, digest in manifest.shards)
        if manifest.base:
            self.ensure_sound(manifest.base)

    def _ensure_object(self, digest: str, shard: bool) -> None:
        path = self.object_path(digest)
        if self.has(digest) and hash_object(path, shard=shard).name == digest:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        raise fault(
            "E0761", f"the stored object `{path}` was damaged, and has been removed",
            help="run the recipe again: what it held is made anew",
        )  # fmt: skip

    def put_bytes(self, data: bytes) -> str:
        """Keep bytes; returns their sha256 (hex). Doing it twice does nothing more."""
        digest = hashlib.sha256(data).hexdigest()
        if not self._holds(digest, len(data)):
            write_file(self.object_path(digest), data, self.tmp, mode=READ_ONLY)
        return digest

    def put_file(self, path: Path) -> str:
        """Keep a copy of a file; returns its sha256 (hex)."""
        digest = file_digest(path)
        if not self._holds(digest, path.stat().st_size):
            with self.temporary() as folder:
                copy = folder / "copy"
                shutil.copyfile(path, copy)
                if file_digest(copy) != digest:
                    raise fault("E0761", f"`{path}` changed while it was read")
                move_in(copy, self.object_path(digest))
        return digest

    def adopt(self, temporary: Path, digest: str) -> None:
        """Keep a finished file by renaming it, under the name that its writer has taken on the
        way.
        """
        if self._holds(digest, temporary.stat().st_size):
            temporary.unlink()
        else:
            move_in(temporary, self.object_path(digest))

    # ------------------------------------------------------------ manifests

    def manifest_path(self, artifact: str) -> Path:
        """Where a manifest is, or would be."""
        return self.root / "man" / artifact[:2] / artifact

    def put_manifest(self, manifest: Manifest) -> str:
        """Keep a manifest whose objects are in the store; returns the artifact's identity.

        Another one of the same identity is kept unless its objects are gone.
        """
        artifact = manifest.identity
        needed = _objects(manifest).items()
        missing = [digest for digest, size in needed if not self.has(digest, size)]
        if missing:
            raise ValueError(f"the manifest names objects that are not stored: {missing[:3]}")
        if not self.is_whole(artifact):
            write_file(self.manifest_path(artifact), manifest.to_json(), self.tmp, mode=READ_ONLY)
        return artifact

    def manifest(self, artifact: str) -> Manifest | None:
        """The manifest of an artifact; None where there is none, or it is damaged."""
        try:
            manifest = Manifest.from_json(self.manifest_path(artifact).read_bytes())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return manifest if manifest.identity == artifact else None

    def is_whole(self, artifact: str) -> bool:
        """Whether the artifact can be read: its manifest and objects are there.

        Objects are looked for and measured, not hashed:
        :func:`recipelang.store.check.check_artifact` does that.
        What an ``adapted`` model stands on is looked for too, unless it is a source (which the
        recipe opens in place).
        """
        manifest = self.manifest(artifact)
        if manifest is None:
            return False
        if not all(self.has(digest, size) for digest, size in _objects(manifest).items()):
            return False
        return (
            not manifest.base
            or self.manifest(manifest.base) is None
            or self.is_whole(manifest.base)
        )

    def artifacts(self, prefix: str = "") -> tuple[str, ...]:
        """The identities of all artifacts that start with ``prefix``, sorted."""
        folder = self.root / "man"
        found = (f.name for f in folder.glob(f"{prefix[:2]}*/{prefix}*"))
        return tuple(sorted(found))

    # ------------------------------------------------------------ action records

    def record_action(self, key: str, record: ActionRecord) -> None:
        """Remember what an action key gave. Call it when the artifact's manifest is stored."""
        path = self.root / "act" / key[:2] / key / record.identity
        if not path.exists():
            write_file(path, record.to_json(), self.tmp, mode=READ_ONLY)

    def records(self, key: str) -> tuple[ActionRecord, ...]:
        """All that is known of an action key, in the order of the records' names; damaged ones are
        left out."""
        folder = self.root / "act" / key[:2] / key
        found: list[ActionRecord] = []
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            with contextlib.suppress(OSError, ValueError):
                found.append(ActionRecord.from_json(path.read_bytes()))
        return tuple(found)

    # ------------------------------------------------------------ reports

    def put_report(self, artifact: str, key: str, report: object) -> None:
        """Keep a JSON value about how an action made an artifact, in place of an earlier one. It is
        no part of the artifact. Raises RecipeError E0851, E0852."""
        data = (json.dumps(report, ensure_ascii=False, allow_nan=False) + "\n").encode()
        write_file(self.root / "rep" / artifact[:2] / artifact / key, data, self.tmp)

    def report(self, artifact: str, key: str = "") -> object:
        """The report of an artifact by the action ``key``, by the first of all without one; None
        where there is none."""
        folder = self.root / "rep" / artifact[:2] / artifact
        for path in [folder / key] if key else sorted(folder.glob("*")):
            with contextlib.suppress(OSError, ValueError):
                report: object = json.loads(path.read_bytes())
                return report
        return None

    # ------------------------------------------------------------ unfinished trainings

    def work_folder(self, key: str, backend: str, device: str, devices: int) -> Path:
        """The folder of a training's checkpoints; another backend, kind or number of devices has
        another one, since their bits differ."""
        return self.root / "work" / f"{key}-{backend}-{device}-{devices}"

    def drop_work(self, folder: Path) -> None:
        """Remove a training's checkpoints: its result is recorded."""
        shutil.rmtree(folder, ignore_errors=True)

    # ------------------------------------------------------------ small caches

    def remember(self, kind: str, key: str, value: object) -> None:
        """Keep a small JSON value that can be made again (``src``); a failure to write is no
        fault.
        """
        path = self.root / kind / key[:2] / key
        if path.exists() or not (self.root / "format").exists() or not self.writable:
            return
        write_file(path, json.dumps(value).encode(), self.tmp)

    def recall(self, kind: str, key: str) -> object:
        """What :meth:`remember` kept, or None."""
        try:
            found: object = json.loads((self.root / kind / key[:2] / key).read_bytes())
        except (OSError, ValueError):
            return None
        return found


def _objects(manifest: Manifest) -> dict[str, int]:
    """The objects that an artifact needs, with the bytes that each has at least. A source's tensors
    have no shard: they lie outside."""
    found = dict.fromkeys(manifest.files.values(), 1)
    for tensor in manifest.tensors.values():
        if tensor.shard:
            end = tensor.offset + prod(tensor.shape) * DTYPE_BYTES[tensor.dtype]
            found[tensor.shard] = max(found.get(tensor.shard, 1), end)
    return found
