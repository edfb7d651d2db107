"""The requests of the line protocol as values.

Theory of operation
    A :class:`Request` has the five fields of a command of :mod:`fileserver.commands`, in the same order, so that a
    change goes into a batch as ``fields.extend(request)`` with nothing built in between. The operations that change
    nothing have numbers of their own, above those of the commands; they never get into a batch.

Invariants
    ``request.operation <= LAST_CHANGE`` tells a change from the rest.
    A name in a Request has passed the protocol's rules, its numbers are in range, and its content is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from fileserver.commands import DROP
from fileserver.records import Content

LAST_CHANGE: Final = 15
"""Every operation up to here changes the store; those beyond it don't."""
READ: Final = 16
STAT: Final = 17
LIST: Final = 18
STATUS: Final = 19
HELP: Final = 20
QUIT: Final = 21

assert DROP <= LAST_CHANGE

LINE_BYTES_MAX: Final = 499
"""The longest request line, its line end not counted."""
NAME_BYTES_MAX: Final = 250
MAX_FILE_BYTES_DEFAULT: Final = 64 * 1024 * 1024
VERSION_MAX: Final = 2**63 - 1
"""The greatest version that is ever given out; a greater one in a request is taken for it, as neither is any file's."""


class Request(NamedTuple):
    """One well-formed request, complete with its content."""

    operation: int
    """A command of :mod:`fileserver.commands`, or `READ`, `STAT`, `LIST`, `STATUS`, `HELP`, `QUIT`."""
    name: bytes
    """The file's name; the prefix of a `LIST`, empty for all; otherwise empty."""
    argument: int
    """As in a command: the version of a cas or delete, the size limit of an append; otherwise 0."""
    exptime: int
    """As in a command: seconds, 0 for never, -1 for an append that keeps the expiry."""
    content: Content
    """The content of a write, cas or append: a rope of full pieces if longer than PART_BYTES; otherwise empty."""


RequestFields: TypeAlias = tuple[int, bytes, int, int, Content]

make_request: Final[Callable[[RequestFields], Request]] = partial(tuple.__new__, Request)
"""A Request from its fields in half the time that its constructor takes, for the parser's inner loop."""


class BadRequest(NamedTuple):
    """A request that is malformed or over a limit: nothing of it is carried out."""

    why: str
    """For a person; ASCII, with nothing of what the client sent."""
    close: bool
    """True when the end of the request can't be told, so that the conversation ends with the reply."""
