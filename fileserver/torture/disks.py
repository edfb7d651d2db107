"""A small file system for each server, that can be filled up."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from fileserver.torture import namespaces
from fileserver.torture.namespaces import run_tool
from fileserver.torture.servers import disk_of

DISK_BYTES = 96 * 1024 * 1024
_PIECE = bytes(256 * 1024)


class SmallDisks:
    """Mounts them; they go with the mount namespace, or by `close`."""

    def __init__(self, directory: Path, servers: Iterable[int], size_bytes: int = DISK_BYTES) -> None:
        """Make one for each server. Raises OSError where that isn't allowed."""
        self._directory = directory
        self._mounted: list[int] = []
        try:
            for server in servers:
                place = disk_of(directory, server)
                place.mkdir(parents=True)
                run_tool("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "quintet-torture", str(place))
                self._mounted.append(server)
        except BaseException:
            self.close()
            raise

    def fill(self, server: int) -> int:
        """Use up all the room of a server's disk; gives the bytes that it took.

        Raises:
            OSError: for another reason than lack of room.
        """
        descriptor = os.open(self._filler(server), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        taken = 0
        piece = memoryview(_PIECE)
        try:
            while piece:
                try:
                    taken += os.write(descriptor, piece)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece = piece[: len(piece) // 2]
        finally:
            os.close(descriptor)
        return taken

    def free_bytes(self, server: int) -> int:
        """The room that is left."""
        found = os.statvfs(disk_of(self._directory, server))
        return found.f_bavail * found.f_frsize

    def clear(self, server: int) -> None:
        """Give back what `fill` took."""
        self._filler(server).unlink(missing_ok=True)

    def _filler(self, server: int) -> Path:
        return disk_of(self._directory, server) / "filler"

    def close(self) -> None:
        """Take the file systems off again, with all that is on them."""
        while self._mounted:
            with contextlib.suppress(OSError):  # what is still in use goes with the namespace
                run_tool("umount", str(disk_of(self._directory, self._mounted[-1])))
            self._mounted.pop()


def can_be_used() -> bool:
    """Whether this process may mount, where nobody else can see it."""
    return namespaces.is_apart()
