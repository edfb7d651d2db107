"""Records every change that storage makes to its disk, and what was promised at that moment.

Theory of operation
-------------------
:class:`Recorder` is a file system that hands every call on to a :class:`~raftnode.simulated_disk.SimulatedDisk` and
notes those that change something: an :class:`Operation` each, in order, with the :class:`Promise` that held while it
was under way. When a step of storage has returned, :meth:`Recorder.returned` notes that too, since from then on a
crash may not undo it. A power cut or a kill in the middle of a recording is an operation like others.

The record alone, without the simulated disk, says what may be on disk after a crash at any moment of it:
:mod:`tests.crash_images.images` works that out.

A file has a number that stays with it when it is renamed; the handle through which it is written doesn't matter.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TypeAlias

import attrs

from raftnode.buffers import Chunk
from raftnode.filesystem import OpenMode, write_all
from raftnode.simulated_disk import SimulatedCrash, SimulatedDisk, Survival
from tests.stage3_raftnode.storage_tools import DIRECTORY, State

Image: TypeAlias = dict[str, bytes]
"""What is on a disk when the power comes back: the contents of the files by name."""


@attrs.frozen
class Promise:
    """What a recovery may find; anything else breaks what storage has said."""

    states: frozenset[State]
    clocks_us: frozenset[int]


class Kind(enum.Enum):
    """What storage did."""

    CREATE = "create"
    WRITE = "write"
    FLUSH = "flush"
    TRUNCATE = "truncate"
    RENAME = "rename"
    UNLINK = "unlink"
    FLUSH_DIRECTORY = "flush directory"
    RETURNED = "returned"
    """A step has returned; nothing was done to the disk."""
    RESTARTED = "restarted"
    """The power was cut and has come back, with ``image`` on the disk."""


@attrs.frozen
class Operation:
    """One change."""

    kind: Kind
    promise: Promise
    file: int = 0
    name: str = ""
    target: str = ""
    """The new name, of a RENAME."""
    offset: int = 0
    """Where a WRITE begins; the length that a TRUNCATE makes; in bytes."""
    data: bytes = b""
    flushed: bool = False
    """Of a WRITE: whether it was flushed when it returned."""
    image: Image | None = None

    def __str__(self) -> str:
        what = f"{self.kind.value} {self.name}"
        if self.kind is Kind.WRITE:
            what += f" [{self.offset}:{self.offset + len(self.data)}]" + (" and flush" if self.flushed else "")
        elif self.kind is Kind.TRUNCATE:
            what += f" to {self.offset}"
        elif self.kind is Kind.RENAME:
            what += f" to {self.target}"
        return what.strip()


@attrs.define
class _Interruption:
    kind: Kind
    name_part: str
    skip: int
    action: Callable[[], object]


def image_of(disk: SimulatedDisk) -> Image:
    """All that is visible in the directory."""
    return {name: bytes(disk.content(DIRECTORY / name)) for name in disk.list_directory(DIRECTORY)}


def disk_of(image: Image) -> SimulatedDisk:
    """A disk that has come back with that on it."""
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    for name, content in image.items():
        handle = disk.open(DIRECTORY / name, OpenMode.CREATE)
        if content:
            disk.write(handle, [content], 0, flush=True)
        disk.close(handle)
    disk.flush_directory(DIRECTORY)
    return disk


class Recorder:
    """A FileSystem that notes what is done to it. ``promise`` tells what holds at the moment."""

    def __init__(self, disk: SimulatedDisk, promise: Callable[[], Promise]) -> None:
        self.disk = disk
        self.operations: list[Operation] = []
        self.write_bytes_max: int | None = None
        """How much one call writes at most, as when a signal comes; the caller is to call again for the rest."""
        self._promise = promise
        self._interruptions: list[_Interruption] = []
        self._handles: dict[int, tuple[int, str]] = {}
        self._names: dict[str, int] = {}
        self._next_file = 1
        disk.make_directory(DIRECTORY)
        for name in disk.list_directory(DIRECTORY):
            self._number(name)

    def interrupt(self, kind: Kind, name_part: str, action: Callable[[], object], *, skip: int = 0) -> None:
        """Carries out an action right behind an operation, as if another thread did: once, after so many like it."""
        self._interruptions.append(_Interruption(kind, name_part, skip, action))

    @property
    def all_interrupted(self) -> bool:
        """Whether all interruptions have come."""
        return not self._interruptions

    def interrupt_no_more(self) -> None:
        """Forgets the interruptions that have not come."""
        self._interruptions.clear()

    def returned(self) -> None:
        """A step of storage has returned: what it did is promised from now on."""
        self._note(Kind.RETURNED, 0, "")

    def power_cut(self, dice: Random, survival: Survival = Survival.RANDOM) -> None:
        """Cuts the power and goes on with what is left."""
        self.disk.power_cut(dice, survival)
        self._handles.clear()
        self._names.clear()
        self._next_file = 1
        image = image_of(self.disk)
        for name in image:
            self._number(name)
        self._note(Kind.RESTARTED, 0, "", image=image)

    def process_killed(self) -> None:
        """The process is gone; what it has written waits in the page cache as before."""
        self.disk.process_killed()
        self._handles.clear()
        self.returned()

    def _number(self, name: str) -> int:
        if name not in self._names:
            self._names[name] = self._next_file
            self._next_file += 1
        return self._names[name]

    def _note(
        self,
        kind: Kind,
        file: int,
        name: str,
        *,
        target: str = "",
        offset: int = 0,
        data: bytes = b"",
        flushed: bool = False,
        image: Image | None = None,
    ) -> None:
        self.operations.append(
            Operation(kind, self._promise(), file, name, target, offset, data, flushed=flushed, image=image)
        )
        for interruption in self._interruptions:
            if interruption.kind is kind and interruption.name_part in name:
                if interruption.skip:
                    interruption.skip -= 1
                    continue
                self._interruptions.remove(interruption)
                interruption.action()
                break

    @contextmanager
    def _even_if_cut(self, note: Callable[[], None]) -> Iterator[None]:
        """Notes what a call did, also when the simulated disk crashes behind it; not if it had crashed before."""
        calls = self.disk.call_count
        try:
            yield
        except SimulatedCrash:
            if self.disk.call_count > calls:
                self._interruptions.clear()
                note()
            raise
        note()

    def open(self, path: Path, mode: OpenMode) -> int:
        """See FileSystem."""

        def note() -> None:
            if mode is OpenMode.CREATE:
                self._note(Kind.CREATE, self._number(path.name), path.name)

        with self._even_if_cut(note):
            handle = self.disk.open(path, mode)
        self._handles[handle] = (self._names[path.name], path.name)
        return handle

    def close(self, handle: int) -> None:
        """See FileSystem."""
        self.disk.close(handle)
        self._handles.pop(handle, None)

    def read(self, handle: int, size_bytes: int, offset: int) -> bytes:
        """See FileSystem."""
        return self.disk.read(handle, size_bytes, offset)

    def write(self, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> int:
        """See FileSystem."""
        data = b"".join(buffers)[: self.write_bytes_max]
        number, name = self._handles[handle]
        written = len(data)
        flushed = False

        def note() -> None:
            # A call that is cut returns nothing: on a full disk less may be there than was to be written.
            there = min(written, max(self.disk.size(handle) - offset, 0))
            self._note(Kind.WRITE, number, name, offset=offset, data=data[:there], flushed=flushed)

        with self._even_if_cut(note):
            written = self.disk.write(handle, [data], offset, flush=flush)
            flushed = flush
        return written

    def append(self, handle: int, buffers: Sequence[Chunk], offset: int, *, zeros_behind: int = 0) -> None:
        """See FileSystem."""
        write_all(self, handle, [self.disk.with_zeros(handle, buffers, offset, zeros_behind)], offset, flush=True)

    def flush(self, handle: int) -> None:
        """See FileSystem."""
        number, name = self._handles[handle]
        self.disk.flush(handle)
        self._note(Kind.FLUSH, number, name)

    def truncate(self, handle: int, size_bytes: int) -> None:
        """See FileSystem."""
        number, name = self._handles[handle]
        with self._even_if_cut(lambda: self._note(Kind.TRUNCATE, number, name, offset=size_bytes)):
            self.disk.truncate(handle, size_bytes)

    def size(self, handle: int) -> int:
        """See FileSystem."""
        return self.disk.size(handle)

    def rename(self, source: Path, target: Path) -> None:
        """See FileSystem."""

        def note() -> None:
            number = self._names.pop(source.name)
            self._names[target.name] = number
            for handle, (opened, _) in self._handles.items():
                if opened == number:
                    self._handles[handle] = (number, target.name)
            self._note(Kind.RENAME, number, source.name, target=target.name)

        with self._even_if_cut(note):
            self.disk.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See FileSystem."""
        with self._even_if_cut(lambda: self._note(Kind.UNLINK, self._names.pop(path.name), path.name)):
            self.disk.unlink(path)

    def list_directory(self, path: Path) -> list[str]:
        """See FileSystem."""
        return self.disk.list_directory(path)

    def make_directory(self, path: Path) -> None:
        """See FileSystem. A recording begins with the directory made: before that there is nothing to lose."""
        self.disk.make_directory(path)

    def flush_directory(self, path: Path) -> None:
        """See FileSystem."""
        self.disk.flush_directory(path)
        self._note(Kind.FLUSH_DIRECTORY, 0, "")

    def lock(self, path: Path) -> int:
        """See FileSystem."""

        def note() -> None:
            if path.name not in self._names:
                self._note(Kind.CREATE, self._number(path.name), path.name)

        with self._even_if_cut(note):
            handle = self.disk.lock(path)
        self._handles[handle] = (self._names[path.name], path.name)
        return handle

    def random_bytes(self, size_bytes: int) -> bytes:
        """See FileSystem."""
        return self.disk.random_bytes(size_bytes)
