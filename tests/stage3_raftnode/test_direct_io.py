"""Appending past the page cache, on the file system of the tests: to the bytes it makes no difference."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from raftnode import direct_io, filesystem
from raftnode.direct_io import BLOCK_BYTES
from raftnode.filesystem import OpenMode, OsFileSystem

SMALL_BUFFER_BYTES = 2 * BLOCK_BYTES


@pytest.fixture
def system() -> OsFileSystem:
    return OsFileSystem()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def is_direct(handle: int) -> bool:
    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT)


def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_io, "BUFFER_BYTES", SMALL_BUFFER_BYTES)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_appended_is_there(
    system: OsFileSystem, path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Appends of all sizes, now and then from an earlier place on or after other calls."""
    small_buffer(monkeypatch)
    dice = Random(seed)
    handle = system.open(path, OpenMode.CREATE)
    content = b""
    for _ in range(50):
        buffers = [dice.randbytes(dice.choice((0, 1, 100, 4000, 4096, 20_000))) for _ in range(dice.randint(1, 3))]
        offset = dice.randint(0, len(content)) if dice.random() < 0.2 else len(content)
        system.append(handle, buffers, offset)
        content = content[:offset] + b"".join(buffers)
        if dice.random() < 0.2:
            assert system.read(handle, len(content), 0) == content
    on_disk = path.read_bytes()
    assert on_disk[: len(content)] == content
    assert not any(on_disk[len(content) : len(content) + -len(content) % BLOCK_BYTES])
    system.close(handle)


def test_a_file_that_was_written_otherwise_is_gone_on_with(system: OsFileSystem, path: Path) -> None:
    path.write_bytes(b"a" * 5000)
    handle = system.open(path, OpenMode.WRITE)
    system.append(handle, [b"b" * 10], 4990)
    system.append(handle, [b"c" * 10], 6000)
    system.close(handle)
    assert path.read_bytes()[:6010] == b"a" * 4990 + b"b" * 10 + bytes(1000) + b"c" * 10


def test_only_appends_are_direct(system: OsFileSystem, path: Path) -> None:
    handle = system.open(path, OpenMode.CREATE)
    system.append(handle, [b"abc"], 0)
    assert is_direct(handle)
    assert system.write(handle, [b"d"], 3, flush=True) == 1
    assert not is_direct(handle)
    system.append(handle, [b"e"], 4)
    assert is_direct(handle)
    assert system.read(handle, 5, 0) == b"abcde"
    assert not is_direct(handle)
    system.close(handle)


@pytest.mark.parametrize("missing", ["O_DIRECT", "F_SETFL", "RWF_DSYNC"])
def test_without_direct_writes(system: OsFileSystem, path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == "O_DIRECT":
        monkeypatch.setattr(direct_io, "_FLAG", 0)
    elif missing == "RWF_DSYNC":
        monkeypatch.setattr(filesystem, "_FLUSHING_WRITE", 0)
    else:
        fail_fcntl(monkeypatch, errno.EINVAL)
    handle = system.open(path, OpenMode.CREATE)
    system.append(handle, [b"abc", b"def"], 0)
    system.append(handle, [b"ghi"], 6)
    assert system.size(handle) == 9
    assert path.read_bytes() == b"abcdefghi"
    system.close(handle)


def fail_fcntl(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def fail(handle: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(error, os.strerror(error))
        return 0

    monkeypatch.setattr(fcntl, "fcntl", fail)


def test_another_error_than_that_it_is_not_known_is_told(
    system: OsFileSystem, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_fcntl(monkeypatch, errno.EIO)
    handle = system.open(path, OpenMode.CREATE)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        system.append(handle, [b"abc"], 0)
    system.close(handle)


def test_direct_writes_that_are_promised_and_refused(
    system: OsFileSystem, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk with larger sectors would."""
    write = os.pwritev

    def refuse(handle: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if is_direct(handle):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(handle, buffers, offset, flags)

    monkeypatch.setattr(os, "pwritev", refuse)
    handle = system.open(path, OpenMode.CREATE)
    system.append(handle, [b"abc"], 0)
    system.append(handle, [b"def"], 3)
    assert not is_direct(handle)
    system.close(handle)
    assert path.read_bytes() == b"abcdef"


def test_a_write_that_fails_is_written_anew(system: OsFileSystem, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = system.open(path, OpenMode.CREATE)
    system.append(handle, [b"abc"], 0)
    write, errors = os.pwritev, [errno.ENOSPC]

    def fail_once(handle: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if errors:
            error = errors.pop()
            raise OSError(error, os.strerror(error))
        return write(handle, buffers, offset, flags)

    monkeypatch.setattr(os, "pwritev", fail_once)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        system.append(handle, [b"xyz"], 3)
    system.append(handle, [b"def"], 3)
    system.close(handle)
    assert path.read_bytes().rstrip(b"\0") == b"abcdef"


def test_writes_cut_short_are_gone_on_with(system: OsFileSystem, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwritev

    def cut(handle: int, buffers: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        return min(write(handle, buffers, offset, flags), BLOCK_BYTES + 100)

    monkeypatch.setattr(os, "pwritev", cut)
    content = Random(1).randbytes(5 * BLOCK_BYTES)
    handle = system.open(path, OpenMode.CREATE)
    system.append(handle, [content], 0)
    system.close(handle)
    assert path.read_bytes() == content


def test_a_disk_that_takes_less_than_a_block_is_full(
    system: OsFileSystem, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda handle, buffers, offset, flags: 100)
    handle = system.open(path, OpenMode.CREATE)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        system.append(handle, [b"abc"], 0)
    system.close(handle)
