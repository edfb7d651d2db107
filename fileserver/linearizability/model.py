"""The versioned file as a sequential object: what each request does to it, and which replies it allows.

Theory of operation
    This is the "sequential specification" of Herlihy & Wing 1990. A :class:`FileState` is a file between two
    operations. :meth:`Model.answer` says what state an operation with a known outcome leads to, if that outcome can be;
    :meth:`Model.change` what an operation of unknown outcome leads to, if it takes effect.

    Versions come from a counter of the whole cluster, so within one file they only have to grow. What takes a version
    without telling it (a deletion, an expiry) takes the least possible: that allows all that any other choice allows.

    Time. An operation of a sequence takes effect at some instant of its *window*: not before it, or anything before it
    in the sequence, was called; not after it, or anything after it in the sequence, returned. Cluster time may differ
    from the observer's: a file whose expiry ``e`` is set in the window ``[a, b]`` is still there before
    ``a + e - early_slack_us`` and is gone after ``b + e + late_slack_us``; in between it may be either. An expiry is a
    change of its own, made when something first finds the file gone (:meth:`Model.views`), and nothing undoes it but
    another write: hence no file comes back from the dead.

Invariants
    Versions of the states along a sequence never decrease. A state that is there has the last version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import attrs

from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Deleted,
    Found,
    NotFound,
    Outcome,
    Read,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
    digest_of,
    digest_with,
)

NEVER_US: Final = 1 << 62
"""An instant after all others."""
_SECOND_US: Final = 1_000_000


class FileState(NamedTuple):
    """A file between two operations."""

    version: int
    """0 while there is no such file."""
    last_version: int
    """The least that the counter can be at: the next change has a greater version."""
    size_bytes: int
    digest: str
    gone_from_us: int
    """The earliest deadline that the file may have; `NEVER_US` if it has none."""
    alive_until_us: int
    """The latest deadline that the file may have."""


NO_FILE: Final = FileState(0, 0, 0, "", NEVER_US, NEVER_US)
"""Before the first change."""
_EMPTY: Final = NO_FILE._replace(digest=digest_of(b""))


@attrs.frozen(slots=True)
class Model:
    """The rules of the file, with how far cluster time may be off."""

    early_slack_us: int
    """How much earlier than by the observer's clock a file may expire."""
    late_slack_us: int
    """How much later."""

    def views(self, state: FileState, earliest_us: int, latest_us: int) -> Sequence[FileState]:
        """The state as an operation with this window may find it: as it is, expired, or either."""
        if state.gone_from_us == NEVER_US:
            return (state,)
        expired = NO_FILE._replace(last_version=state.last_version + 1)
        if earliest_us > state.alive_until_us:
            return (expired,)
        return (state, expired) if latest_us >= state.gone_from_us else (state,)

    def answer(
        self, state: FileState, action: Action, outcome: Outcome, earliest_us: int, latest_us: int
    ) -> FileState | None:
        """The state after an operation that had this outcome; None if on this state it can't have it."""
        match outcome:
            case Written(version):
                fits = isinstance(action, Write | Cas | Append) or (
                    isinstance(action, Touch) and state.version == version
                )
                return self.change(state, action, version, earliest_us, latest_us) if fits else None
            case Deleted():
                fits = isinstance(action, Delete)
                return self.change(state, action, 0, earliest_us, latest_us) if fits else None
            case Found(version, size_bytes, digest, seconds_left):
                fits = (
                    isinstance(action, Read | Stat)
                    and 0 < version == state.version
                    and size_bytes == state.size_bytes
                    and digest in (None, state.digest)
                    and _may_be_left(state, seconds_left, earliest_us, latest_us)
                )
            case VersionMismatch(version):
                fits = (
                    isinstance(action, Cas | Delete)
                    and action.expected not in (None, version)
                    and 0 < version == state.version
                )
            case _:
                assert isinstance(outcome, NotFound), "a refusal leaves no trace, and is not asked about"
                fits = state.version == 0 and _needs_a_file(action)
        return state if fits else None

    def change(
        self, state: FileState, action: Action, version: int, earliest_us: int, latest_us: int
    ) -> FileState | None:
        """The state after an action that is carried out, under this version if it takes and tells one.

        None if on this state it isn't carried out, or not with this version.
        """
        match action:
            case Delete(expected):
                if not state.version or expected not in (None, state.version):
                    return None
                return NO_FILE._replace(last_version=state.last_version + 1)
            case Touch(expires_us):
                return self._expiring(state, expires_us, earliest_us, latest_us) if state.version else None
        assert isinstance(action, Write | Cas | Append), "the others change nothing"
        if version <= state.last_version or (isinstance(action, Cas) and action.expected != state.version):
            return None
        old = state if isinstance(action, Append) and state.version else _EMPTY
        changed = FileState(
            version,
            version,
            old.size_bytes + len(action.contents),
            digest_with(old.digest, action.contents),
            old.gone_from_us,
            old.alive_until_us,
        )
        if isinstance(action, Append) and action.keep_expiry:
            return changed
        return self._expiring(changed, action.expires_us, earliest_us, latest_us)

    def _expiring(self, state: FileState, expires_us: int | None, earliest_us: int, latest_us: int) -> FileState:
        """The state with an expiry that is set in this window."""
        if expires_us is None:
            return state._replace(gone_from_us=NEVER_US, alive_until_us=NEVER_US)
        return state._replace(
            gone_from_us=earliest_us + expires_us - self.early_slack_us,
            alive_until_us=latest_us + expires_us + self.late_slack_us,
        )


def _needs_a_file(action: Action) -> bool:
    """Whether the action fails, by the contract, with that there is no such file."""
    return not isinstance(action, Write | Append) and not (isinstance(action, Cas) and action.expected == 0)


def _may_be_left(state: FileState, seconds_left: int, earliest_us: int, latest_us: int) -> bool:
    """Whether so many seconds, rounded up, can remain for a file that is seen in this window."""
    if state.gone_from_us == NEVER_US:
        return seconds_left == 0
    least = -((latest_us - state.gone_from_us) // _SECOND_US)
    most = -((earliest_us - state.alive_until_us) // _SECOND_US)
    return max(least, 1) <= seconds_left <= max(most, 1)
