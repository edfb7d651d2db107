"""A synchronous client of the line protocol that knows several servers and fails over between them.

    with Client([Address("127.0.0.1", 8080), Address("127.0.0.1", 8081)]) as client:
        version = client.write("greeting", b"hello")
        print(client.read("greeting").content)

Theory of operation: a client keeps one connection, to the server that last worked. What happens when a request meets
trouble depends on one question only, whether it may have been carried out:

* It can't have been: no connection could be made, the request did not leave this machine as a whole, or the server
  said so (``ERR_BUSY``, ``ERR_REDIRECT``, ``ERR_INTERNAL not applied``). Then it is tried again, at the next server.
* It may have been, and changes nothing (read, stat, list, status): the same.
* It may have been, and is a change: :class:`OutcomeUnknownError` is raised. The client never sends it again by
  itself, because it would then be made twice. A caller can find out by a read, or avoid the question by ``cas``.

All of it ends ``timeout_seconds`` after the call began, or earlier if no server can be reached at all. A client isn't
safe for use by several threads at a time.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import attrs

from fileserver.config import Address

DEFAULT_TIMEOUT_SECONDS = 20.0
"""More than a server's own request_timeout, whose error says more than a client's silence."""
CONNECT_TIMEOUT_SECONDS = 2.0
UNREACHABLE_SECONDS = 2.0
"""When for so long not one of the servers has accepted a connection, a request gives up."""
SILENCE_SECONDS = 5.0
"""A server silent for so long while it should be answering what changes nothing: another one is asked."""
_RECEIVE_BYTES = 256 * 1024
_LINE_BYTES_MAX = 8192
_NAME_BYTES_MAX = 250
_PAUSE_SECONDS = 0.05
_splits_the_line = re.compile(rb"[\x00-\x20\x7f]").search


class ClientError(Exception):
    """A request did not do what was asked; the subclasses say why."""


class NoSuchFileError(ClientError):
    """There is no such file."""


class VersionError(ClientError):
    """The file's version is another one."""

    def __init__(self, version: int) -> None:
        super().__init__(f"the file's version is {version}")
        self.version = version
        """The version that the file has."""


class BadRequestError(ClientError):
    """The request is malformed or over a limit. Nothing was changed."""


class NotAppliedError(ClientError):
    """No server carried the request out within the time given. Nothing was changed."""


class OutcomeUnknownError(ClientError):
    """The change was sent, and whether it was made can't be known."""


class ProtocolError(ClientError):
    """What came back isn't a reply of the line protocol. Whether a change was made can't be known."""


@attrs.frozen(slots=True)
class File:
    """What is known of a file."""

    version: int
    size_bytes: int
    expires_in_seconds: int
    """Rounded up; 0 for a file that never expires."""
    content: bytes = b""
    """Empty where only the rest was asked for."""


@attrs.frozen(slots=True)
class ListedFile:
    """A line of a list."""

    name: bytes
    version: int
    size_bytes: int
    expires_in_seconds: int


@attrs.frozen(slots=True)
class _Reply:
    """A reply that worked: the fields of its line after the first, and its content if it has one."""

    fields: tuple[bytes, ...]
    content: bytes


class _TryAgainError(Exception):
    """The request was certainly not carried out, and might be elsewhere or later."""

    def __init__(
        self, why: str, *, pause_seconds: float = 0.0, elsewhere: Address | None = None, is_reached: bool = True
    ) -> None:
        super().__init__(why)
        self.is_reached = is_reached
        """Whether there was a server to talk to."""
        self.pause_seconds = pause_seconds
        self.elsewhere = elsewhere


class _ConnectionLostError(Exception):
    """The connection broke, or time ran out, while a reply was awaited."""


class _Connection:
    """One connection, and the bytes that have come on it. Any OSError but those named is the caller's."""

    def __init__(self, address: Address, timeout_seconds: float) -> None:
        self.address = address
        self.silence_seconds = SILENCE_SECONDS
        """How long the server may send nothing while a reply is awaited."""
        self._socket = socket.create_connection((address.host, address.port), timeout=timeout_seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def close(self) -> None:
        self._socket.close()

    def is_stale(self) -> bool:
        """Whether the server has closed it while it was idle (or has sent what nobody asked for)."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def send(self, parts: Sequence[bytes], deadline: float) -> None:
        """Send it all.

        Raises:
            OSError: not all of it could be sent, so there is no complete request at the other side.
        """
        for part in parts:
            self._socket.settimeout(_seconds_until(deadline))
            self._socket.sendall(part)

    def receive_line(self, deadline: float) -> bytes:
        """A line, without its end."""
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _LINE_BYTES_MAX:
                raise ProtocolError("a reply's line is too long")
            self._receive(deadline)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line.removesuffix(b"\r")

    def receive_content(self, size_bytes: int, deadline: float) -> bytes:
        """A content and its line end."""
        while len(self._received) < size_bytes + 2:
            self._receive(deadline)
        content = bytes(memoryview(self._received)[:size_bytes])
        del self._received[: size_bytes + 2]
        return content

    def _receive(self, deadline: float) -> None:
        self._socket.settimeout(min(_seconds_until(deadline), self.silence_seconds))
        try:
            chunk = self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise _ConnectionLostError(str(error)) from error
        if not chunk:
            raise _ConnectionLostError("the server closed the connection")
        self._received += chunk


def _seconds_until(deadline: float) -> float:
    """How long a socket may take; never 0, which would mean that it must not wait at all."""
    return max(deadline - time.monotonic(), 0.001)


class Client:
    """See the module's docstring. Nothing is connected before the first request."""

    def __init__(self, servers: Sequence[Address], *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        if not servers:
            raise ValueError("a client needs a server")
        self._servers = tuple(servers)
        self._timeout_seconds = timeout_seconds
        self._next = 0
        self._connection: _Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later request would open one again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # Each may raise BadRequestError, NotAppliedError and ProtocolError, besides what its docstring says.

    def read(self, name: bytes | str) -> File:
        """A file with its content, or NoSuchFileError."""
        reply = self._call([b"read", _name(name)])
        version, size_bytes, expires_in = _numbers(reply, 3)
        return File(version, size_bytes, expires_in, reply.content)

    def stat(self, name: bytes | str) -> File:
        """A file without its content, or NoSuchFileError."""
        version, size_bytes, expires_in = _numbers(self._call([b"stat", _name(name)]), 3)
        return File(version, size_bytes, expires_in)

    def write(self, name: bytes | str, content: bytes, *, expires_in_seconds: int = 0) -> int:
        """Write a file, which is created if need be. Returns its version. May raise OutcomeUnknownError."""
        line = [b"write", _name(name), b"%d" % len(content), *_exptime(expires_in_seconds)]
        return _version(self._call(line, content, changes=True))

    def cas(self, name: bytes | str, version: int, content: bytes, *, expires_in_seconds: int = 0) -> int:
        """Write a file if it has that version (0: if there is none). Returns its new version.

        Raises:
            VersionError: it has another version.
            NoSuchFileError: there is none, and the version is not 0.
            OutcomeUnknownError: it may have been written or not.
        """
        line = [b"cas", _name(name), b"%d" % version, b"%d" % len(content), *_exptime(expires_in_seconds)]
        return _version(self._call(line, content, changes=True))

    def append(self, name: bytes | str, content: bytes, *, expires_in_seconds: int | None = None) -> int:
        """Add to a file's end; it is created if need be. Returns its version. May raise OutcomeUnknownError.

        Its expiry stays as it is unless one is given, of which 0 is for never.
        """
        expiry = [] if expires_in_seconds is None else [b"%d" % expires_in_seconds]
        return _version(self._call([b"append", _name(name), b"%d" % len(content), *expiry], content, changes=True))

    def delete(self, name: bytes | str, version: int | None = None) -> None:
        """Delete a file, if it has that version where one is given.

        Raises:
            VersionError: it has another version.
            NoSuchFileError: there is none.
            OutcomeUnknownError: it may have been deleted or not.
        """
        line = [b"delete", _name(name), *([] if version is None else [b"%d" % version])]
        self._call(line, changes=True)

    def touch(self, name: bytes | str, expires_in_seconds: int) -> int:
        """Give a file another expiry, 0 for never. Returns its version.

        Raises:
            NoSuchFileError: there is none.
            OutcomeUnknownError: it may have been changed or not.
        """
        return _version(self._call([b"touch", _name(name), b"%d" % expires_in_seconds], changes=True))

    def list(self, prefix: bytes | str = b"") -> tuple[ListedFile, ...]:
        """The files whose names begin so, in the order of their names' bytes."""
        reply = self._call([b"list", *([_name(prefix)] if prefix else [])])
        files = []
        for line in reply.content.splitlines():
            name, *numbers = line.split(b" ")
            files.append(ListedFile(name, *_numbers(_Reply(tuple(numbers), b""), 3)))
        return tuple(files)

    def status(self) -> dict[str, Any]:
        """What a server says of itself and of the cluster; which one is asked is not determined."""
        try:
            status = json.loads(self._call([b"status"]).content)
        except ValueError as error:
            raise ProtocolError("the status isn't JSON") from error
        if not isinstance(status, dict):
            raise ProtocolError("the status isn't a JSON object")
        return status

    # ------------------------------------------------------------------------------------ fail-over

    def _call(self, line: Sequence[bytes], content: bytes | None = None, *, changes: bool = False) -> _Reply:
        """Have one request carried out, wherever that is possible."""
        started_at = time.monotonic()
        deadline = started_at + self._timeout_seconds
        give_up_at = min(deadline, started_at + UNREACHABLE_SECONDS)
        head = b" ".join(line) + b"\r\n"
        # A big content isn't copied to be joined with its line; a small one goes in the same packet.
        parts = [head] if content is None else [head + content + b"\r\n"]
        if content is not None and len(content) > _RECEIVE_BYTES:
            parts = [head, content, b"\r\n"]
        failures: dict[str, None] = {}  # in order, each once
        elsewhere: Address | None = None
        failed_in_a_row = 0
        while True:
            try:
                return self._attempt(parts, deadline, elsewhere, changes=changes)
            except _TryAgainError as trouble:
                self.close()
                failures[str(trouble)] = None
                if trouble.is_reached:
                    give_up_at = deadline
                elsewhere = trouble.elsewhere
                failed_in_a_row += 1
                pause_seconds = trouble.pause_seconds
                if failed_in_a_row % len(self._servers) == 0 and elsewhere is None:
                    pause_seconds = max(pause_seconds, _PAUSE_SECONDS)  # all of them were tried
                if time.monotonic() + pause_seconds >= give_up_at:
                    raise NotAppliedError("; ".join(failures)) from trouble
                time.sleep(pause_seconds)
            except ClientError as error:
                if isinstance(error, (BadRequestError, OutcomeUnknownError, ProtocolError)):
                    self.close()  # the server has closed it, or will, or it is in an unknown state
                raise

    def _attempt(self, parts: Sequence[bytes], deadline: float, address: Address | None, *, changes: bool) -> _Reply:
        """Send a request to one server and await its reply.

        Raises:
            _TryAgainError: it was not carried out, or it was and may be again.
            ClientError: it was answered by an error, or the outcome is not known.
        """
        connection = self._connected(deadline, address)
        connection.silence_seconds = self._timeout_seconds if changes else SILENCE_SECONDS
        try:
            connection.send(parts, deadline)
        except OSError as error:
            raise self._refusal_before(connection, error) from error
        try:
            return _receive_reply(connection, deadline)
        except _ConnectionLostError as error:
            if changes:
                raise OutcomeUnknownError(f"outcome unknown: {connection.address}: {error}") from error
            raise _TryAgainError(f"{connection.address}: {error}") from error
        except OutcomeUnknownError as error:
            if changes:
                raise
            raise _TryAgainError(f"{connection.address}: {error}") from error

    def _connected(self, deadline: float, address: Address | None) -> _Connection:
        """The connection at hand if it will do, or a new one to the address, or to the next server."""
        if self._connection is not None and (address is not None or self._connection.is_stale()):
            self.close()
        if self._connection is None:
            if address is None:
                address = self._servers[self._next % len(self._servers)]
                self._next += 1
            try:
                timeout_seconds = min(CONNECT_TIMEOUT_SECONDS, _seconds_until(deadline))
                self._connection = _Connection(address, timeout_seconds)
            except OSError as error:
                raise _TryAgainError(f"{address}: {error.strerror or error}", is_reached=False) from error
        return self._connection

    def _refusal_before(self, connection: _Connection, error: OSError) -> Exception:
        """What to raise when a request could not be sent as a whole: the server may have said why."""
        try:
            _receive_reply(connection, time.monotonic() + _PAUSE_SECONDS)
        except (_ConnectionLostError, ProtocolError):
            return _TryAgainError(f"{connection.address}: {error.strerror or error}")
        except (ClientError, _TryAgainError) as refusal:
            return refusal
        return ProtocolError(f"{connection.address}: a request was answered before it was sent")


# ------------------------------------------------------------------------------------ lines and fields


def _receive_reply(connection: _Connection, deadline: float) -> _Reply:
    """Read one reply; those that tell of an error are raised."""
    word, *fields = connection.receive_line(deadline).split(b" ")
    if word.startswith(b"ERR_"):
        raise _error_of(word, fields, connection.address)
    if word == b"OK":
        return _Reply(tuple(fields), b"")
    if word == b"STAT":
        return _Reply(tuple(fields), b"")
    if word in {b"CONTENTS", b"LIST", b"STATUS"}:
        position = 1 if word == b"CONTENTS" else 0
        size = fields[position] if len(fields) > position else b""
        if not (size.isdigit() and len(size) <= 12):
            raise ProtocolError(f"a reply has no sound size: {word!r}")
        return _Reply(tuple(fields), connection.receive_content(int(size), deadline))
    raise ProtocolError(f"not a reply: {word[:80]!r}")


def _error_of(word: bytes, fields: Sequence[bytes], address: Address) -> Exception:
    """The exception that stands for an error reply."""
    text = b" ".join(fields).decode("utf-8", "replace")
    if word == b"ERR_FILE_NOT_FOUND":
        return NoSuchFileError("there is no such file")
    if word == b"ERR_VERSION" and len(fields) == 1 and fields[0].isdigit():
        return VersionError(int(fields[0]))
    if word == b"ERR_CMD_ERR":
        return BadRequestError(text)
    if word == b"ERR_BUSY" and fields and fields[0].isdigit():
        return _TryAgainError(f"{address}: busy: {text}", pause_seconds=float(fields[0]))
    if word == b"ERR_REDIRECT" and fields:
        try:
            return _TryAgainError(f"{address}: redirected to {text}", elsewhere=Address.parse(text))
        except ValueError:
            return _TryAgainError(f"{address}: redirected to nowhere")
    if word == b"ERR_INTERNAL" and "not applied" in text and "outcome unknown" not in text:
        return _TryAgainError(f"{address}: {text}")
    if word == b"ERR_INTERNAL":
        return OutcomeUnknownError(text)
    return ProtocolError(f"not a reply: {word[:80]!r} {text[:200]!r}")


def _name(name: bytes | str) -> bytes:
    """A name as bytes; only what would break up the request's line is checked here, the rest by the server."""
    encoded = name.encode() if isinstance(name, str) else name
    if not 1 <= len(encoded) <= _NAME_BYTES_MAX:
        raise BadRequestError(f"a name has 1 to {_NAME_BYTES_MAX} bytes")
    if _splits_the_line(encoded):
        raise BadRequestError("a name has no white space and no control characters")
    return encoded


def _exptime(seconds: int) -> list[bytes]:
    return [b"%d" % seconds] if seconds else []


def _numbers(reply: _Reply, count: int) -> list[int]:
    """The fields of a reply, which have to be that many numbers."""
    if len(reply.fields) != count or not all(field.isdigit() for field in reply.fields):
        raise ProtocolError(f"a reply has other fields than {count} numbers: {reply.fields!r}")
    return [int(field) for field in reply.fields]


def _version(reply: _Reply) -> int:
    return _numbers(reply, 1)[0]
