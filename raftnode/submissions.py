"""A server's own batches, from being submitted until their results are known (thesis 6.3).

A batch gets its sequence number when it is first proposed, and from then on is proposed again, to this leader
or the next, until it is seen applied: the replicas skip what they have. Proposals go out in sequence within a
window; when it isn't sure that they arrived (another leader, another connection, silence) all of them go again.

Two lanes share the session: pieces of big contents wait in the BULK lane while small batches pass, and only
few bytes of them are on their way at a time, so that a small batch never queues behind a big upload.

A session ends only by an entry in the log, and a batch of an ended session is never applied later. So what was
not seen applied by then was not applied at all, and goes out again under the next session.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Mapping

import attrs

from raftnode.proposals import Propose
from raftnode.replica import Results, Session


class Lane(enum.IntEnum):
    """How a batch is to be treated when there is more to send than there is room."""

    SMALL = 1
    BULK = 2


WINDOW_BYTES = {Lane.SMALL: 16 << 20, Lane.BULK: 1 << 20}
"""Most bytes on their way."""


@attrs.define(slots=True, eq=False)
class Submission:
    """One batch of this server's clients."""

    payload: bytes
    lane: Lane
    done: Callable[[Results], None]
    """Called once, when the batch has been applied, with what the machine gave."""
    sequence: int = 0
    """0 until it was proposed for the first time."""
    withdrawn: bool = False

    @property
    def proposed(self) -> bool:
        """Whether it may be in somebody's log."""
        return self.sequence > 0


class Submissions:
    """See the module's docstring."""

    def __init__(self) -> None:
        """Begin without a session."""
        self.session = 0
        """0 while none is open."""
        self._waiting: dict[Lane, deque[Submission]] = {Lane.SMALL: deque(), Lane.BULK: deque()}
        self._waiting_count = 0
        self._proposed: deque[Submission] = deque()
        self._next_to_send = 0
        """The position in ``_proposed`` from which on nothing was sent to the present leader."""
        self._sequence = 0
        self._window_bytes = {Lane.SMALL: 0, Lane.BULK: 0}
        self.pending_bytes = 0

    def __len__(self) -> int:
        """How many batches have no result yet, withdrawn ones included if they were proposed."""
        return self._waiting_count + len(self._proposed)

    @property
    def is_idle(self) -> bool:
        """Whether no batch waits, neither to be proposed nor to be applied."""
        return not (self._waiting_count or self._proposed)

    @property
    def in_flight(self) -> int:
        """How many are proposed and not seen applied."""
        return len(self._proposed)

    @property
    def acknowledged(self) -> int:
        """All batches up to this sequence number are done with."""
        return self._sequence - len(self._proposed)

    def add(self, submission: Submission) -> None:
        """Take a new batch."""
        self._waiting[submission.lane].append(submission)
        self._waiting_count += 1
        self.pending_bytes += len(submission.payload)

    def withdraw(self, submission: Submission) -> bool:
        """Nobody waits for this one any more. True when it was never proposed: then it won't ever be."""
        submission.withdrawn = True
        if submission.proposed:
            return False
        self._waiting[submission.lane].remove(submission)
        self._waiting_count -= 1
        self.pending_bytes -= len(submission.payload)
        return True

    @property
    def can_take(self) -> bool:
        """Whether ``take`` would give something."""
        if not self.session:
            return False
        if self._next_to_send < len(self._proposed):
            return True
        if self._waiting_count:
            for lane, waiting in self._waiting.items():
                if waiting and self._window_bytes[lane] < WINDOW_BYTES[lane]:
                    return True
        return False

    def take(self) -> list[Propose]:
        """What is to be proposed to the present leader now."""
        if not self.can_take:
            return []
        self._fill_window()
        acknowledged = self.acknowledged
        proposals = [
            Propose(self.session, self._proposed[position].sequence, acknowledged, self._proposed[position].payload)
            for position in range(self._next_to_send, len(self._proposed))
        ]
        self._next_to_send = len(self._proposed)
        return proposals

    def _fill_window(self) -> None:
        for lane, waiting in self._waiting.items():
            while waiting and self._window_bytes[lane] < WINDOW_BYTES[lane]:
                submission = waiting.popleft()
                self._waiting_count -= 1
                self._sequence += 1
                submission.sequence = self._sequence
                self._proposed.append(submission)
                self._window_bytes[lane] += len(submission.payload)

    def send_again(self) -> None:
        """It isn't sure that the leader has what was proposed: propose all of it again."""
        self._next_to_send = 0

    def applied(self, session: int, sequence: int, results: Results) -> None:
        """A batch of some session was applied; if it is this one's, its turn is over."""
        if session != self.session:
            return
        assert self._proposed, "a batch that was never proposed"
        submission = self._proposed.popleft()
        assert submission.sequence == sequence, "batches of a session are applied in sequence"
        if self._next_to_send:
            self._next_to_send -= 1
        self._window_bytes[submission.lane] -= len(submission.payload)
        self.pending_bytes -= len(submission.payload)
        if not submission.withdrawn:
            submission.done(results)

    def session_opened(self, session: int) -> None:
        """A new session is this server's; whatever was proposed under another and not seen applied never will be."""
        self._forget_session()
        self.session = session

    def session_ended(self) -> None:
        """The session is over and no other is open yet."""
        self._forget_session()
        self.session = 0

    def restored(self, session: Session | None) -> None:
        """The replica's state was replaced by a snapshot's, in which this server's session has come so far.

        Batches that were applied meanwhile have their results there. None: this server has no session there.
        """
        if session is None or session.session != self.session:
            if self.session:
                self.session_ended()
            return
        kept: Mapping[int, Results] = session.results
        while self._proposed and self._proposed[0].sequence <= session.sequence:
            sequence = self._proposed[0].sequence
            self.applied(self.session, sequence, kept[sequence])

    def _forget_session(self) -> None:
        for submission in reversed(self._proposed):
            submission.sequence = 0
            if submission.withdrawn:
                self.pending_bytes -= len(submission.payload)
            else:
                self._waiting[submission.lane].appendleft(submission)
                self._waiting_count += 1
        self._proposed.clear()
        self._next_to_send = 0
        self._sequence = 0
        self._window_bytes = {Lane.SMALL: 0, Lane.BULK: 0}
