"""Requests as bytes, and what replies say, for a client whose every request becomes part of a history. Pure.

It shares no code with the product's own parser and client, whose mistakes it would share then.
"""

from __future__ import annotations

from typing import Final

import attrs

from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Deleted,
    NotFound,
    Outcome,
    Read,
    Refused,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
    found,
    found_by_stat,
)

_SECOND_US: Final = 1_000_000


class Nonsense(Exception):
    """A reply that this request can't have, or that isn't one of the protocol's at all: a bug of the server's."""


@attrs.frozen(slots=True)
class Reply:
    """A reply's line without its end, and its contents if it has any."""

    line: bytes
    contents: bytes = b""


def encode(file: str, action: Action) -> bytes:
    """The bytes of a request."""
    name = file.encode()
    match action:
        case Read():
            return b"read %b\r\n" % name
        case Stat():
            return b"stat %b\r\n" % name
        case Delete(expected=version):
            return b"delete %b\r\n" % name if version is None else b"delete %b %d\r\n" % (name, version)
        case Touch(expires_us=expires_us):
            return b"touch %b %d\r\n" % (name, (expires_us or 0) // _SECOND_US)
        case Write(contents=contents, expires_us=expires_us):
            return _with_contents(b"write " + name, contents, expires_us)
        case Cas(expected=version, contents=contents, expires_us=expires_us):
            return _with_contents(b"cas %b %d" % (name, version), contents, expires_us)
        case Append(contents=contents, keep_expiry=True):
            return b"append %b %d\r\n%b\r\n" % (name, len(contents), contents)
        case _:  # an append that names an expiry
            return _with_contents(b"append " + name, action.contents, action.expires_us)


def _with_contents(head: bytes, contents: bytes, expires_us: int | None) -> bytes:
    return b"%b %d %d\r\n%b\r\n" % (head, len(contents), (expires_us or 0) // _SECOND_US, contents)


class ReplyBuffer:
    """Cuts what arrives into replies."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._received += data

    def next(self) -> Reply | None:
        """The next reply, or None while it isn't there as a whole.

        Raises:
            Nonsense: a size that is no number.
        """
        received = self._received
        line_end = received.find(b"\r\n")
        if line_end < 0:
            return None
        line = bytes(received[:line_end])
        begin = line_end + 2
        words = line.split(b" ")
        size = {b"CONTENTS": 2, b"STATUS": 1, b"LIST": 1}.get(words[0])
        if size is None:
            del received[:begin]
            return Reply(line)
        if len(words) <= size or not words[size].isdigit():
            raise Nonsense(repr(line))
        end = begin + int(words[size])
        if len(received) < end + 2:
            return None
        contents = bytes(received[begin:end])
        if received[end : end + 2] != b"\r\n":
            raise Nonsense(f"contents without an end behind {line!r}")
        del received[: end + 2]
        return Reply(line, contents)


def outcome_of(action: Action, reply: Reply) -> Outcome | None:
    """What a reply says became of a request; None if that is unknown.

    Raises:
        Nonsense: it isn't a reply to such a request.
    """
    words = reply.line.split(b" ")
    fits: Outcome | None = None
    try:
        match words[0]:
            case b"ERR_BUSY" | b"ERR_REDIRECT":
                return Refused()
            case b"ERR_INTERNAL":
                return Refused() if b"not applied" in reply.line and b"unknown" not in reply.line else None
            case b"ERR_FILE_NOT_FOUND" if not isinstance(action, Write | Append):
                fits = NotFound()
            case b"ERR_VERSION" if isinstance(action, Cas | Delete):
                fits = VersionMismatch(int(words[1]))
            case b"OK" if isinstance(action, Delete) and len(words) == 1:
                fits = Deleted()
            case b"OK" if isinstance(action, Write | Cas | Append | Touch):
                fits = Written(int(words[1]))
            case b"CONTENTS" if isinstance(action, Read):
                version, size, seconds_left = map(int, words[1:])
                fits = found(version, reply.contents, seconds_left) if size == len(reply.contents) else None
            case b"STAT" if isinstance(action, Stat):
                fits = found_by_stat(*map(int, words[1:]))
    except (ValueError, TypeError, IndexError) as error:
        raise Nonsense(repr(reply.line)) from error
    if fits is None:
        raise Nonsense(f"{reply.line[:200]!r} in reply to a {type(action).__name__.lower()}")
    return fits
