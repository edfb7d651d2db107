"""What data on disk is checked by, by the format of the file that it is in.

CRC-32C (Castagnoli) has an instruction of its own on today's processors, and takes a fraction of the time of the CRC-32
of zlib, which files of format 1 have. Both find every error of up to 32 bits in a row, and all but one in
4,000,000,000 of others. The heads of files that tell the format are checked by CRC-32 in every format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias
from zlib import crc32

from crc32c import crc32c

Checksum: TypeAlias = Callable[[bytes | bytearray | memoryview, int], int]
"""The check of bytes that go on from others, of which the check is given; 0, or a salt, for the first."""

FORMAT_VERSION: Final = 2
"""The format of what is written."""
CHECKSUMS: Final[Mapping[int, Checksum]] = {1: crc32, FORMAT_VERSION: crc32c}
"""By the formats that can be read."""
CHECKSUM: Final = CHECKSUMS[FORMAT_VERSION]
