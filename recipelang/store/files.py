"""Durable files: what is renamed into place was synced before, and the folder is synced after.

Every write of the store goes through here, so that one page holds the rules that a power cut tests:
a file gets its name only when its bytes are on the disk, and a name counts only when its folder is
(`restic`'s ``Save`` and ``borg``'s ``SaveFile`` are written so; ALICE, OSDI'14, shows why).

Example:
    >>> write_file(Path("a/b.txt"), b"whole or not there", Path("tmp"))  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

from recipelang.diagnostics import fault

__all__ = [
    "ensure_folder",
    "move_in",
    "sync",
    "sync_file",
    "sync_folder",
    "translated",
    "write_file",
]

READ_ONLY = 0o444
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)
"""What some network and user-space file systems answer to ``fsync``: they have none to offer."""


@contextlib.contextmanager
def translated(path: Path) -> Generator[None, None, None]:
    """Turn a failure of the disk into a diagnostic.

    Raises RecipeError E0852 when the disk is full, E0851 when writing is not allowed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise fault(
                "E0852", f"the disk is full: `{path}` could not be written",
                help="free some space or point `RECIPE_STORE` at a larger disk, and run the same "
                "command again: what was finished is kept", notes=(_free(path),),
            ) from error  # fmt: skip
        if error.errno in FORBIDDEN:
            raise fault(
                "E0851", f"`{path}` cannot be written: {error.strerror}",
                help="allow writing there, or point `RECIPE_STORE` at a folder of yours",
            ) from error  # fmt: skip
        raise


def _free(path: Path) -> str:
    """How much is left on the disk that holds the path."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return f"{shutil.disk_usage(path).free / 2**20:.1f} MiB are free on that disk"
    except OSError:
        return "how much is free on that disk is not known"


def sync(descriptor: int) -> None:
    """Bring an open file's bytes to the disk, where the file system offers it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def sync_file(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk."""
    if os.name == "nt":  # a folder cannot be opened there, and its names are journalled
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def ensure_folder(path: Path) -> None:
    """Make a folder and those above it; every new name is synced."""
    if path.is_dir():
        return
    if path.parent != path:
        ensure_folder(path.parent)
    with translated(path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
        sync_folder(path.parent)


def write_file(path: Path, data: bytes, tmp: Path, *, mode: int = 0o644) -> None:
    """Write a whole file: beside its place (in ``tmp``, same disk), synced, renamed, folder synced.

    Whoever reads the path sees the old bytes or the new ones. Raises RecipeError E0851, E0852.
    """
    ensure_folder(tmp)
    ensure_folder(path.parent)
    beside = tmp / f".{os.getpid()}-{uuid4().hex[:16]}.tmp"
    with translated(path):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                sync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            raise
        sync_folder(path.parent)


def move_in(temporary: Path, path: Path) -> None:
    """Give a finished temporary file its name: synced, made read-only, renamed, folder synced.

    Raises RecipeError E0851, E0852.
    """
    ensure_folder(path.parent)
    with translated(path):
        sync_file(temporary)
        os.chmod(temporary, READ_ONLY)
        os.rename(temporary, path)
        sync_folder(path.parent)
