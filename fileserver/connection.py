"""The conversation with one client, without I/O.

Theory of operation
    Bytes come in by :meth:`Connection.receive`; :meth:`Connection.gather` parses them and puts the requests into a
    :class:`Gathering`, which is what one pass over many connections has for the backend. Each request is given a
    number. Answers come back by number, in any order, from :class:`~fileserver.backend.ChangeBatch` and
    :class:`~fileserver.reading.StoreReader`; those that are next in order go to the output, the others wait in
    `_early`.

    Program order: of the requests of one connection either several changes are under way or several reads, never both,
    and a long one (a big content, a list) is alone. So a pipelined ``write x``, ``read x`` sees what it wrote. While
    that holds a request back, or the client doesn't take its replies, or too much is under way, `gather` stops and
    `blocked` is true; the owner calls `gather` again when something has been answered or sent.

    A connection that goes from no output to some adds itself to its service's `touched` list, which is what a flush
    looks at.

Invariants
    ``_next_answer <= _next_number``; they are equal when nothing is under way, and then `_early` is empty.
    `unsent_bytes` is the size of everything in `output` and `_early`.
    After `closing` nothing more is parsed; after `lose` nothing more is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, TypeAlias

from fileserver.backend import Backend, ChangeBatch, Failure, Flush, ReadBatch, Reader, Upload
from fileserver.parser import RequestParser, parse_whole
from fileserver.replies import HELP_REPLY, OK, bad_request_reply
from fileserver.requests import (
    HELP,
    LAST_CHANGE,
    LIST,
    MAX_FILE_BYTES_DEFAULT,
    QUIT,
    STATUS,
    BadRequest,
    Request,
)

OUTPUT_BYTES_MAX: Final = 1024 * 1024
"""With more replies unsent than this, nothing more is parsed or read."""
INPUT_BYTES_MAX: Final = 128 * 1024
"""While blocked, a connection takes no more from its client once it holds so much unparsed."""
UNDER_WAY_MAX: Final = 512
"""How many requests of one connection may be waiting for their answers, or for their turn to be answered."""
REQUESTS_PER_TURN: Final = 512
"""How many requests one connection may have parsed before the others get their turn."""
SEND_BYTES: Final = 256 * 1024
"""How much is offered to a socket at once, roughly."""
_SEND_PIECES: Final = 512
"""How many pieces are offered to a socket at once; the system takes 1024."""

Buffer: TypeAlias = bytes | memoryview

_CHANGING: Final = 1
_READING: Final = 2
_ALONE: Final = 3


class Gathering:
    """What a pass over the connections has for the backend."""

    __slots__ = ("_backend", "_flush", "_uploads", "changes", "reader", "reads", "refusal")

    def __init__(self, backend: Backend, reader: Reader, flush: Flush) -> None:
        self._backend = backend
        self._flush = flush
        self._uploads: list[Upload] = []
        self.refusal: Failure | None = None
        """Why no change is accepted in this pass, if so."""
        self.changes = ChangeBatch(flush)
        self.reads = ReadBatch(flush, reader)
        self.reader: Final = reader

    def start(self) -> None:
        """Begin a pass: ask once whether the backend takes changes at all."""
        self.refusal = self._backend.refusal()

    @property
    def requests(self) -> int:
        """How many requests have been gathered for batches."""
        return len(self.changes.waiters) + len(self.reads.waiters)

    def add_upload(self, waiter: Connection, number: int, request: Request, pieces: tuple[bytes, ...]) -> None:
        """Add a change with a big content."""
        self._uploads.append(Upload(self._flush, waiter, number, request, pieces))

    def submit(self) -> None:
        """Hand over to the backend what there is, and begin anew."""
        changes, reads, uploads = self.changes, self.reads, self._uploads
        if changes.waiters:
            self.changes = ChangeBatch(self._flush)
            self._backend.submit(changes)
        if reads.waiters:
            self.reads = ReadBatch(self._flush, self.reader)
            self._backend.read(reads)
        if uploads:
            self._uploads = []
            for upload in uploads:
                self._backend.submit_upload(upload)
        self._backend.begin()


class Connection:
    """One client's conversation; see the module's docstring."""

    __slots__ = (
        "_deferred",
        "_early",
        "_held",
        "_is_plain",
        "_max_file_bytes",
        "_mode",
        "_next_answer",
        "_next_number",
        "_parser",
        "_touched",
        "blocked",
        "closing",
        "ended",
        "lost",
        "output",
        "unsent_bytes",
    )

    def __init__(self, touched: list[Connection], max_file_bytes: int = MAX_FILE_BYTES_DEFAULT) -> None:
        self._parser = RequestParser(max_file_bytes)
        self._max_file_bytes = max_file_bytes
        self._is_plain = True  # Nothing is unparsed, held or deferred, and nothing has ended.
        self._held: Request | None = None  # Parsed, but not yet its turn.
        self._mode = 0  # What kind of requests is under way, when there are any.
        self._next_number = 0
        self._next_answer = 0
        self._early: dict[int, Sequence[bytes]] = {}  # Answers that came before their turn.
        self._deferred: deque[tuple[int, Request]] = deque()
        self._touched = touched
        self.output: deque[Buffer] = deque()
        """What is to be sent, in order."""
        self.unsent_bytes = 0
        """Size of the replies that the client hasn't taken."""
        self.blocked = False
        """True when `gather` has stopped although there may be more to parse."""
        self.ended = False
        """True when the client sends nothing more."""
        self.closing = False
        """True when no further request is taken: the connection ends after its last reply."""
        self.lost = False
        """True when the client can't be reached any more."""

    # Input

    def receive(self, data: bytes) -> None:
        """Take bytes from the client; `gather` is to be called next."""
        self._is_plain = False
        self._parser.feed(data)

    def receive_whole(self, data: bytes, gathering: Gathering) -> bool:
        """Take bytes that are one whole request of a frequent kind, and gather it; False: `receive` them instead."""
        if not self._is_plain:
            return False
        request = parse_whole(data, self._max_file_bytes)
        return request is not None and self._dispatch(request, self._next_number - self._next_answer, gathering)

    def receive_end(self) -> None:
        """Take notice that the client sends nothing more; `gather` is to be called next."""
        self._is_plain = False
        self.ended = True

    def take_no_more(self) -> None:
        """End the conversation once everything that is under way has been answered."""
        self.closing = True
        self._is_plain = False

    def gather(self, gathering: Gathering) -> bool:
        """Parse what has arrived, as far as may be, and put the requests into `gathering`.

        Returns:
            True when it stopped only to give others their turn, so that it is to be called again soon.
        """
        if self._deferred:
            self._evaluate_deferred(gathering.reader)
        next_request = self._parser.next_request
        for _ in range(REQUESTS_PER_TURN):
            if self.closing:
                self.blocked = bool(self._deferred)
                return False
            under_way = self._next_number - self._next_answer
            if under_way >= UNDER_WAY_MAX or self.unsent_bytes > OUTPUT_BYTES_MAX:
                self.blocked = True
                return False
            request = self._held or next_request()
            if request is None:
                self.blocked = bool(self._deferred)
                self.closing = self.ended
                self._is_plain = not (self.blocked or self.closing or self._parser.in_request)
                return False
            if isinstance(request, BadRequest):
                self.closing = request.close
                self._answer_now(bad_request_reply(request.why))
            elif not self._dispatch(request, under_way, gathering):
                self._held = request
                self.blocked = True
                return False
            else:
                self._held = None
        self.blocked = True
        return True

    def _dispatch(self, request: Request, under_way: int, gathering: Gathering) -> bool:
        """Put the request where it belongs; False when it isn't its turn yet."""
        operation = request[0]
        content = request[4]
        if operation <= LAST_CHANGE:
            mode = _ALONE if isinstance(content, tuple) else _CHANGING
        elif operation >= HELP:
            self.closing = operation == QUIT
            self._answer_now(OK if operation == QUIT else HELP_REPLY)
            return True
        else:
            mode = _ALONE if operation == LIST else _READING
        if under_way and (mode != self._mode or mode == _ALONE):
            return False
        self._mode = mode
        number = self._next_number
        self._next_number = number + 1
        if operation > LAST_CHANGE:
            if operation == STATUS:
                gathering.reader.evaluate(self, number, request)
            else:
                reads = gathering.reads
                reads.requests.append(request)
                reads.waiters.append(self)
                reads.numbers.append(number)
        elif gathering.refusal is not None:
            self.answer(number, gathering.refusal.reply())
        elif isinstance(content, tuple):
            gathering.add_upload(self, number, request, content)
        else:
            changes = gathering.changes
            changes.fields += request  # type: ignore[arg-type]  # its content is bytes, as has been seen
            changes.waiters.append(self)
            changes.numbers.append(number)
            changes.content_bytes += len(content)
        return True

    def _answer_now(self, reply: bytes) -> None:
        number = self._next_number
        self._next_number = number + 1
        self.answer(number, reply)

    def _evaluate_deferred(self, reader: Reader) -> None:
        """Take up reads that waited for the client to take earlier replies."""
        while self._deferred and self.unsent_bytes <= OUTPUT_BYTES_MAX:
            number, request = self._deferred.popleft()
            reader.evaluate(self, number, request)

    # Answers

    def answer(self, number: int, reply: bytes) -> None:
        """Take the reply to the request with this number."""
        if number != self._next_answer or self._early or self.lost:
            self.answer_pieces(number, (reply,))
            return
        self._next_answer = number + 1
        if not self.output:
            self._touched.append(self)
        self.output.append(reply)
        self.unsent_bytes += len(reply)

    def answer_pieces(self, number: int, pieces: Sequence[bytes]) -> None:
        """Take a reply in pieces, and send with it what waited for it."""
        if self.lost:
            return
        early = self._early
        early[number] = pieces
        self.unsent_bytes += sum(map(len, pieces))
        while (ready := early.pop(self._next_answer, None)) is not None:
            self._next_answer += 1
            if not self.output:
                self._touched.append(self)
            self.output.extend(ready)

    def defer(self, number: int, request: Request) -> None:
        """Keep a read until the client has taken earlier replies; `gather` takes it up."""
        self._is_plain = False
        self._deferred.append((number, request))
        self.blocked = True

    # Output

    def next_output(self) -> list[Buffer]:
        """Give the buffers to send next: about `SEND_BYTES`, at least one buffer if there is any."""
        buffers: list[Buffer] = []
        size_bytes = 0
        for buffer in islice(self.output, _SEND_PIECES):
            buffers.append(buffer)
            size_bytes += len(buffer)
            if size_bytes >= SEND_BYTES:
                break
        return buffers

    def sent(self, size_bytes: int) -> None:
        """Take notice that so many bytes of `next_output` have been sent."""
        self.unsent_bytes -= size_bytes
        output = self.output
        if not self.unsent_bytes:
            output.clear()
            return
        while size_bytes:
            buffer = output.popleft()
            if len(buffer) > size_bytes:
                output.appendleft(memoryview(buffer)[size_bytes:])
                return
            size_bytes -= len(buffer)

    def lose(self) -> None:
        """Take notice that the client can't be reached any more: let go of everything."""
        self.lost = True
        self.closing = True
        self._is_plain = False
        self.blocked = False
        self._held = None
        self._parser = RequestParser(0)
        self._deferred.clear()
        self._early.clear()
        self.output.clear()
        self.unsent_bytes = 0

    # What its owner asks

    @property
    def finished(self) -> bool:
        """True when everything has been answered and sent, and no further request is taken."""
        return self.closing and not self.output and self._next_answer == self._next_number

    @property
    def input_full(self) -> bool:
        """True when nothing more should be received for now."""
        return self.blocked and self._parser.unparsed_bytes >= INPUT_BYTES_MAX

    @property
    def in_request(self) -> bool:
        """True when the client has sent half a request and must go on: nothing else holds it up."""
        return not self.blocked and not self.closing and self._parser.in_request

    @property
    def idle(self) -> bool:
        """True when neither side owes the other anything."""
        return not self.output and self._next_answer == self._next_number and not self._parser.in_request
