"""The replies of the line protocol as bytes.

Theory of operation
    Small replies are one ``bytes`` object, made by one formatting. A reply with a long content is a row of pieces that
    holds the store's own pieces, never joined: the sockets gather them.

Invariants
    Every reply line, and every content line, ends in CRLF. The first word is one of the contract's; texts are ASCII.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fileserver.commands import Refusal, Result
from fileserver.records import RawRecord, Record, pieces_of

OK: Final = b"OK\r\n"
FILE_NOT_FOUND: Final = b"ERR_FILE_NOT_FOUND\r\n"
TOO_LARGE: Final = b"ERR_CMD_ERR the file would become too large\r\n"
UPLOAD_LOST: Final = b"ERR_INTERNAL not applied: the content was lost on its way\r\n"
TOO_MANY_CONNECTIONS: Final = b"ERR_BUSY 5 too many connections\r\n"

JOINED_BYTES_MAX: Final = 16 * 1024
"""Up to this size a content is copied into its reply: cheaper than a system call's list of pieces."""

_MICROSECONDS: Final = 1_000_000

_HELP_TEXT: Final = b"""\
read <name>                                   -> CONTENTS <version> <numbytes> <exptime> + content line
write <name> <numbytes> [<exptime>]           + content line -> OK <version>
cas <name> <version> <numbytes> [<exptime>]   + content line -> OK <version> (version 0: only if there is no file)
delete <name> [<version>]                     -> OK
append <name> <numbytes> [<exptime>]          + content line -> OK <version>
touch <name> <exptime>                        -> OK <version> (a new expiry for the file as it is)
stat <name>                                   -> STAT <version> <numbytes> <exptime>
list [<prefix>]                               -> LIST <numbytes> + lines <name> <version> <size> <exptime>
status                                        -> STATUS <numbytes> + one JSON object
help                                          -> HELP <numbytes> + this text
quit                                          -> OK, and the connection is closed

A content line is exactly <numbytes> bytes and a line end. <exptime> is in seconds from now; 0, or none, is never.
Errors: ERR_FILE_NOT_FOUND, ERR_VERSION <current version>, ERR_CMD_ERR <why>, ERR_INTERNAL <why>,
ERR_BUSY <seconds> <why>, ERR_REDIRECT <host:port>
"""


def change_reply(result: Result) -> bytes:
    """Give the reply for what became of a change."""
    if isinstance(result, int):
        return b"OK %d\r\n" % result if result else OK
    refusal, version = result
    if refusal == Refusal.NOT_FOUND:
        return FILE_NOT_FOUND
    if refusal == Refusal.VERSION:
        return b"ERR_VERSION %d\r\n" % version
    return TOO_LARGE if refusal == Refusal.TOO_LARGE else UPLOAD_LOST


def bad_request_reply(why: str) -> bytes:
    """Give the reply for a malformed request."""
    return f"ERR_CMD_ERR {why}\r\n".encode("ascii", "replace")


def remaining_seconds(deadline_us: int, clock_us: int) -> int:
    """Tell the whole seconds until a deadline, rounded up: 0 only for a file that never expires (deadline 0)."""
    if not deadline_us:
        return 0
    return max(1, -((clock_us - deadline_us) // _MICROSECONDS))


def contents_reply(record: RawRecord, clock_us: int) -> bytes | Sequence[bytes]:
    """Give the reply to a read: bytes, or pieces when the content is long."""
    version, deadline_us, size, content, _ = record
    exptime = remaining_seconds(deadline_us, clock_us) if deadline_us else 0
    if size <= JOINED_BYTES_MAX and type(content) is bytes:
        return b"CONTENTS %d %d %d\r\n%b\r\n" % (version, size, exptime, content)
    return (b"CONTENTS %d %d %d\r\n" % (version, size, exptime), *pieces_of(content), b"\r\n")


def stat_reply(record: Record, clock_us: int) -> bytes:
    """Give the reply to a stat."""
    return b"STAT %d %d %d\r\n" % (record.version, record.size, remaining_seconds(record.deadline_us, clock_us))


def list_line(name: bytes, record: Record, clock_us: int) -> bytes:
    """Give a file's line in the content of a list."""
    exptime = remaining_seconds(record.deadline_us, clock_us)
    return b"%b %d %d %d\n" % (name, record.version, record.size, exptime)


def sized_reply(word: bytes, pieces: Sequence[bytes]) -> list[bytes]:
    """Give a reply of a word, a size and a content in pieces (LIST, STATUS, HELP)."""
    return [b"%b %d\r\n" % (word, sum(map(len, pieces))), *pieces, b"\r\n"]


HELP_REPLY: Final = b"".join(sized_reply(b"HELP", [_HELP_TEXT.replace(b"\n", b"\r\n")]))
