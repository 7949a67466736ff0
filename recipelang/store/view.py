"""What a plan and a run ask of the store and the lock together: contents of sources, results of
keys.

The lock chooses: where it has a step's key, its result is the one. Where it has not, a record of
the store serves; with several, one of this machine's device class, then the first by name (never
the newest: a clock decides nothing).

Example: ``View(store, lock, folder).lookup(key, None)``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recipelang.diagnostics import RecipeError, fault
from recipelang.ir.graph import Node
from recipelang.lineage.lockfile import Lock, LockedStep
from recipelang.store.digests import cached_digest, cached_digests
from recipelang.store.objects import Hashed, Range
from recipelang.store.records import ActionRecord
from recipelang.store.store import Store

__all__ = ["Found", "View", "source_path"]


@dataclass(frozen=True, slots=True)
class Found:
    """A result of an action key. ``present`` says whether the store can read it."""

    artifact: str
    backend: str
    present: bool
    run: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class View:
    """The store and a recipe's lock; implements :class:`recipelang.plan.schedule.StoreView`.

    ``folder`` is what relative paths are relative to. ``device`` is this machine's device class,
    used to choose between records that no lock chooses between. ``tell`` hears how far hashing is.
    """

    store: Store
    lock: Lock
    folder: Path
    device: str = "cpu"
    tell: Callable[[str], None] = lambda text: None
    _keys: dict[str, LockedStep] = field(init=False)
    _contents: dict[Node, str | None] = field(default_factory=dict[Node, "str | None"])
    _digests: dict[Path, Hashed] = field(default_factory=dict[Path, Hashed])
    _stamps: dict[Path, tuple[int, ...]] = field(default_factory=dict[Path, tuple[int, ...]])

    def __post_init__(self) -> None:
        object.__setattr__(self, "_keys", self.lock.by_key())

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self.store.root

    def hash_sources(self, nodes: Iterable[Node]) -> None:
        """Hash the files of sources side by side, before their contents are asked for one by
        one.
        """
        files: set[Path] = set()
        for node in nodes:
            place = source_path(node, self.folder)
            if place is not None and not place[1]:
                with contextlib.suppress(OSError, RecipeError):
                    files |= _files(node, place[0])
        self._stamps.update({file: _stamp(file) for file in files})
        self._digests.update(cached_digests(self.store, files, self.tell))

    def content(self, node: Node) -> str | None:
        """A source's revision, or the digest (hex) of its files; None where it is not here yet."""
        if node not in self._contents:
            self._contents[node] = self._content(node)
        return self._contents[node]

    def _content(self, node: Node) -> str | None:
        place = source_path(node, self.folder)
        if place is None:
            return None
        path, revision = place
        if revision:
            return revision
        try:
            return self._with_template(node, self._digest(node, path))
        except (OSError, RecipeError):
            return None

    def _digest(self, node: Node, path: Path) -> str:
        """Of a file its own; of a folder the sha256 of the names and digests of the files that
        count.
        """
        if path.is_file():
            return self._file(path)
        rows = sorted((file.name, self._file(file)) for file in _files(node, path))
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def _file(self, path: Path) -> str:
        if path not in self._stamps:
            self._stamps[path] = _stamp(path)
        return self._hashed(path).name

    def tensors_of(self, path: Path) -> Mapping[Range, str]:
        """The sha256 (hex) of a safetensors file's tensors by range, where it was hashed: what has
        a revision was not."""
        known = self._digests.get(path)
        return {} if known is None else known.tensors

    def _hashed(self, path: Path) -> Hashed:
        found = self._digests.get(path)
        if found is None:
            found = self._digests[path] = cached_digest(self.store, path)
        return found

    def check_unchanged(self, node: Node) -> None:
        """Raise RecipeError E0735 if a file of a source is another one than when it was hashed:
        what was read of it since then may not be what its content id says."""
        place = source_path(node, self.folder) if node.attr("uri") else None
        files = _files(node, place[0]) if place is not None else set[Path]()
        for file in sorted(files & self._stamps.keys()):
            if _stamp(file) != self._stamps[file]:
                raise fault(
                    "E0735", f"`{file}` changed while the recipe ran, so its result is not kept",
                    help="leave inputs alone while a recipe runs, and run it again",
                )  # fmt: skip

    def _with_template(self, node: Node, digest: str) -> str:
        """A dataset's chat template may be a file of its own."""
        template = node.attr("template")
        if not isinstance(template, str) or "{" in template:
            return digest
        other = cached_digest(self.store, self.folder / template).name
        return hashlib.sha256(f"{digest} {other}".encode()).hexdigest()

    def lookup(self, key: str, backend: str | None) -> Found | None:
        """The record of an action key: the lock's choice, else the store's. With ``backend``, only
        one that this backend (or none) computed."""
        records = [r for r in self.store.records(key) if not backend or r.backend in ("", backend)]
        chosen = self._keys.get(key)
        if chosen is not None and (not backend or chosen.backend in ("", backend)):
            mine = [r for r in records if r.artifact == chosen.out]
            present = self.store.is_whole(chosen.out)
            if present or not mine:
                run = mine[0].run if mine else ""
                return Found(chosen.out, chosen.backend, present, run)
            records = [r for r in records if r.backend in ("", chosen.backend)]
        ready = sorted(records, key=self._preference)
        return _found(self.store, ready[0]) if ready else None

    def _preference(self, record: ActionRecord) -> tuple[bool, bool, str]:
        whole = self.store.is_whole(record.artifact)
        return (not whole, record.device not in ("", self.device), record.identity)

    def previous(self, place: str) -> Mapping[str, object] | None:
        """The document of the action key that the lock has for a place."""
        step = self.lock.steps.get(place)
        return None if step is None or step.content else step.document


def _found(store: Store, record: ActionRecord) -> Found:
    whole = store.is_whole(record.artifact)
    return Found(record.artifact, record.backend, whole, record.run, record.seconds)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _files(node: Node, path: Path) -> set[Path]:
    """The files of a source that count; ``path`` is a file or a folder."""
    if path.is_file():
        return {path}
    from recipelang.weights.folder import AUXILIARY, weight_files

    match node.op:
        case "tokenizer":
            names: tuple[str, ...] = AUXILIARY
            weights: tuple[Path, ...] = ()
        case "adapter":
            names = ("adapter_config.json", "adapter_model.safetensors", *AUXILIARY)
            weights = ()
        case _:
            names, weights = ("config.json", *AUXILIARY), weight_files(path)
    return {*weights, *(path / name for name in names if (path / name).is_file())}


def source_path(node: Node, folder: Path) -> tuple[Path, str] | None:
    """Where a source's bytes are, and its revision (empty for what is not pinned by one); None
    where it is not on this machine."""
    from recipelang.sources import locate

    revision = node.attr("revision")
    try:
        place = locate(
            str(node.attr("uri")), revision if isinstance(revision, str) else None, folder=folder
        )
    except RecipeError:
        return None
    return None if place is None else (place.path, place.revision)
