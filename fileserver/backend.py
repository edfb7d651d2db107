"""What stands between the client connections and whatever carries their requests out.

Theory of operation
    The connections' side (:mod:`fileserver.client_loop`, :mod:`fileserver.stream_service`) gathers what has arrived
    into batches and hands them to a :class:`Backend`. The backend answers a batch by calling exactly one of its
    completion methods, exactly once: at once, inside the call that hands the batch over, or later from any task of
    the same thread. Completion only appends replies to the connections' outputs. They are sent by :attr:`flush`,
    which every batch carries: **whoever completes batches outside of `submit`, `submit_upload` or `read` calls
    ``flush()`` once after the last of a group.** That is how the replies of a whole applied range go out in one
    system call a connection. Flushing twice, or with nothing to send, costs next to nothing.

Invariants
    A batch is never empty. `fields`, `waiters` and `numbers` stay aligned; the backend only reads them.
    A completion method never calls back into the backend's `submit`, `submit_upload` or `read`, and neither does
    `flush`: what becomes possible by an answer is done by the connections' own task. (A read may call
    `wait_for_clock`.) A batch may be completed after its clients have gone; their answers are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, unique
from typing import Final, Protocol, TypeAlias

import attrs

from fileserver.commands import Field, Result
from fileserver.replies import change_reply
from fileserver.requests import Request
from fileserver.store import Store

Flush: TypeAlias = Callable[[], None]


@unique
class FailureKind(Enum):
    """What is known about a request that got no result."""

    NOT_APPLIED = "not applied"
    """It was not carried out and won't be."""
    OUTCOME_UNKNOWN = "outcome unknown"
    """It may have been carried out, or may yet be."""
    BUSY = "busy"
    """Refused for overload; nothing was changed."""
    REDIRECT = "redirect"
    """This server doesn't serve it; another one does."""


@attrs.frozen(slots=True)
class Failure:
    """Why there is no result, as the client will be told it."""

    kind: FailureKind
    why: str = ""
    """For a person; one line of ASCII."""
    retry_seconds: int = 1
    """For BUSY: when to try again."""
    address: str = ""
    """For REDIRECT: ``host:port`` of the leader's client port."""

    def reply(self) -> bytes:
        """Give the reply line for it."""
        if self.kind is FailureKind.BUSY:
            text = f"ERR_BUSY {self.retry_seconds} {self.why}"
        elif self.kind is FailureKind.REDIRECT:
            text = f"ERR_REDIRECT {self.address}"
        else:
            text = f"ERR_INTERNAL {self.kind.value}: {self.why}"
        return text.encode("ascii", "replace") + b"\r\n"


class Waiter(Protocol):
    """Who gets the reply to a request: a connection."""

    unsent_bytes: int
    """Size of the replies that it holds because the client hasn't taken them yet."""
    lost: bool
    """True when the client has gone."""

    def answer(self, number: int, reply: bytes) -> None:
        """Take the reply to the request that was given this number."""

    def answer_pieces(self, number: int, pieces: Sequence[bytes]) -> None:
        """Take a long reply, as pieces that are not to be joined."""

    def defer(self, number: int, request: Request) -> None:
        """Keep a read, to have it evaluated once the client has taken earlier replies."""


class Reader(Protocol):
    """Who evaluates reads against the store; see :class:`fileserver.reading.StoreReader`."""

    def evaluate(self, waiter: Waiter, number: int, request: Request) -> None:
        """Answer the request from the store's present state, or see to it that it is answered later."""

    def evaluate_all(self, waiters: Sequence[Waiter], numbers: Sequence[int], requests: Sequence[Request]) -> None:
        """Do so with many, which stand in the same places of the three."""


class ChangeBatch:
    """Changes to be carried out in this order, each with its own result."""

    __slots__ = ("content_bytes", "fields", "flush", "numbers", "waiters")

    def __init__(self, flush: Flush) -> None:
        self.fields: list[Field] = []
        """The commands: five fields each, in a row, ready for :func:`fileserver.commands.encode_batch`."""
        self.waiters: list[Waiter] = []
        """Whose they are, one a command."""
        self.numbers: list[int] = []
        """Which request of its connection each is."""
        self.content_bytes = 0
        """Sum of the contents' sizes."""
        self.flush: Final = flush

    def __len__(self) -> int:
        """Count the commands."""
        return len(self.waiters)

    def absorb(self, later: ChangeBatch) -> None:
        """Take over the commands of a batch that came later, behind these; that one is not to be completed."""
        self.fields += later.fields
        self.waiters += later.waiters
        self.numbers += later.numbers
        self.content_bytes += later.content_bytes

    def applied(self, results: Sequence[Result]) -> None:
        """Answer every command with its result; `results` is aligned with the commands."""
        for waiter, number, result in zip(self.waiters, self.numbers, results, strict=True):
            waiter.answer(number, b"OK %d\r\n" % result if type(result) is int and result else change_reply(result))

    def failed(self, failure: Failure) -> None:
        """Answer every command with this failure."""
        reply = failure.reply()
        for waiter, number in zip(self.waiters, self.numbers, strict=True):
            waiter.answer(number, reply)


class Upload:
    """One change whose content is too big for a batch.

    To be carried out as a PART command for each of its pieces, in order, and then ``command(upload_number)``; the
    backend chooses the number. Only the last one's result is of interest. Completed like a batch of one command.
    """

    __slots__ = ("content_bytes", "flush", "number", "pieces", "request", "waiter")

    def __init__(self, flush: Flush, waiter: Waiter, number: int, request: Request, pieces: tuple[bytes, ...]) -> None:
        self.request: Final = request
        self.pieces: Final = pieces
        """The content, each piece at most PART_BYTES."""
        self.content_bytes: Final = sum(map(len, pieces))
        self.waiter: Final = waiter
        self.number: Final = number
        self.flush: Final = flush

    def command(self, upload_number: int) -> tuple[Field, ...]:
        """Give the five fields of the command that uses the staged pieces."""
        operation, name, argument, exptime, _ = self.request
        return (operation, name, argument, exptime, upload_number)

    def applied(self, results: Sequence[Result]) -> None:
        """Answer the client; `results` has the one result of the command."""
        (result,) = results
        self.waiter.answer(self.number, change_reply(result))

    def failed(self, failure: Failure) -> None:
        """Answer the client with this failure."""
        self.waiter.answer(self.number, failure.reply())


class ReadBatch:
    """Requests that only look (read, stat, list), to be evaluated together."""

    __slots__ = ("_reader", "flush", "numbers", "requests", "waiters")

    def __init__(self, flush: Flush, reader: Reader) -> None:
        self.requests: list[Request] = []
        self.waiters: list[Waiter] = []
        self.numbers: list[int] = []
        self._reader = reader
        self.flush: Final = flush

    def __len__(self) -> int:
        """Count the requests."""
        return len(self.requests)

    def ready(self) -> None:
        """Evaluate every request against the store as it stands now, which thereby must be fresh enough, and answer.

        A few are answered later by themselves: a file that time has run out for, until the store has been told so
        (`Backend.wait_for_clock`); a list of many files; a read by a client that doesn't read what it was sent.
        """
        self._reader.evaluate_all(self.waiters, self.numbers, self.requests)

    def failed(self, failure: Failure) -> None:
        """Answer every request with this failure."""
        reply = failure.reply()
        for waiter, number in zip(self.waiters, self.numbers, strict=True):
            waiter.answer(number, reply)


ClockCallback: TypeAlias = Callable[[Failure | None], None]


class Backend(Protocol):
    """Whatever carries requests out. All methods are called on the event loop's thread and return at once."""

    @property
    def store(self) -> Store:
        """The store, for reading only; the same object for good."""

    def submit(self, batch: ChangeBatch) -> None:
        """Carry out the changes, then complete the batch."""

    def submit_upload(self, upload: Upload) -> None:
        """Carry out one change with a big content, then complete it."""

    def read(self, batch: ReadBatch) -> None:
        """Call ``batch.ready()`` at a moment when the store has every change that was acknowledged before this call."""

    def begin(self) -> None:
        """Begin with what has been handed over; it comes after each pass, so that all of a pass can begin together."""

    def clock_us(self) -> int:
        """Tell the cluster clock as this server extrapolates it; never less than the store's own."""

    def wait_for_clock(self, deadline_us: int, callback: ClockCallback) -> None:
        """Call back once ``store.clock_us >= deadline_us``, possibly at once, or with a failure when that can't be had.

        The callback sends its replies by itself.
        """

    def refusal(self) -> Failure | None:
        """Tell why no change may be accepted at the moment (overload, a full disk, another server leads), if so."""

    def status(self) -> Mapping[str, object]:
        """Give the values of the `status` reply, ready for JSON."""
