"""Advisory locks, so that two runs on one store compute a step once.

A lock is an ``flock`` on a file that is never deleted (so making and removing one cannot race); it
frees itself when its process ends. Where the file system has no locks, runs go on without: every
write of the store may be done twice.

Example: ``with key_locks(root, [key], waiting): ...``
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

__all__ = ["collection_lock", "key_locks"]

NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def key_locks(
    root: Path, keys: Iterable[str], waiting: Callable[[], None] = lambda: None
) -> Generator[None, None, None]:
    """Hold the locks of these action keys (64 hex digits; one of 256 files by the first two).

    They are taken in one order, so that two runs never wait for each other. ``waiting`` is called
    once when another process holds one of them.
    """
    with contextlib.ExitStack() as stack:
        for name in sorted({f"key-{key[:2]}" for key in keys}):
            stack.enter_context(_flock(root / "lock" / name, shared=False, waiting=waiting))
        yield


@contextlib.contextmanager
def collection_lock(root: Path, *, exclusive: bool = False) -> Generator[None, None, None]:
    """Shared by runs; exclusive for what removes objects."""
    with _flock(root / "lock" / "gc.lock", shared=not exclusive, waiting=lambda: None):
        yield


@contextlib.contextmanager
def _flock(path: Path, *, shared: bool, waiting: Callable[[], None]) -> Generator[None, None, None]:
    try:
        import fcntl
    except ImportError:  # Windows: no flock; the store's writes may be done twice
        yield
        return
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # a read-only store holds finished results only: nothing to wait for
        yield
        return
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, kind)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield
    finally:
        os.close(descriptor)
