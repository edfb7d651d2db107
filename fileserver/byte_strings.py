"""Arrays of byte strings as CBOR, for when these are long.

``cbor2.dumps`` writes item by item into a buffer that grows, and copies what it has each time. That is quick for short
items; long ones (:data:`LONG_BYTES` on average) are joined here, once. The lengths are written in four bytes then, as
CBOR allows, whatever they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final

import cbor2

LONG_BYTES: Final = 4096
"""From this average length of the byte strings on, joining is quicker."""
FIELDS_MAX: Final = 22
"""A longer array's length isn't in its first byte."""
_SHORT_ARRAY: Final = 0x80
_ARRAY: Final = 0x9A
_BYTES: Final = 0x5A
_pack_head = Struct(">BI").pack


@lru_cache(maxsize=4096)
def _head_of_bytes(size_bytes: int) -> bytes:
    return _pack_head(_BYTES, size_bytes)


def dumps_with_byte_strings(fields: Sequence[Any], strings: Sequence[bytes | int]) -> bytes:
    """Encode the fields, at most FIELDS_MAX, and behind them the byte strings as an array; all of it as one array.

    Numbers among the byte strings are as good as these, and slower.
    """
    try:
        sizes = list(map(len, strings))  # type: ignore[arg-type]
    except TypeError:
        return cbor2.dumps((*fields, strings))
    if sum(sizes) <= LONG_BYTES * len(sizes):
        return cbor2.dumps((*fields, strings))
    assert len(fields) <= FIELDS_MAX
    parts: list[Any] = [b""] * (2 * len(sizes))
    parts[0::2] = map(_head_of_bytes, sizes)
    parts[1::2] = strings
    head = bytes((_SHORT_ARRAY + len(fields) + 1,))
    return b"".join((head, *map(cbor2.dumps, fields), _pack_head(_ARRAY, len(sizes)), *parts))
