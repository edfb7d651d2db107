"""A disk in memory that loses what was not flushed, for tests and for the simulator.

Theory of operation
-------------------
Each file has two contents: the visible one, which every read sees, and the durable one, plus the list of
changes between them that wait for a flush. A directory is kept in the same way: names are durable only after
:meth:`SimulatedDisk.flush_directory`. So a file whose content was flushed is still gone after a power cut if
its name was not.

Two kinds of crash:

* :meth:`SimulatedDisk.process_killed`: handles and locks are gone, everything visible stays.
* :meth:`SimulatedDisk.power_cut`: of the waiting changes of each file any subset survives, some of them torn at
  bounds of 1, 512 or 4096 bytes, or as zeros or garbage, drawn from the random generator given; of the waiting changes
  of a directory a first part survives, since file systems keep these in a journal.

``crash_at_call`` cuts a call in the middle: its change has been made but not flushed, :class:`SimulatedCrash` is
raised, and nothing works until one of the two methods above is called.

Faults are laid in with :meth:`SimulatedDisk.fail`. A failed flush behaves as Linux does: the changes that waited
are taken for clean, so they stay visible, and no later flush makes them durable. ``space_bytes`` is the room
on the disk: a write that goes past it is cut short, and fails if not a byte fits.
"""

from __future__ import annotations

import enum
import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from raftnode.buffers import Chunk
from raftnode.filesystem import BUFFERS_MAX, OpenMode, write_all

APPEND_BLOCK_BYTES = 512
"""Appends end with zeros up to a multiple of this: fewer than real ones, so that more of what stood there stays."""


class Call(enum.Enum):
    """The calls that are counted, and that can be made to fail."""

    OPEN = enum.auto()
    READ = enum.auto()
    WRITE = enum.auto()
    """The write itself; nothing is written when it fails."""
    FLUSH = enum.auto()
    """Of a file, also as a part of a write."""
    TRUNCATE = enum.auto()
    RENAME = enum.auto()
    UNLINK = enum.auto()
    LIST = enum.auto()
    FLUSH_DIRECTORY = enum.auto()
    LOCK = enum.auto()


class SimulatedCrash(BaseException):
    """The power is cut, or the process killed, in the middle of a call. No error to be handled by what is tested."""


class Survival(enum.Enum):
    """What a power cut leaves of changes that were not flushed."""

    NOTHING = enum.auto()
    EVERYTHING = enum.auto()
    RANDOM = enum.auto()


@attrs.define
class _File:
    visible: bytearray = attrs.Factory(bytearray)
    durable: bytearray = attrs.Factory(bytearray)
    waiting: list[tuple[int, bytes | None]] = attrs.Factory(list)
    """(offset, data) of a write; (size, None) of a truncation."""

    def change(self, offset: int, data: bytes | None) -> None:
        _apply(self.visible, offset, data)
        self.waiting.append((offset, data))

    def flush(self) -> None:
        for offset, data in self.waiting:
            _apply(self.durable, offset, data)
        self.waiting.clear()

    def lose(self, dice: random.Random, survival: Survival) -> None:
        waiting, self.waiting = self.waiting, []
        if survival is not Survival.NOTHING:
            for offset, data in waiting:
                if survival is Survival.EVERYTHING:
                    _apply(self.durable, offset, data)
                else:
                    self._survive_partly(offset, data, dice)
        self.visible = bytearray(self.durable)

    def _survive_partly(self, offset: int, data: bytes | None, dice: random.Random) -> None:
        chance = dice.choice((0.0, 0.2, 0.5, 0.9, 1.0))
        if data is None:
            if dice.random() < chance:
                _apply(self.durable, offset, None)
            return
        block_bytes = dice.choice((1, 512, 4096))
        if block_bytes == 1:
            _apply(self.durable, offset, data[: dice.randrange(len(data) + 1)])
            return
        bounds = range(offset - offset % block_bytes, offset + len(data), block_bytes)
        for block in bounds:
            if dice.random() < chance:
                begin, end = max(block, offset), min(block + block_bytes, offset + len(data))
                self._survive(begin, data[begin - offset : end - offset], dice)

    def _survive(self, offset: int, data: bytes, dice: random.Random) -> None:
        """A block comes to be as it was written, or as nobody wrote it, but only where nothing was kept before."""
        damage = dice.random()
        if damage < 0.1 and not any(self.durable[offset : offset + len(data)]):
            data = bytes(len(data)) if damage < 0.05 else dice.randbytes(len(data))
        _apply(self.durable, offset, data)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    """A write of data at an offset, or a truncation to it."""
    if data is None and offset < len(content):
        del content[offset:]
    elif offset > len(content):
        content.extend(bytes(offset - len(content)))
    if data:
        content[offset : offset + len(data)] = data


@attrs.define
class _Directory:
    visible: dict[str, _File] = attrs.Factory(dict)
    durable: dict[str, _File] = attrs.Factory(dict)
    waiting: list[tuple[tuple[str, _File | None], ...]] = attrs.Factory(list)
    """Changes, each of which sets names to files or to nothing at one stroke."""

    def change(self, *names: tuple[str, _File | None]) -> None:
        _set_names(self.visible, names)
        self.waiting.append(names)

    def flush(self) -> None:
        for names in self.waiting:
            _set_names(self.durable, names)
        self.waiting.clear()

    def lose(self, dice: random.Random, survival: Survival) -> None:
        survivors = {
            Survival.NOTHING: 0,
            Survival.EVERYTHING: len(self.waiting),
            Survival.RANDOM: dice.randrange(len(self.waiting) + 1),
        }[survival]
        del self.waiting[survivors:]
        self.flush()
        self.visible = dict(self.durable)


def _set_names(content: dict[str, _File], names: Sequence[tuple[str, _File | None]]) -> None:
    for name, file in names:
        if file is None:
            content.pop(name, None)
        else:
            content[name] = file


@attrs.define
class _Fault:
    call: Call
    error: int
    name_part: str
    skip: int
    times: int


class SimulatedDisk:
    """A FileSystem in memory. Safe to call from several threads."""

    def __init__(self, seed: int = 0) -> None:
        self._directories: dict[Path, _Directory] = {}
        self._handles: dict[int, tuple[Path, _File]] = {}
        self._locks: dict[int, Path] = {}
        self._next_handle = 1
        self._faults: list[_Fault] = []
        self._lock = threading.RLock()
        self._random = random.Random(seed)
        self._crashed = False
        self.space_bytes: int | None = None
        """The room for the contents of all files; None: no bound."""
        self.crash_at_call: int | None = None
        """Which call, counted from 1 as in ``call_count``, is cut in the middle."""
        self.call_count = 0
        self.counts: Counter[Call] = Counter()
        """How often each call was made."""

    def fail(self, call: Call, error: int, name_part: str = "", *, skip: int = 0, times: int = 1) -> None:
        """Makes calls fail with that errno: of those on files with that part in their name, so many after so many."""
        self._faults.append(_Fault(call, error, name_part, skip, times))

    def heal(self) -> None:
        """Takes back all that was laid in with ``fail``."""
        self._faults.clear()

    def power_cut(self, dice: random.Random, survival: Survival = Survival.RANDOM) -> None:
        """What was not flushed is lost, or some of it; handles and locks are gone; calls work again."""
        for directory in self._directories.values():
            directory.lose(dice, survival)
            for file in directory.visible.values():
                file.lose(dice, survival)
        self.process_killed()

    def crash(self) -> None:
        """Nothing works from now on: to be followed by one of the two methods around this."""
        self._crashed = True

    def process_killed(self) -> None:
        """Handles and locks are gone, nothing else; calls work again."""
        self._handles.clear()
        self._locks.clear()
        self._crashed = False
        self.crash_at_call = None

    def names(self, directory: Path) -> list[str]:
        """The visible names in a directory, without a call that counts."""
        return list(self._directory(directory).visible)

    def content(self, path: Path) -> bytearray:
        """The visible content of a file; to change it is to damage the file behind everybody's back."""
        return self._file(path).visible

    def damage(self, path: Path, offset: int, mask: int = 0xFF) -> None:
        """Flips bits of a byte, on disk too."""
        file = self._file(path)
        file.flush()
        file.visible[offset] ^= mask
        file.durable[offset] ^= mask

    def used_bytes(self) -> int:
        """The sum of the lengths of all files."""
        return sum(len(file.visible) for directory in self._directories.values() for file in directory.visible.values())

    @contextmanager
    def _call(self, call: Call, name: str) -> Iterator[bool]:
        """Around each call: gives True if it is cut in the middle, and then raises SimulatedCrash at its end."""
        with self._lock:
            if self._crashed:
                raise SimulatedCrash
            self.call_count += 1
            self.counts[call] += 1
            if call is not Call.FLUSH:
                self._raise_fault(call, name)
            self._crashed = self.call_count == self.crash_at_call
            yield self._crashed
            if self._crashed:
                raise SimulatedCrash

    def _raise_fault(self, call: Call, name: str) -> None:
        for fault in self._faults:
            if fault.call is call and fault.name_part in name and fault.times > 0:
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                raise OSError(fault.error, os.strerror(fault.error), name)

    def _directory(self, path: Path) -> _Directory:
        try:
            return self._directories[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such directory", str(path)) from None

    def _file(self, path: Path) -> _File:
        try:
            return self._directory(path.parent).visible[path.name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path)) from None

    def _opened(self, handle: int) -> tuple[Path, _File]:
        try:
            return self._handles[handle]
        except KeyError:
            raise OSError(errno.EBADF, "no such handle") from None

    def _add_handle(self, path: Path, file: _File) -> int:
        handle = self._next_handle
        self._next_handle += 1
        self._handles[handle] = (path, file)
        return handle

    def open(self, path: Path, mode: OpenMode) -> int:
        """See FileSystem."""
        with self._call(Call.OPEN, path.name):
            directory = self._directory(path.parent)
            if mode is OpenMode.CREATE:
                if path.name in directory.visible:
                    raise FileExistsError(errno.EEXIST, "it exists", str(path))
                directory.change((path.name, _File()))
            return self._add_handle(path, self._file(path))

    def close(self, handle: int) -> None:
        """See FileSystem."""
        with self._lock:
            # After a crash there is nobody left to close anything; what is tested may still be unwinding.
            if not self._crashed:
                self._opened(handle)
                del self._handles[handle]
                self._locks.pop(handle, None)

    def read(self, handle: int, size_bytes: int, offset: int) -> bytes:
        """See FileSystem."""
        path, file = self._opened(handle)
        with self._call(Call.READ, path.name):
            return bytes(file.visible[offset : offset + size_bytes])

    def write(self, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> int:
        """See FileSystem."""
        path, file = self._opened(handle)
        if len(buffers) > BUFFERS_MAX:
            raise OSError(errno.EINVAL, "too many buffers", str(path))
        with self._call(Call.WRITE, path.name) as cut:
            data = b"".join(buffers)
            if self.space_bytes is not None:
                grows_bytes = max(offset + len(data) - len(file.visible), 0)
                missing_bytes = self.used_bytes() + grows_bytes - self.space_bytes
                if grows_bytes and missing_bytes > 0:
                    data = data[: max(len(data) - missing_bytes, 0)]
                    if not data:
                        raise OSError(errno.ENOSPC, "no room", str(path))
            file.change(offset, data)
            if flush and not cut:
                self._flush(path, file)
            return len(data)

    def append(self, handle: int, buffers: Sequence[Chunk], offset: int, *, zeros_behind: int = 0) -> None:
        """See FileSystem."""
        write_all(self, handle, [self.with_zeros(handle, buffers, offset, zeros_behind)], offset, flush=True)

    def with_zeros(self, handle: int, buffers: Sequence[Chunk], offset: int, zeros_behind: int = 0) -> bytes:
        """What an append writes: the buffers, the zeros wanted, and zeros to the end of the block or of the file."""
        data = b"".join(buffers) + bytes(zeros_behind)
        end = offset + len(data)
        zeros_end = min(end - end % -APPEND_BLOCK_BYTES, self.size(handle))
        return data + bytes(max(zeros_end - end, 0))

    def _flush(self, path: Path, file: _File) -> None:
        try:
            self._raise_fault(Call.FLUSH, path.name)
        except OSError:
            file.waiting.clear()
            raise
        file.flush()

    def flush(self, handle: int) -> None:
        """See FileSystem."""
        path, file = self._opened(handle)
        with self._call(Call.FLUSH, path.name) as cut:
            if not cut:
                self._flush(path, file)

    def truncate(self, handle: int, size_bytes: int) -> None:
        """See FileSystem."""
        path, file = self._opened(handle)
        with self._call(Call.TRUNCATE, path.name):
            file.change(size_bytes, None)

    def size(self, handle: int) -> int:
        """See FileSystem."""
        return len(self._opened(handle)[1].visible)

    def rename(self, source: Path, target: Path) -> None:
        """See FileSystem."""
        with self._call(Call.RENAME, source.name):
            file = self._file(source)
            self._directory(source.parent).change((source.name, None), (target.name, file))
            for handle, (_, opened) in self._handles.items():
                if opened is file:
                    self._handles[handle] = (target, file)

    def unlink(self, path: Path) -> None:
        """See FileSystem."""
        with self._call(Call.UNLINK, path.name):
            self._file(path)
            self._directory(path.parent).change((path.name, None))

    def list_directory(self, path: Path) -> list[str]:
        """See FileSystem."""
        with self._call(Call.LIST, path.name):
            return list(self._directory(path).visible)

    def make_directory(self, path: Path) -> None:
        """See FileSystem. What is made is durable at once."""
        with self._lock:
            self._directories.setdefault(path, _Directory())

    def flush_directory(self, path: Path) -> None:
        """See FileSystem."""
        with self._call(Call.FLUSH_DIRECTORY, path.name) as cut:
            if not cut:
                self._directory(path).flush()

    def lock(self, path: Path) -> int:
        """See FileSystem."""
        with self._call(Call.LOCK, path.name):
            if path in self._locks.values():
                raise BlockingIOError(errno.EWOULDBLOCK, "it is locked", str(path))
            directory = self._directory(path.parent)
            if path.name not in directory.visible:
                directory.change((path.name, _File()))
            handle = self._add_handle(path, self._file(path))
            self._locks[handle] = path
            return handle

    def random_bytes(self, size_bytes: int) -> bytes:
        """See FileSystem: from the seed given, so that runs repeat."""
        with self._lock:
            return self._random.randbytes(size_bytes)
