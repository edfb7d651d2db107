"""Several byte strings as one input, taken apart again whatever has become of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final

_FILE_HEAD: Final = Struct("<BH")
"""Length of the name, length of the content."""
_PART_HEAD: Final = Struct("<H")
_CHUNKS_COUNT_MAX: Final = 150


def join_files(files: Mapping[str, bytes]) -> bytes:
    """Files of less than 64 KiB, by name."""
    parts: list[bytes] = []
    for name, content in files.items():
        encoded = name.encode()
        parts += _FILE_HEAD.pack(len(encoded), len(content)), encoded, content
    return b"".join(parts)


def split_files(data: bytes) -> dict[str, bytes]:
    """The files in an input; whatever is cut off is as long as what is there."""
    files = {}
    offset = 0
    while offset + _FILE_HEAD.size <= len(data):
        name_bytes, content_bytes = _FILE_HEAD.unpack_from(data, offset)
        offset += _FILE_HEAD.size
        # A name comes from a directory, so it has neither a slash nor a zero byte in it.
        name = data[offset : offset + name_bytes].decode("utf-8", "ignore").replace("/", "_").replace("\0", "_")
        offset += name_bytes
        files[name] = data[offset : offset + content_bytes]
        offset += content_bytes
    return files


def join_parts(parts: Iterable[bytes]) -> bytes:
    """Byte strings of less than 64 KiB, in a row."""
    return b"".join(_PART_HEAD.pack(len(part)) + part for part in parts)


def split_parts(data: bytes) -> list[bytes]:
    """The byte strings in an input; the last one may be cut off."""
    parts = []
    offset = 0
    while offset + _PART_HEAD.size <= len(data):
        (size_bytes,) = _PART_HEAD.unpack_from(data, offset)
        offset += _PART_HEAD.size
        parts.append(data[offset : offset + size_bytes])
        offset += size_bytes
    return parts


def chunks(data: bytes, plan: bytes) -> list[bytes]:
    """The data in chunks whose lengths the plan says, over and over, and at last all that is left."""
    steps = [step for step in plan if step]
    if not steps:
        return [data]
    found = []
    offset = turn = 0
    while offset < len(data):
        step = steps[turn % len(steps)] if turn < _CHUNKS_COUNT_MAX else len(data)
        found.append(data[offset : offset + step])
        offset += step
        turn += 1
    return found
