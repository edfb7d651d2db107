"""A file that holds a server's process id while the server runs, and keeps a second one from starting.

The lock on the file, not its contents, says that the server runs: it goes with the process, however that ends, so a
file left by ``kill -9`` is in nobody's way. The id in it is for people and scripts.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AlreadyRunning(Exception):
    """Another process holds the file. The text says which."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the file, with our process id in it, for the time of a ``with`` block; afterwards it is gone.

    Raises:
        AlreadyRunning: another process holds it.
        OSError: it can't be made.
    """
    descriptor = _open_and_lock(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def check_not_held(path: Path) -> None:
    """Look whether a process holds the file, without leaving one behind.

    Raises:
        AlreadyRunning: one does.
        OSError: it can't be looked at.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _lock(descriptor, path, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _open_and_lock(path: Path) -> int:
    """Open the file that has that name and lock it; returns its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _lock(descriptor, path, fcntl.LOCK_EX)
        except AlreadyRunning:
            os.close(descriptor)
            raise
        if _is_the_file(descriptor, path):
            return descriptor
        # Its last holder took the name away between our open and our lock.
        os.close(descriptor)


def _lock(descriptor: int, path: Path, how: int) -> None:
    """Lock the open file, or raise AlreadyRunning."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        raise AlreadyRunning(f"process {holder or '(starting)'} holds {path}") from None


def _is_the_file(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
