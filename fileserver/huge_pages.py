"""Keeping a server's memory in huge pages, where the system has them (Linux 6.1 or newer).

Theory of operation
    Where a page of memory lies is looked up in tables, of which a processor remembers some thousand entries. Several
    servers on a few cores use far more pages of 4 KiB than that, and each finds its own forgotten whenever it is woken;
    on a virtual machine each look-up goes through two sets of tables. One entry for a huge page does for 512 others.

    Which memory is worth it is known better here than to the kernel: what an interpreter has is there to stay. So once
    the server has recovered, and then whenever its memory has grown by `GROWTH_BYTES` beyond the most there was, the
    ranges of a huge page's size that are in use are made one each (`MADV_COLLAPSE`). One that isn't used (almost) as a
    whole is left alone, so that the memory in use grows by hardly anything.

    The kernel copies each of them, which takes it up to some milliseconds, and waits for the other processors, longer
    than that if they are busy. So they are made one at a time, by a worker thread, with long pauses between them; and
    each but once: what is given back and used again isn't worth it.

    It is a help, never a need: what the kernel refuses stays as it is. Where the administrator has turned huge pages
    off (`never` in :data:`SETTING`), nothing is tried.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import time
from pathlib import Path
from typing import Final

import attrs
import trio

from raftnode.runtime import RunBlocking

HUGE_BYTES: Final = 2 << 20
GROWTH_BYTES: Final = 4 * HUGE_BYTES
LOOK_SECONDS: Final = 5.0
"""How often it is looked whether memory has grown."""
AT_ONCE: Final = 32
"""So many are made without pauses when the server begins: about what an interpreter with its program takes."""
PAUSE: Final = 30
"""Each is followed by a pause of so many times the processor time that it took: so they cost 3 % of a core."""
UNUSED_PAGES_MAX: Final = 16
"""A range with more pages that aren't in use, of 512, is left alone."""
SETTING: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS: Final = Path("/proc/self/maps")
_SIZES: Final = Path("/proc/self/statm")
_MADV_COLLAPSE: Final = 25


@attrs.frozen(slots=True)
class Range:
    """Addresses, from the first to before the second."""

    start: int
    end: int


def own_ranges(maps: str) -> list[Range]:
    """The ranges of whole huge pages in memory that is private and not a file's, given the text of /proc/PID/maps."""
    found = []
    for line in maps.splitlines():
        addresses, permissions, _offset, _device, inode, *name = line.split(maxsplit=5)
        if permissions != "rw-p" or inode != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        start += -start % HUGE_BYTES
        end -= end % HUGE_BYTES
        if start < end:
            found.append(Range(start, end))
    return found


class HugePages:
    """Makes huge pages of this process's memory."""

    def __init__(self) -> None:
        """Find what the system has.

        Raises:
            OSError, AttributeError: it has no huge pages, or isn't to use them.
        """
        if "[never]" in SETTING.read_text():
            raise OSError(errno.EPERM, "turned off by the administrator")
        library = ctypes.CDLL(None, use_errno=True)
        self._madvise = library.madvise
        self._mincore = library.mincore
        self._most_bytes = -GROWTH_BYTES
        """The most memory that was in use when it was looked through."""
        self._made: set[int] = set()
        """Addresses of what has been made huge pages, as far as the kernel could."""

    def has_grown(self) -> bool:
        """Whether memory has grown enough to be looked through again."""
        return self._used_bytes() >= self._most_bytes + GROWTH_BYTES

    def find(self) -> list[int]:
        """The addresses of what is worth a huge page and wasn't made one yet."""
        self._most_bytes = self._used_bytes()
        return [
            start
            for whole in own_ranges(_MAPS.read_text())
            for start in range(whole.start, whole.end, HUGE_BYTES)
            if start not in self._made and self._is_used(start)
        ]

    def make(self, start: int) -> float:
        """Make it a huge page. What the kernel refuses (an old one: everything) stays as it is.

        Returns:
            The seconds of processor time that it took.
        """
        begun = time.thread_time()
        self._madvise(ctypes.c_void_p(start), ctypes.c_size_t(HUGE_BYTES), _MADV_COLLAPSE)
        self._made.add(start)
        return time.thread_time() - begun

    def _used_bytes(self) -> int:
        return int(_SIZES.read_text().split()[1]) * mmap.PAGESIZE

    def _is_used(self, start: int) -> bool:
        """Whether a huge page's worth is there (almost) as a whole."""
        pages = ctypes.create_string_buffer(HUGE_BYTES // mmap.PAGESIZE)
        self._mincore(ctypes.c_void_p(start), ctypes.c_size_t(HUGE_BYTES), pages)  # Leaves zeros if there is nothing.
        return pages.raw.count(b"\0") <= UNUSED_PAGES_MAX


async def keep_in_huge_pages(run_blocking: RunBlocking = trio.to_thread.run_sync) -> None:
    """Keep this process's memory in huge pages until cancelled; return if that can't be."""
    try:
        pages = HugePages()
    except (AttributeError, OSError):
        return
    at_once = AT_ONCE
    while True:
        for start in await _found(pages, run_blocking):
            took_seconds = await run_blocking(pages.make, start)
            at_once -= 1
            if at_once < 0:
                await trio.sleep(PAUSE * took_seconds)
        at_once = 0
        await trio.sleep(LOOK_SECONDS)


async def _found(pages: HugePages, run_blocking: RunBlocking) -> list[int]:
    """What is worth it now. None where /proc can't be read at the moment: too many files are open, for example."""
    try:
        found: list[int] = await run_blocking(pages.find) if pages.has_grown() else []
    except OSError:
        return []
    return found
