"""Segments that the log needs no more, kept to be used again.

A segment has to be laid out before it is written to (:mod:`raftnode.segments`), which means writing it twice: first
zeros, then the log. What compaction sets free is laid out already. So a few such files are kept, under another name,
and the next segments begin over what they hold. No frame of theirs can be taken for one of the new segment, which has
another salt and higher sequence numbers; and zeros behind its own last frame say where it ends.

A spare is used only when the directory is known to be flushed since it lost its old name: otherwise a crash could bring
back the old name, with the new segment's contents under it.

Threads: any of the methods may be called from any thread.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

from raftnode.filesystem import FileSystem, OpenMode
from raftnode.segments import Blank

SPARES_MAX = 4


class SpareSegments:
    """The spares of one log; none are taken over from an earlier run."""

    def __init__(self, filesystem: FileSystem, directory: Path) -> None:
        self._filesystem = filesystem
        self._directory = directory
        self._paths: deque[Path] = deque()
        """The oldest first."""
        self._lock = threading.Lock()

    def keep(self, segment: Path) -> None:
        """Takes a segment out of the row, to be used again or removed. Raises OSError, with it as it was."""
        with self._lock:
            spare = segment.with_suffix(".tmp")
            self._filesystem.rename(segment, spare)
            self._paths.append(spare)
            if len(self._paths) > SPARES_MAX:
                self._filesystem.unlink(self._paths.popleft())

    def take(self, size_bytes: int) -> Blank | None:
        """A file of at least that length that can become a segment, if there is one; shorter ones are removed.

        Raises OSError.
        """
        with self._lock:
            while self._paths:
                path = self._paths.popleft()
                handle = self._filesystem.open(path, OpenMode.WRITE)
                try:
                    length_bytes = self._filesystem.size(handle)
                    if length_bytes >= size_bytes:
                        self._filesystem.flush_directory(self._directory)
                        return Blank(handle, path, length_bytes, is_reused=True)
                except OSError:
                    self._filesystem.close(handle)
                    raise
                self._filesystem.close(handle)
                self._filesystem.unlink(path)
        return None

    def remove_all(self) -> None:
        """Gives their room back. Raises OSError."""
        with self._lock:
            while self._paths:
                self._filesystem.unlink(self._paths.popleft())
