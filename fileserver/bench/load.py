"""What clients ask for, and how a reply is told from its bytes. Pure.

Requests are made before the measurement begins and are gone round and round with, since making one costs the generator
as much as sending it.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator, Sequence
from itertools import count, islice

import attrs

from fileserver.config import Address

READ_PERCENT_MIXED = 80
_PREPARED_BYTES = 256 * 1024 * 1024
_PREPARED_REQUESTS_MIN = 4
_PREPARED_REQUESTS_MAX = 65_536
_FILL_CLIENTS_MAX = 16
_FILL_IN_FLIGHT_MAX = 32
_FILL_BYTES = 4 * 1024 * 1024


class Kind(enum.IntEnum):
    """One kind of request."""

    WRITE = 0
    READ = 1


Request = tuple[Kind, bytes]

_GOOD_REPLIES = {Kind.WRITE: b"OK ", Kind.READ: b"CONTENTS "}
_SHOWN_OF_ERROR = 40


@attrs.frozen(slots=True, kw_only=True)
class Load:
    """How to load a cluster."""

    servers: tuple[Address, ...]
    """The clients are spread over them evenly."""
    read_percent: int = 0
    """How many of the requests are reads."""
    clients: int = 64
    in_flight: int = 1
    """Requests of each client that are under way at a time; with a rate, the most that may be."""
    rate: float | None = None
    """Requests that become due in a second, for all clients together; None: the next is due when a reply has come."""
    size_bytes: int = 256
    files: int = 10_000
    """How many different files are written or read, chosen at random."""
    warm_seconds: float = 0.0
    """How long the load is on before anything is counted."""
    seconds: float = 10.0
    seed: int = 1
    folder: str = "bench"
    """How the files' names begin."""

    def at(self, servers: Sequence[Address]) -> Load:
        """The same load on other servers."""
        return attrs.evolve(self, servers=tuple(servers))

    def to_fill(self) -> Load:
        """The load that writes all files, as quickly as can be."""
        at_a_time = max(1, _FILL_BYTES // (self.size_bytes + 1))
        return attrs.evolve(
            self,
            read_percent=0,
            clients=min(_FILL_CLIENTS_MAX, at_a_time),
            in_flight=min(_FILL_IN_FLIGHT_MAX, at_a_time),
            rate=None,
            warm_seconds=0.0,
            seconds=float("inf"),
        )


def filling(load: Load, first: int = 0) -> Iterator[Request]:
    """A write of every file of the load from that number on."""
    content = _content(load)
    return ((Kind.WRITE, _write(load, number, content)) for number in islice(count(first), load.files - first))


def prepared(load: Load) -> list[Request]:
    """Requests to go round and round with, in a random order that is the same in each run."""
    random_source = random.Random(load.seed)
    content = _content(load)
    wanted = max(load.files, _PREPARED_REQUESTS_MAX)
    requests: list[Request] = []
    for _ in range(max(min(_PREPARED_BYTES // (len(content) + 256), wanted), _PREPARED_REQUESTS_MIN)):
        number = random_source.randrange(load.files)
        if random_source.randrange(100) < load.read_percent:
            requests.append((Kind.READ, b"read %b\r\n" % _file_name(load, number)))
        else:
            requests.append((Kind.WRITE, _write(load, number, content)))
    return requests


def _file_name(load: Load, number: int) -> bytes:
    return b"%b/%d" % (load.folder.encode(), number)


def _content(load: Load) -> bytes:
    """What every file is given; every byte occurs in it, line ends included."""
    return (bytes(range(256)) * (load.size_bytes // 256 + 1))[: load.size_bytes]


def _write(load: Load, number: int, content: bytes) -> bytes:
    return b"write %b %d\r\n%b\r\n" % (_file_name(load, number), len(content), content)


# ------------------------------------------------------------------------------------------ replies


class NotAReply(Exception):
    """What came is none of the protocol's replies. The text shows it."""


def end_of_reply(data: bytes, start: int) -> int:
    """Where the reply that begins at ``start`` ends; a place behind the end of the data if it has not all come yet.

    Raises:
        NotAReply: it has contents of no sensible size.
    """
    line_end = data.find(b"\n", start)
    if line_end < 0:
        return len(data) + 1
    if not data.startswith(b"CONTENTS ", start):
        return line_end + 1
    words = data[start:line_end].split()
    if len(words) < 3 or not words[2].isdigit():
        raise NotAReply(f"not a reply: {first_word(data, start)} without a size")
    return line_end + 1 + int(words[2]) + 2


def is_good(kind: Kind, data: bytes, start: int) -> bool:
    """Whether the reply that begins there is what such a request gets when all is well."""
    return data.startswith(_GOOD_REPLIES[kind], start)


def first_word(data: bytes, start: int) -> str:
    """By which a reply is counted when it isn't a good one."""
    words = data[start : start + 2 * _SHOWN_OF_ERROR].split(None, 1)
    return words[0][:_SHOWN_OF_ERROR].decode("ascii", "backslashreplace") if words else "an empty reply"
