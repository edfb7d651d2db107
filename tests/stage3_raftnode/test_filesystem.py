"""The real file system, where it does more than pass a call on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from raftnode import filesystem
from raftnode.buffers import Chunk
from raftnode.filesystem import BUFFERS_MAX, OpenMode, OsFileSystem, write_all


@pytest.fixture
def system() -> OsFileSystem:
    return OsFileSystem()


class ShortWrites(OsFileSystem):
    """Writes a few bytes at a time, as a signal or a full disk may make any system do."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.size_bytes = size_bytes
        self.calls = 0

    def write(self, handle: int, buffers: Sequence[Chunk], offset: int, *, flush: bool) -> int:
        self.calls += 1
        data = b"".join(buffers)[: self.size_bytes]
        return super().write(handle, [data], offset, flush=flush)


def content_after(system: OsFileSystem, path: Path, buffers: Sequence[Chunk], *, flush: bool) -> bytes:
    handle = system.open(path, OpenMode.CREATE)
    write_all(system, handle, buffers, 3, flush=flush)
    system.close(handle)
    return path.read_bytes()


@pytest.mark.parametrize("size_bytes", [1, 2, 3, 5, 100])
def test_writes_cut_short_are_gone_on_with(tmp_path: Path, size_bytes: int) -> None:
    buffers: list[Chunk] = [b"abc", b"", bytearray(b"de"), memoryview(b"fghij")]
    assert content_after(ShortWrites(size_bytes), tmp_path / "file", buffers, flush=True) == b"\0\0\0abcdefghij"


def test_more_buffers_than_a_call_takes(system: OsFileSystem, tmp_path: Path) -> None:
    buffers = [b"%d," % number for number in range(2 * BUFFERS_MAX + 1)]
    assert content_after(system, tmp_path / "file", buffers, flush=False)[3:] == b"".join(buffers)
    assert os.sysconf("SC_IOV_MAX") >= BUFFERS_MAX


def test_a_flushing_write_where_one_call_cannot_do_it(
    system: OsFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(filesystem, "_FLUSHING_WRITE", 0)
    monkeypatch.setattr(os, "fdatasync", flushed.append)
    assert content_after(system, tmp_path / "file", [b"a"], flush=True)[3:] == b"a"
    assert len(flushed) == 1


def test_reads_cut_short_are_gone_on_with(
    system: OsFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    handle = system.open(tmp_path / "file", OpenMode.READ)
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, size, offset: read(handle, min(size, 3), offset))
    assert system.read(handle, 8, 1) == b"12345678"
    assert system.read(handle, 100, 1) == b"123456789"
    assert system.read(handle, 100, 10) == b""
    system.close(handle)


def test_a_directory_is_made_with_those_above_it_and_flushed(
    system: OsFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(system, "flush_directory", flushed.append)
    path = tmp_path / "a" / "b"
    system.make_directory(path)
    system.make_directory(path)
    assert flushed == [tmp_path, tmp_path / "a"]
    assert path.is_dir()


def test_a_lock_is_exclusive_and_goes_with_its_handle(system: OsFileSystem, tmp_path: Path) -> None:
    open_files = len(os.listdir("/proc/self/fd"))
    handle = system.lock(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        system.lock(tmp_path / "lock")
    system.close(handle)
    system.close(system.lock(tmp_path / "lock"))
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_random_bytes_differ(system: OsFileSystem) -> None:
    assert system.random_bytes(16) != system.random_bytes(16)
