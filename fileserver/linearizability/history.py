"""What a black-box history is: who asked for what, when, and what came back.

Theory of operation
    A history is a sequence of :class:`Operation`, one for each request that a client made, as the client saw it: the
    instant before the first byte was sent, the instant after the last byte of the reply came, and the reply. Nothing in
    it comes from a server, so that a history judges real processes and simulated ones alike. All instants of a history
    are read from ONE clock that never goes back.

    An operation without a reply (the connection was lost, a time-out, ``ERR_INTERNAL ... outcome unknown``) has no
    return: it may take effect at any instant after its call, or never (Herlihy & Wing 1990, section 2, "pending").
    A client whose request has no reply should go on under another number: one client has one request under way.

    Contents that were sent are kept as they are; of contents that were read the length and a digest are kept.

Invariants
    ``returned_us`` is None if and only if ``outcome`` is.
    An operation returns at its call or later.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import attrs

_PRIME: Final = 2**128 - 159
"""The greatest one of 128 bits."""


def digest_of(contents: bytes) -> str:
    """The digest by which contents are compared: hexadecimal, 128 bits.

    The contents, with a one before them, are a number; the digest is its remainder by a prime. So the digest of a whole
    follows from those of its parts, both ways, which no cryptographic one allows. Nobody attacks a history.
    """
    return f"{int.from_bytes(b'%c%b' % (1, contents)) % _PRIME:032x}"


def digest_with(digest: str, piece: bytes) -> str:
    """The digest of the contents with this one and a piece behind them."""
    return f"{(int(digest, 16) * pow(256, len(piece), _PRIME) + int.from_bytes(piece)) % _PRIME:032x}"


def digest_without(digest: str, piece: bytes) -> str:
    """The digest of what stands before the piece at the end of the contents with this one."""
    return f"{(int(digest, 16) - int.from_bytes(piece)) * pow(256, -len(piece), _PRIME) % _PRIME:032x}"


# What was asked for. `expires_us` is the time from the change on, in microseconds; None for a file that never expires.


@attrs.frozen(slots=True)
class Write:
    """Make the file these contents, whether it is there or not."""

    contents: bytes
    expires_us: int | None = None


@attrs.frozen(slots=True)
class Cas:
    """Write if the file has the version ``expected``; 0 stands for that there is no such file."""

    expected: int
    contents: bytes
    expires_us: int | None = None


@attrs.frozen(slots=True)
class Delete:
    """Take the file away, if it has the version ``expected`` or that is None."""

    expected: int | None = None


@attrs.frozen(slots=True)
class Append:
    """Add to the end of the file, or make it."""

    contents: bytes
    expires_us: int | None = None
    keep_expiry: bool = True
    """The request names no expiry, so it stays as it is (never, if the file is new), and ``expires_us`` is None."""


@attrs.frozen(slots=True)
class Touch:
    """Give the file another expiry; its version stays."""

    expires_us: int | None = None


@attrs.frozen(slots=True)
class Read:
    """Ask for the contents."""


@attrs.frozen(slots=True)
class Stat:
    """Ask for all but the contents."""


Action: TypeAlias = Write | Cas | Delete | Append | Touch | Read | Stat


# What came back.


@attrs.frozen(slots=True)
class Written:
    """``OK <version>``: of a write, cas or append the new version, of a touch the one that the file has."""

    version: int


@attrs.frozen(slots=True)
class Deleted:
    """``OK`` of a delete. The deletion took a version of its own, which the reply doesn't tell."""


@attrs.frozen(slots=True)
class VersionMismatch:
    """``ERR_VERSION``: the file has this version, and was not changed."""

    version: int


@attrs.frozen(slots=True)
class NotFound:
    """``ERR_FILE_NOT_FOUND``: there is no such file."""


@attrs.frozen(slots=True)
class Found:
    """``CONTENTS`` or ``STAT``: the file as it is."""

    version: int
    size_bytes: int
    digest: str | None
    """Of the contents, by :func:`digest_of`; None where they weren't shown, as by a stat, or not looked at."""
    seconds_left: int = 0
    """Whole seconds until it expires, rounded up; 0 only for a file that never does."""


@attrs.frozen(slots=True)
class Refused:
    """Certainly not carried out: ``ERR_BUSY``, ``ERR_CMD_ERR``, ``ERR_REDIRECT``, ``ERR_INTERNAL not applied``."""


Outcome: TypeAlias = Written | Deleted | VersionMismatch | NotFound | Found | Refused


def found(version: int, contents: bytes, seconds_left: int = 0) -> Found:
    """What a read that shows these contents came back with."""
    return Found(version, len(contents), digest_of(contents), seconds_left)


def found_by_stat(version: int, size_bytes: int, seconds_left: int = 0) -> Found:
    """What a stat came back with."""
    return Found(version, size_bytes, None, seconds_left)


@attrs.frozen(slots=True)
class Operation:
    """One request as its client saw it. Instants are microseconds of the observer's one clock.

    Raises:
        ValueError: only one of return and outcome is there, or the return lies before the call.
    """

    client: int
    """Who asked; for people to read, it decides nothing."""
    file: str
    """The file's name. One history speaks of one cluster, so that equal names are the same file."""
    action: Action
    called_us: int
    returned_us: int | None = None
    """None when the outcome is unknown."""
    outcome: Outcome | None = None
    """None when it is unknown."""

    def __attrs_post_init__(self) -> None:
        """See to the invariants."""
        if (self.returned_us is None) != (self.outcome is None):
            raise ValueError("a return without an outcome, or the other way round")
        if self.returned_us is not None and self.returned_us < self.called_us:
            raise ValueError("an operation that returned before it was called")
