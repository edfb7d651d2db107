"""What this package puts into a log entry: a stamp of the cluster clock, and whose batch it is.

The pure core sees bytes. Here they are a fixed header and the application's payload, which is copied once, when
the leader puts its stamp before it; a long one is read from where it stands in the entry::

    kind (1 byte) | stamp_us | session | sequence | acknowledged (8 bytes each, big-endian, below 2**63) | payload

An empty entry is the one that every leader begins its term with; it has no stamp.

=============  ================================  ==========================  =========================
kind           session                           sequence                    acknowledged
=============  ================================  ==========================  =========================
TICK           0                                 0                           0
OPEN_SESSION   the id of the server that opens   a number drawn by chance    0
BATCH          the session                       of the batch in it, from 1  results up to here are had
=============  ================================  ==========================  =========================
"""

from __future__ import annotations

import enum
import struct
from typing import TypeAlias

from raftnode.buffers import Chunk

_HEADER = struct.Struct(">Bqqqq")
_unpack_header = _HEADER.unpack_from
HEADER_BYTES = _HEADER.size
VIEW_BYTES_MIN = 32 * 1024
"""The payload of an entry of so many bytes is a view of it: to copy a shorter one costs less than it saves."""


class BadEntry(ValueError):
    """A committed entry that this version can't read; to go on without it would be to diverge."""


class EntryKind(enum.IntEnum):
    """What an entry does to the replicated state."""

    TICK = 1
    """Time passes, no more."""
    OPEN_SESSION = 2
    BATCH = 3


_KINDS = frozenset(map(int, EntryKind))

Entry: TypeAlias = tuple[int, int, int, int, int, Chunk]
"""One entry, decoded: kind, stamp_us, session, sequence, acknowledged, payload; see the module's docstring.

A plain tuple, since every server makes one of every entry.
"""


def encode_tick(stamp_us: int) -> bytes:
    """Time has come to ``stamp_us``."""
    return _HEADER.pack(EntryKind.TICK, stamp_us, 0, 0, 0)


def encode_open_session(stamp_us: int, server_id: int, nonce: int) -> bytes:
    """A run of a server begins to propose; ``nonce`` tells a repeated request from a new run's."""
    return _HEADER.pack(EntryKind.OPEN_SESSION, stamp_us, server_id, nonce, 0)


def encode_batch(stamp_us: int, session: int, sequence: int, acknowledged: int, payload: bytes) -> bytes:
    """A batch of a session."""
    return _HEADER.pack(EntryKind.BATCH, stamp_us, session, sequence, acknowledged) + payload


def stamp_of(entry: bytes) -> int:
    """The stamp of an encoded entry; 0 for an empty one.

    Raises:
        BadEntry: it can't be read.
    """
    if not entry:
        return 0
    return decode(entry)[1]


def decode(entry: bytes) -> Entry:
    """Read an entry that isn't empty.

    Raises:
        BadEntry: it is too short, of an unknown kind, or has a number that is out of range.
    """
    try:
        kind, stamp_us, session, sequence, acknowledged = _unpack_header(entry)
    except struct.error as error:
        raise BadEntry(f"an entry of {len(entry)} bytes can't be read: {error}") from error
    if kind not in _KINDS or stamp_us < 0 or session < 0 or sequence < 0 or acknowledged < 0:
        raise BadEntry(f"an entry of {len(entry)} bytes can't be read: its kind, or a number, is out of range")
    whole = entry if len(entry) < VIEW_BYTES_MIN else memoryview(entry)
    return kind, stamp_us, session, sequence, acknowledged, whole[HEADER_BYTES:]
