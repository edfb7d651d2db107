"""Memory in huge pages: which ranges are worth it, and that the kernel makes them so."""

from __future__ import annotations

import errno
import mmap
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from fileserver import huge_pages
from fileserver.huge_pages import HUGE_BYTES, SETTING, HugePages, Range, keep_in_huge_pages, own_ranges

MAPS = """\
00400000-00c00000 rw-p 00000000 fe:00 131   /usr/bin/python3.11
01000000-01700000 rw-p 00000000 00:00 0     [heap]
02100000-02500000 rw-p 00000000 00:00 0
03000000-03400000 rw-p 00000000 00:00 0 \n\
04000000-04400000 r-xp 00000000 00:00 0
05000000-05400000 rw-s 00000000 00:00 0
06000000-060ff000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00800000 rw-p 00000000 00:00 0   [stack]
"""


def is_possible() -> bool:
    return SETTING.exists() and "[never]" not in SETTING.read_text()


class TestRanges:
    def test_those_of_whole_huge_pages_in_private_memory_that_is_no_file_s(self) -> None:
        assert own_ranges(MAPS) == [
            Range(0x1000000, 0x1600000),
            Range(0x2200000, 0x2400000),
            Range(0x3000000, 0x3400000),
        ]

    def test_this_process_has_some_that_can_be_read(self) -> None:
        kept = mmap.mmap(-1, 4 * HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        found = own_ranges(Path("/proc/self/maps").read_text())
        assert sum(each.end - each.start for each in found) >= 3 * HUGE_BYTES
        kept.close()


FILL_AND_MAKE = """
import mmap, sys
from fileserver.huge_pages import HUGE_BYTES, HugePages

def huge_kib():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))

used = mmap.mmap(-1, 17 * HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for offset in range(0, len(used), mmap.PAGESIZE):
    used[offset] = offset // mmap.PAGESIZE % 251
hardly_used = mmap.mmap(-1, 17 * HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for offset in range(0, len(hardly_used), HUGE_BYTES // 2):
    hardly_used[offset] = 1
pages = HugePages()
assert pages.has_grown()
before = huge_kib()
for start in pages.find():
    pages.make(start)
assert not pages.has_grown()
assert not pages.find(), "each is made once"
for offset in range(0, len(used), mmap.PAGESIZE):
    assert used[offset] == offset // mmap.PAGESIZE % 251
print((huge_kib() - before) * 1024 // HUGE_BYTES)
"""


@pytest.mark.skipif(not is_possible(), reason="no huge pages here")
def test_what_is_used_is_in_huge_pages_afterwards_and_as_it_was() -> None:
    """In a process of its own, whose memory is known."""
    done = subprocess.run(
        [sys.executable, "-c", FILL_AND_MAKE], capture_output=True, text=True, check=False, timeout=60
    )
    assert not done.stderr
    made = int(done.stdout)
    if not made:
        pytest.skip("the kernel doesn't make any")
    assert 12 <= made < 30, "16 or 17 of the first mapping, none of the second, and a few of the interpreter's"


class TestKeeping:
    async def test_nothing_is_done_where_they_are_turned_off(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        setting = tmp_path / "enabled"
        setting.write_text("always madvise [never]\n")
        monkeypatch.setattr(huge_pages, "SETTING", setting)
        with pytest.raises(OSError, match="turned off"):
            HugePages()
        with trio.fail_after(30):
            await keep_in_huge_pages()

    async def test_nor_where_there_are_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huge_pages, "SETTING", tmp_path / "enabled")
        with trio.fail_after(30):
            await keep_in_huge_pages()

    @pytest.mark.skipif(not is_possible(), reason="no huge pages here")
    async def test_they_are_made_at_once_and_whenever_memory_has_grown(
        self, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
    ) -> None:
        waited_seconds, took_seconds = 0.007, 0.002
        monkeypatch.setattr(huge_pages, "AT_ONCE", 3)
        used = [10 * HUGE_BYTES]
        looked_at: list[int] = []
        made: list[float] = []
        monkeypatch.setattr(HugePages, "_used_bytes", lambda _self: used[0])

        def find(_self: HugePages) -> list[int]:
            looked_at.append(used[0])
            _self._most_bytes = used[0]
            return [HUGE_BYTES * place for place in range(1, 6)]

        monkeypatch.setattr(HugePages, "find", find)

        def make(_self: HugePages, _start: int) -> float:
            made.append(trio.current_time() - begun)
            return took_seconds

        monkeypatch.setattr(HugePages, "make", make)

        async def run_slowly(function: Callable[..., object], *arguments: object) -> object:
            await trio.sleep(waited_seconds)
            return function(*arguments)

        begun = trio.current_time()
        nursery.start_soon(keep_in_huge_pages, run_slowly)
        await trio.sleep(1)
        assert looked_at == [10 * HUGE_BYTES]
        pause_seconds = huge_pages.PAUSE * took_seconds
        assert made == pytest.approx(
            [waited_seconds * done for done in (2, 3, 4, 5)] + [6 * waited_seconds + pause_seconds]
        )
        used[0] += huge_pages.GROWTH_BYTES - 1
        await trio.sleep(2 * huge_pages.LOOK_SECONDS)
        assert len(looked_at) == 1
        used[0] += 1
        await trio.sleep(huge_pages.LOOK_SECONDS)
        assert looked_at == [10 * HUGE_BYTES, 10 * HUGE_BYTES + huge_pages.GROWTH_BYTES]
        await trio.sleep(5)
        assert made[6] - made[5] == pytest.approx(waited_seconds + pause_seconds), "only the beginning is special"

    @pytest.mark.skipif(not is_possible(), reason="no huge pages here")
    async def test_a_process_that_cannot_open_another_file_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
    ) -> None:
        """They are a help: without them the server does what it did."""
        looked: list[float] = []

        def has_grown(_self: HugePages) -> bool:
            looked.append(trio.current_time())
            raise OSError(errno.EMFILE, "too many open files")

        monkeypatch.setattr(HugePages, "has_grown", has_grown)
        nursery.start_soon(keep_in_huge_pages)
        await trio.sleep(2.5 * huge_pages.LOOK_SECONDS)
        assert len(looked) == 3
