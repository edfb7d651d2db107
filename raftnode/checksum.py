"""CRC-32 of bytes: zlib's function to whoever calls it, computed by ISA-L where that is installed.

Every content is summed again and again on its way to the disks. ISA-L does that with whatever vector instructions
the processor has, several times as fast as zlib when there is more than a few hundred bytes. The results are equal, so
servers with and without it make one cluster and read the same disks. Both let other threads run while they sum much.

`pyproject.toml` asks for it only where it comes ready made, for building it takes a compiler and an assembler.
Elsewhere zlib does the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["crc32"]

if TYPE_CHECKING:
    from zlib import crc32  # its types say what can be summed; those of ISA-L's don't
else:
    try:
        from isal.isal_zlib import crc32
    except ImportError:
        from zlib import crc32
