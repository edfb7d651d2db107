"""Keeping a server's memory in huge pages, where the system has them (Linux 6.1 or newer).

Theory of operation
    Where a page of memory lies is looked up in tables, of which a processor remembers some thousand entries. Several
    servers on a few cores use far more pages of 4 KiB than that, and each finds its own forgotten whenever it is woken;
    on a virtual machine each look-up goes through two sets of tables. One entry for a huge page does for 512 others.

    Which memory is worth it is known better here than to the kernel: what an interpreter has is there to stay. So once
    the server has recovered, and then whenever its memory has grown by `GROWTH_BYTES`, all ranges of a huge page's size
    that are in use are made one each (`MADV_COLLAPSE`), by a worker thread. A range that isn't used (almost) as a whole
    is left alone, so that the memory in use grows by hardly anything.

    It is a help, never a need: what the kernel refuses stays as it is. Where the administrator has turned huge pages
    off (`never` in :data:`SETTING`), nothing is tried.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs
import trio

from raftnode.runtime import RunBlocking

HUGE_BYTES: Final = 2 << 20
GROWTH_BYTES: Final = 4 * HUGE_BYTES
LOOK_SECONDS: Final = 5.0
"""How often it is looked whether memory has grown."""
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


def joined(starts: Iterable[int]) -> list[Range]:
    """Huge pages, given by their addresses in order, as ranges: those next to each other are one."""
    ranges: list[Range] = []
    for start in starts:
        if ranges and ranges[-1].end == start:
            ranges[-1] = Range(ranges[-1].start, start + HUGE_BYTES)
        else:
            ranges.append(Range(start, start + HUGE_BYTES))
    return ranges


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
        self._made_at_bytes = -GROWTH_BYTES
        """How much memory was in use when it was done last."""

    def has_grown(self) -> bool:
        """Whether memory has grown enough since the last time to be looked at again."""
        return self._used_bytes() >= self._made_at_bytes + GROWTH_BYTES

    def make(self) -> None:
        """Have all memory that is in use in huge pages, as far as can be."""
        self._made_at_bytes = self._used_bytes()
        for whole in own_ranges(_MAPS.read_text()):
            starts = range(whole.start, whole.end, HUGE_BYTES)
            for used in joined(start for start in starts if self._is_used(start)):
                self._collapse(used)

    def _used_bytes(self) -> int:
        return int(_SIZES.read_text().split()[1]) * mmap.PAGESIZE

    def _is_used(self, start: int) -> bool:
        """Whether a huge page's worth is there (almost) as a whole."""
        pages = ctypes.create_string_buffer(HUGE_BYTES // mmap.PAGESIZE)
        if self._mincore(ctypes.c_void_p(start), ctypes.c_size_t(HUGE_BYTES), pages) != 0:
            return False  # Given back to the system meanwhile.
        return pages.raw.count(b"\0") <= UNUSED_PAGES_MAX

    def _collapse(self, used: Range) -> None:
        """Ask for it; what is refused (by an old kernel: everything) stays as it is."""
        self._madvise(ctypes.c_void_p(used.start), ctypes.c_size_t(used.end - used.start), _MADV_COLLAPSE)


async def keep_in_huge_pages(run_blocking: RunBlocking = trio.to_thread.run_sync) -> None:
    """Keep this process's memory in huge pages until cancelled; return if that can't be."""
    try:
        pages = HugePages()
        while True:
            if pages.has_grown():
                await run_blocking(pages.make)
            await trio.sleep(LOOK_SECONDS)
    except (AttributeError, OSError):
        return
