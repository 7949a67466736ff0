"""Publishing: plain Hugging Face folders, written beside their place and renamed, all or none.

A published model has config.json, model.safetensors (or shards and an index), and the tokenizer's
files; an adapter the two files that PEFT reads. `recipe.json` says which artifact it is, and marks
the folder as one that recipelang may replace. Shards are reflinked where the disk can, else copied;
never hard-linked, so that nobody changes the store from outside.

Example: ``publish_all([Publication(value, Path("out/student"), False, "student")], store)``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from recipelang.diagnostics import fault
from recipelang.run.values import AdapterValue, ModelValue
from recipelang.store.files import ensure_folder, sync_file, sync_folder, translated
from recipelang.weights.checkpoint import Checkpoint
from recipelang.weights.safetensors import read_header
from recipelang.weights.shards import index_json, shard_name
from recipelang.weights.stored import StoredModel

__all__ = ["MARKER", "Publication", "check_place", "is_published", "publish_all", "resolve"]

MARKER = "recipe.json"
SCHEMA = "recipelang/published/1"
INDEX = "model.safetensors.index.json"
FICLONE = 0x40049409
"""The ioctl that makes a file share another one's blocks (btrfs, XFS): man 2 ioctl_ficlonerange."""


@dataclass(frozen=True, eq=False)
class Publication:
    """What goes where. ``place`` is the step's name, ``recipe`` the file's."""

    value: ModelValue | AdapterValue
    target: Path
    overwrite: bool
    place: str
    recipe: str


def resolve(uri: str, folder: str) -> Path:
    """The folder that a URI names. Raises RecipeError E0856 for what is not on this machine's
    disk.
    """
    scheme, colon, _ = uri.partition(":")
    if colon and len(scheme) > 1:
        raise fault(
            "E0856", f"cannot publish to `{scheme}:` yet",
            help="publish to a folder, and upload it: `hf upload org/name FOLDER`",
        )  # fmt: skip
    return Path(os.path.normpath(Path(folder) / Path(uri).expanduser()))


def check_place(target: Path, overwrite: bool) -> None:
    """Refuse to replace a folder that is not ours. Raises RecipeError E0855; asked before a run
    too.
    """
    if overwrite or not target.exists() or (target / MARKER).is_file():
        return
    if target.is_dir() and not any(target.iterdir()):
        return
    what = "a folder with files of its own" if target.is_dir() else "a file"
    raise fault(
        "E0855", f"`{target}` is {what}, which recipelang did not write",
        help="publish elsewhere, or allow replacing it: `{ overwrite = true }`",
    )  # fmt: skip


def is_published(target: Path, artifact: str) -> bool:
    """Whether the folder holds this artifact already, with every file in its size."""
    try:
        marker = json.loads((target / MARKER).read_bytes())
        if marker["schema"] != SCHEMA or marker["artifact"] != artifact:
            return False
        sizes: dict[str, int] = marker["files"]
        return all((target / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def publish_all(publications: Sequence[Publication]) -> tuple[Path, ...]:
    """Write everything beside its place, then rename; after a failure the old folders are back.

    What is there already with equal content is left alone. Raises RecipeError E0851, E0852, E0855.
    """
    for publication in publications:
        check_place(publication.target, publication.overwrite)
    new = [p for p in publications if not is_published(p.target, p.value.artifact)]
    with contextlib.ExitStack() as stack:
        written = [(p.target, stack.enter_context(_beside(p))) for p in new]
        _swap(written)
    return tuple(p.target for p in publications)


@contextlib.contextmanager
def _beside(publication: Publication) -> Generator[Path, None, None]:
    """The finished folder beside its place; what is left of it is removed at the end."""
    target = publication.target
    ensure_folder(target.parent)
    beside = target.with_name(f".{target.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp")
    try:
        with translated(target):
            beside.mkdir()
            _write(publication, beside)
            for file in beside.iterdir():
                sync_file(file)
            sync_folder(beside)
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _swap(written: Sequence[tuple[Path, Path]]) -> None:
    """Rename every new folder into place; on a failure bring the old ones back."""
    done: list[tuple[Path, Path | None]] = []
    try:
        for target, beside in written:
            old = None
            with translated(target):
                if target.exists():
                    old = beside.with_suffix(".old")
                    os.rename(target, old)
                    done.append((target, old))
                os.rename(beside, target)
                if old is None:
                    done.append((target, None))
                sync_folder(target.parent)
    except BaseException:
        for target, old in reversed(done):
            shutil.rmtree(target, ignore_errors=True)
            if old is not None:
                os.rename(old, target)
        raise
    for _, old in done:
        if old is not None and old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        elif old is not None:
            old.unlink()


def _write(publication: Publication, folder: Path) -> None:
    value = publication.value
    if isinstance(value, AdapterValue):
        _write_adapter(value, folder)
    else:
        _write_model(value, folder)
    names = sorted(file.name for file in folder.iterdir())
    marker = {
        "schema": SCHEMA, "artifact": value.artifact, "recipe": publication.recipe,
        "step": publication.place,
        "files": {name: (folder / name).stat().st_size for name in names},
    }  # fmt: skip
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _write_model(value: ModelValue, folder: Path) -> None:
    config = json.dumps(dict(value.checkpoint.config), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    for name, content in value.checkpoint.files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            copy_file(content, folder / name)
    if not _copy_shards(value.checkpoint, folder):
        _write_weights(value.checkpoint, folder)


def _copy_shards(model: Checkpoint, folder: Path) -> bool:
    """Copy the stored shards, where they hold this model's tensors and no others."""
    if not isinstance(model, StoredModel):
        return False
    table = {name: tensor.shard for name, tensor in model.manifest.tensors.items()}
    for digest in set(table.values()):
        held = read_header(model.object_path(digest)).entries
        if set(held) != {name for name, shard in table.items() if shard == digest}:
            return False
    digests = sorted(set(table.values()), key=lambda d: min(n for n, s in table.items() if s == d))
    names = {d: shard_name(i, len(digests)) for i, d in enumerate(digests, 1)}
    for digest, name in names.items():
        copy_file(model.object_path(digest), folder / name)
    if len(digests) > 1:
        files = {tensor: names[digest] for tensor, digest in table.items()}
        (folder / INDEX).write_bytes(index_json(model.tensors, files))
    return True


def _write_weights(model: Checkpoint, folder: Path) -> None:
    """Stream the tensors of a source, or of a model with its adapter baked in."""
    from recipelang.weights.engine import run_region
    from recipelang.weights.writer import ModelWriter

    writer = ModelWriter(folder, model.tensors)
    try:
        run_region([(model, writer)])
        written = writer.finish()
    finally:
        writer.close()
    for shard in written.shards:
        shard.path.chmod(0o644)
    if len(written.shards) > 1:
        names = {shard.digest: shard.path.name for shard in written.shards}
        files = {tensor: names[stored.shard] for tensor, stored in written.tensors.items()}
        (folder / INDEX).write_bytes(index_json(model.tensors, files))


def _write_adapter(value: AdapterValue, folder: Path) -> None:
    """The two files of PEFT."""
    config = json.dumps(dict(value.checkpoint.config), indent=2, ensure_ascii=False)
    _write_weights(value.checkpoint, folder)
    os.rename(folder / "model.safetensors", folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(config + "\n", encoding="utf-8")


def copy_file(source: Path, target: Path) -> None:
    """A copy that shares blocks where the file system can, with the plain rights of a new file."""
    if os.name == "posix":
        import fcntl

        with open(source, "rb") as old, open(target, "wb") as new:
            try:
                fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
                return
            except OSError:
                pass
    shutil.copyfile(source, target)
