"""The line protocol's parser: bytes in any chunks to requests, without I/O.

Theory of operation
    :meth:`RequestParser.feed` takes what has arrived, :meth:`RequestParser.next_request` gives the next complete
    request, or a :class:`~fileserver.requests.BadRequest`, or None when more must arrive first. Any input whatever
    leads to one of the three. The parser is always either at a request line, inside a content, at a content's line
    end, or finished.

    Where a line is faulty but its numbytes is sound, the content is still read, into nothing, and the fault reported
    when the whole request has passed: the conversation goes on. Where the end of the request can't be told, the fault
    is reported at once and the parser is finished; whatever follows is ignored.

    Most lines are ASCII: one regular expression finds that a line holds nothing but printable characters and spaces,
    after which ``bytes.split()`` splits at nothing but spaces and every name is sound. Other lines take a slower
    path.

Invariants
    What is held is at most what has arrived: nothing is set aside for a declared size.
    The row of requests depends on the bytes alone, not on their chunks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from fileserver.commands import (
    ANY_VERSION,
    APPEND,
    CAS,
    DELETE,
    KEEP_EXPTIME,
    MAX_EXPTIME_SECONDS,
    TOUCH,
    WRITE,
)
from fileserver.records import PART_BYTES, content_of
from fileserver.requests import (
    HELP,
    LINE_BYTES_MAX,
    LIST,
    MAX_FILE_BYTES_DEFAULT,
    NAME_BYTES_MAX,
    QUIT,
    READ,
    STAT,
    STATUS,
    VERSION_MAX,
    BadRequest,
    Request,
    make_request,
)

_DIGITS_MAX: Final = 19
_LINE_SEARCH_BYTES: Final = LINE_BYTES_MAX + 2
"""A sound line has its LF within so many bytes: the longest line, CR and LF."""

_is_plain_line: Final = re.compile(rb"[ -~]*\r?").fullmatch
_match_frequent: Final = re.compile(rb"(?:read ([!-~]{1,250})|write ([!-~]{1,250}) ([0-9]{1,9}))\r?\n").match
_is_visible: Final = re.compile(rb"[!-~]*").fullmatch

_NO_CONTENT: Final = -1


class _Head(NamedTuple):
    """What a request line says."""

    operation: int
    name: bytes
    argument: int
    exptime: int
    size_bytes: int
    """Of the content that follows, or `_NO_CONTENT`."""
    why: str
    """The line's fault, or empty; then the content is dropped."""


_make_head: Final[Callable[[tuple[int, bytes, int, int, int, str]], _Head]] = partial(tuple.__new__, _Head)


def _bad(why: str, size_bytes: int = _NO_CONTENT) -> _Head:
    return _Head(0, b"", 0, 0, size_bytes, why)


def _number(word: bytes) -> int:
    """Give the number that the word is, or -1: digits only, at most 19."""
    return int(word) if word.isdigit() and len(word) <= _DIGITS_MAX else -1


def _name_fault(name: bytes) -> str:
    """Tell what is wrong with a name or a prefix, if anything: UTF-8 without white space or control characters."""
    if len(name) > NAME_BYTES_MAX:
        return f"name is longer than {NAME_BYTES_MAX} bytes"
    if _is_visible(name):
        return ""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return "name is not UTF-8"
    # Control characters are U+0000 to U+001F and U+007F to U+009F (category Cc).
    if any(character <= "\x1f" or "\x7f" <= character <= "\x9f" or character.isspace() for character in text):
        return "name has white space or a control character"
    return ""


_LineParser: TypeAlias = Callable[[list[bytes], str, int], "_Head | BadRequest"]
"""From a line's words, what is wrong with the second one as a name (or empty), and the size limit of contents."""


def _parse_content_line(
    words: list[bytes], operation: int, why: str, numbytes_at: int, argument: int, exptime: int, max_file_bytes: int
) -> _Head | BadRequest:
    """Parse the line of a request with a content; `argument` and `exptime` hold where the line says nothing."""
    count = len(words)
    if count <= numbytes_at:
        return BadRequest("numbytes is missing", True)
    size_bytes = _number(words[numbytes_at])
    if size_bytes < 0:
        return BadRequest("numbytes is not a number", True)
    if size_bytes > max_file_bytes:
        return BadRequest(f"content is larger than {max_file_bytes} bytes", True)
    if operation == CAS:
        argument = min(_number(words[2]), VERSION_MAX)
        if argument < 0:
            why = why or "version is not a number"
    if count > numbytes_at + 1:
        exptime = _number(words[numbytes_at + 1])
        if not 0 <= exptime <= MAX_EXPTIME_SECONDS:
            why = why or f"exptime is not a number up to {MAX_EXPTIME_SECONDS}"
        if count > numbytes_at + 2:
            why = why or "too many fields"
    return _bad(why, size_bytes) if why else _Head(operation, words[1], argument, exptime, size_bytes, "")


def _parse_write(words: list[bytes], name_fault: str, max_file_bytes: int) -> _Head | BadRequest:
    return _parse_content_line(words, WRITE, name_fault, 2, 0, 0, max_file_bytes)


def _parse_cas(words: list[bytes], name_fault: str, max_file_bytes: int) -> _Head | BadRequest:
    return _parse_content_line(words, CAS, name_fault, 3, 0, 0, max_file_bytes)


def _parse_append(words: list[bytes], name_fault: str, max_file_bytes: int) -> _Head | BadRequest:
    return _parse_content_line(words, APPEND, name_fault, 2, max_file_bytes, KEEP_EXPTIME, max_file_bytes)


def _field_count_fault(words: list[bytes], least: int, most: int) -> str:
    if len(words) < least:
        return "a field is missing"
    return "too many fields" if len(words) > most else ""


def _parse_named(operation: int) -> _LineParser:
    """Make the parser of a line that has a name and nothing else."""

    def parse(words: list[bytes], name_fault: str, _: int) -> _Head:
        why = name_fault if len(words) == 2 else _field_count_fault(words, 2, 2)
        return _bad(why) if why else _make_head((operation, words[1], 0, 0, _NO_CONTENT, ""))

    return parse


def _parse_bare(operation: int) -> _LineParser:
    """Make the parser of a line that is one word."""

    def parse(words: list[bytes], _name_fault: str, _: int) -> _Head:
        why = _field_count_fault(words, 1, 1)
        return _bad(why) if why else _Head(operation, b"", 0, 0, _NO_CONTENT, "")

    return parse


def _parse_delete(words: list[bytes], name_fault: str, _: int) -> _Head:
    why = _field_count_fault(words, 2, 3) or name_fault
    version = ANY_VERSION
    if not why and len(words) == 3:
        version = min(_number(words[2]), VERSION_MAX)
        if version < 0:
            why = "version is not a number"
    return _bad(why) if why else _Head(DELETE, words[1], version, 0, _NO_CONTENT, "")


def _parse_touch(words: list[bytes], name_fault: str, _: int) -> _Head:
    why = _field_count_fault(words, 3, 3) or name_fault
    if why:
        return _bad(why)
    exptime = _number(words[2])
    if not 0 <= exptime <= MAX_EXPTIME_SECONDS:
        return _bad(f"exptime is not a number up to {MAX_EXPTIME_SECONDS}")
    return _Head(TOUCH, words[1], 0, exptime, _NO_CONTENT, "")


def _parse_list(words: list[bytes], name_fault: str, _: int) -> _Head:
    why = _field_count_fault(words, 1, 2) or name_fault
    prefix = words[1] if len(words) > 1 else b""
    return _bad(why) if why else _Head(LIST, prefix, 0, 0, _NO_CONTENT, "")


_LINE_PARSERS: Final[dict[bytes, _LineParser]] = {
    b"read": _parse_named(READ),
    b"write": _parse_write,
    b"cas": _parse_cas,
    b"delete": _parse_delete,
    b"append": _parse_append,
    b"touch": _parse_touch,
    b"stat": _parse_named(STAT),
    b"list": _parse_list,
    b"status": _parse_bare(STATUS),
    b"help": _parse_bare(HELP),
    b"quit": _parse_bare(QUIT),
}


def _parse_line(line: bytes, max_file_bytes: int) -> _Head | BadRequest:
    """Parse one request line; it may still end in its CR."""
    name_fault = ""
    if _is_plain_line(line):
        words = line.split()
        if len(line) > NAME_BYTES_MAX and len(words) > 1:
            name_fault = _name_fault(words[1])
    else:
        words = [word for word in line.removesuffix(b"\r").split(b" ") if word]
        if len(words) > 1:
            name_fault = _name_fault(words[1])
    if not words:
        return BadRequest("empty line", False)
    parse = _LINE_PARSERS.get(words[0])
    if parse is None:
        return BadRequest("unknown command; try help", True)
    return parse(words, name_fault, max_file_bytes)


def _plain_request(data: bytes, start: int, max_file_bytes: int) -> tuple[Request, int] | None:
    """Give the request that begins there, if all of it is there and it is of a frequent kind; and where it ends.

    A short way for those. None says nothing about the bytes: whatever they are, the long way leads to the same result.
    """
    match = _match_frequent(data, start)
    if match is None:
        return None
    name, written_name, numbytes = match.groups()
    start = match.end()
    if name is not None:
        return make_request((READ, name, 0, 0, b"")), start
    size_bytes = int(numbytes)
    end = start + size_bytes
    if size_bytes > max_file_bytes or size_bytes > PART_BYTES or data[end : end + 2] != b"\r\n":
        return None
    return make_request((WRITE, written_name, 0, 0, data[start:end])), end + 2


def parse_whole(data: bytes, max_file_bytes: int) -> Request | None:
    """Give the request that the bytes are exactly, if it is one of a frequent kind; None: see `_plain_request`."""
    plain = _plain_request(data, 0, max_file_bytes)
    return plain[0] if plain is not None and plain[1] == len(data) else None


class RequestParser:
    """The parser of one conversation; see the module's docstring."""

    __slots__ = (
        "_data",
        "_finished",
        "_gathered_bytes",
        "_head",
        "_max_file_bytes",
        "_piece",
        "_pieces",
        "_position",
    )

    def __init__(self, max_file_bytes: int = MAX_FILE_BYTES_DEFAULT) -> None:
        self._max_file_bytes = max_file_bytes
        self._data = b""  # What has arrived, of which everything before _position has been used.
        self._position = 0
        self._head: _Head | None = None  # The line whose content is being read.
        self._gathered_bytes = 0  # How much of that content has passed.
        self._pieces: list[bytes] = []  # The full pieces of it; always empty for one that is dropped.
        self._piece = bytearray()  # The beginning of its next piece.
        self._finished = False

    @property
    def unparsed_bytes(self) -> int:
        """How many bytes have been fed that `next_request` has not come to yet."""
        return len(self._data) - self._position

    @property
    def in_request(self) -> bool:
        """True when `next_request`, having given None, has begun a request that is not complete."""
        return self._head is not None or self._position < len(self._data)

    def feed(self, data: bytes) -> None:
        """Take more bytes, in chunks of any size."""
        if self._finished:
            return
        if self._position == len(self._data):
            self._data = data
        else:
            self._data = self._data[self._position :] + data
        self._position = 0

    def next_request(self) -> Request | BadRequest | None:
        """Give the next request, or what is wrong with it, or None: feed more."""
        if self._head is not None:
            return self._go_on_with_content(self._head)
        data, start = self._data, self._position
        plain = _plain_request(data, start, self._max_file_bytes)
        if plain is not None:
            request, self._position = plain
            if self._position == len(data):
                self._data, self._position = b"", 0
            return request
        line_end = data.find(b"\n", start, start + _LINE_SEARCH_BYTES)
        if line_end < 0:
            return self._check_unended_line()
        line = data[start:line_end]
        if line_end - start > LINE_BYTES_MAX and len(line.removesuffix(b"\r")) > LINE_BYTES_MAX:
            return self._finish("line is too long")
        head = _parse_line(line, self._max_file_bytes)
        if isinstance(head, BadRequest):
            self._position = line_end + 1
            return self._finish(head.why) if head.close else head
        operation, name, argument, exptime, size_bytes, why = head
        position = line_end + 1
        content = b""
        if size_bytes >= 0:
            end = position + size_bytes
            if why or size_bytes > PART_BYTES or data[end : end + 2] != b"\r\n":
                self._position = position
                self._head = head
                return self._go_on_with_content(head)
            # The usual case, a request that came as a whole.
            content = data[position:end]
            position = end + 2
        if position == len(data):
            self._data, self._position = b"", 0
        else:
            self._position = position
        return BadRequest(why, False) if why else make_request((operation, name, argument, exptime, content))

    def _check_unended_line(self) -> BadRequest | None:
        """Tell whether a line that has not ended yet can still become a sound one."""
        if self._position:
            # Let go of what has been used.
            self._data = self._data[self._position :]
            self._position = 0
        length = len(self._data)
        if length > LINE_BYTES_MAX + 1 or (length > LINE_BYTES_MAX and self._data[-1] != 0x0D):
            return self._finish("line is too long")
        return None

    def _finish(self, why: str) -> BadRequest:
        self._finished = True
        self._head = None
        self._data, self._position = b"", 0
        self._pieces, self._piece = [], bytearray()
        return BadRequest(why, True)

    def _go_on_with_content(self, head: _Head) -> Request | BadRequest | None:
        missing = head.size_bytes - self._gathered_bytes
        if missing:
            usable = min(missing, len(self._data) - self._position)
            if not head.why:
                self._gather(usable)
            self._position += usable
            self._gathered_bytes += usable
            if usable < missing:
                self._data, self._position = b"", 0
                return None
        return self._end_content(head)

    def _gather(self, usable: int) -> None:
        """Add so many bytes of the data to the content, as full pieces and the beginning of one."""
        position = self._position
        end = position + usable
        while position < end:
            step = min(end - position, PART_BYTES - len(self._piece))
            if step == PART_BYTES:
                self._pieces.append(self._data[position : position + step])
            else:
                # A bytearray rather than a list of what came: chunks may be of one byte each.
                self._piece += memoryview(self._data)[position : position + step]
                if len(self._piece) == PART_BYTES:
                    self._pieces.append(bytes(self._piece))
                    self._piece.clear()
            position += step

    def _end_content(self, head: _Head) -> Request | BadRequest | None:
        """Read the content's line end, and so complete the request."""
        line_end = self._data[self._position : self._position + 2]
        if line_end[:1] == b"\n":
            self._position += 1
        elif line_end == b"\r\n":
            self._position += 2
        elif line_end in (b"", b"\r"):
            return None
        else:
            return self._finish("content is not ended by CRLF or LF")
        if self._piece:
            self._pieces.append(bytes(self._piece))
            self._piece = bytearray()
        pieces, self._pieces = self._pieces, []
        self._head = None
        self._gathered_bytes = 0
        if head.why:
            return BadRequest(head.why, False)
        content = content_of(pieces)
        return make_request((head.operation, head.name, head.argument, head.exptime, content))
