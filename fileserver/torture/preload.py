"""A library of ours that is put before a server's C library: slow flushes and jumps of the wall clock.

A server is told through a page that it shares with us, so what is wrong with it changes while it runs. The clock could
be moved by libfaketime as well; but that, in version 0.9.10, ends timed waits for locks at once after a jump, so
Python's idle worker threads spin and the server starves: a fault that no machine has.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from importlib import resources
from pathlib import Path

_PAGE = struct.Struct("=QqQ")
_DELAY_AT, _CLOCK_AT, _SLOWED_AT = 0, 8, 16


def build_library(directory: Path) -> Path | None:
    """Compile the library in a directory; None where there is no C compiler.

    Raises:
        OSError: the compiler refuses it.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    source = directory / "preload.c"
    source.write_bytes(resources.files("fileserver.torture").joinpath("preload.c").read_bytes())
    library = directory / "preload.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{compiler}: {done.stderr.strip()}")
    return library


class Controls:
    """Tells one server, whether it runs or not, how slow its disk is and how wrong its clock."""

    def __init__(self, library: Path | None, file: Path) -> None:
        """Make the page, which says that nothing is wrong.

        Args:
            library: None if there is none; then nothing here has an effect.
            file: where the page is to be.
        """
        self._library = library
        self._file = file
        file.write_bytes(_PAGE.pack(0, 0, 0))
        with file.open("r+b") as opened:
            self._page = mmap.mmap(opened.fileno(), _PAGE.size)

    def environment(self) -> dict[str, str]:
        """What a server's environment needs."""
        if self._library is None:
            return {}
        return {"LD_PRELOAD": str(self._library), "QUINTET_TORTURE_PAGE": str(self._file)}

    def set_flush_delay(self, delay_us: int) -> None:
        """Make each flush take longer by so much."""
        struct.pack_into("=Q", self._page, _DELAY_AT, delay_us)

    def slowed_count(self) -> int:
        """How many flushes were slowed so far."""
        return int(struct.unpack_from("=Q", self._page, _SLOWED_AT)[0])

    def set_clock(self, ahead_us: int) -> None:
        """Move the wall clock to that far from the true time."""
        struct.pack_into("=q", self._page, _CLOCK_AT, ahead_us)

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
