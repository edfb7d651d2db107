"""Bytes, in whatever buffer they lie; rows of buffers for calls that take several: few of them, big ones uncopied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Chunk: TypeAlias = bytes | bytearray | memoryview
"""Bytes to be read, sent or written."""


def gathered(parts: Iterable[Chunk], apart_bytes_min: int) -> list[Chunk]:
    """The same bytes in fewer parts: neighbours that are shorter than so much are joined, others stay as they are."""
    buffers: list[Chunk] = []
    small: list[Chunk] = []
    for part in parts:
        if len(part) < apart_bytes_min:
            small.append(part)
            continue
        if small:
            buffers.append(b"".join(small))
            small = []
        buffers.append(part)
    if small:
        buffers.append(b"".join(small))
    return buffers
