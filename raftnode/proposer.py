"""Getting batches into the log: this server's own, those that others forward to a leader, sessions, and ticks.

A leader stamps each entry with its reading of the cluster clock as it puts it into the log; stamps never go back.
Any other server sends its batches to the leader, and sends them again when the leader, the term or the connection
changed, or nothing has come of them for a while (:mod:`raftnode.submissions`).

A tick is proposed when the application has something due, no later stamp is in the log, and no batch is being
proposed: an idle cluster writes nothing.

What a leader has to propose may wait a little for the batches of other servers (:mod:`raftnode.expected_batches`). A
server that asks for a read barrier meanwhile is there, too, whether or not it has a batch: its reads go with the round.
"""

from __future__ import annotations

from collections.abc import Callable

from raftnode import entries
from raftnode.cluster_clock import ClusterClock
from raftnode.expected_batches import PATIENCE_US_MAX, ExpectedBatches
from raftnode.forwarding import Forwarded
from raftnode.proposals import Proposals, Propose
from raftnode.replica import BatchApplied, BatchOutOfSequence, Outcome, Replica, SessionOpened
from raftnode.submissions import Submissions
from statemachine.events import Submit
from statemachine.raft import Raft

RESEND_US = 2_000_000
"""Proposals that nothing has come of for so long are sent again."""
MESSAGE_BYTES = 1 << 20
MESSAGE_COUNT = 1024
"""How much goes into one message to the leader."""
OPENS_SESSION = 0
"""The session of a proposal that asks for one; its sequence is the nonce."""


class Proposer:
    """See the module's docstring."""

    def __init__(
        self,
        raft: Raft,
        replica: Replica,
        clock: ClusterClock,
        nonce: int,
        send_to_leader: Callable[[int, Proposals], None],
        round_patience_us_max: int = PATIENCE_US_MAX,
    ) -> None:
        """``nonce`` is drawn by chance for each run of the server, and isn't 0."""
        self.submissions = Submissions()
        self._raft = raft
        self._replica = replica
        self._clock = clock
        self._nonce = nonce
        self._send_to_leader = send_to_leader
        self._forwarded = Forwarded()
        self._round_patience_us_max = round_patience_us_max
        self._expected = ExpectedBatches(round_patience_us_max)
        self._queue: list[tuple[int, Propose]] = []
        """What is to be put into the log, with the server that it comes from."""
        self._last_stamp_us = replica.clock_us
        """The latest that this leader knows to be in the log."""
        self._progress_us = 0
        """When a batch of this server's was last seen applied, or sent while none was under way."""
        self._session_asked_us: int | None = None
        self._await_own_session()

    def forward(self, sender: int, proposals: Proposals) -> None:
        """Another server wants these in the log; it sends them again elsewhere if this server doesn't lead."""
        self._queue += [(sender, proposal) for proposal in proposals.items]

    def leader_changed(self) -> None:
        """Another leader, or another term: what was proposed to the last one may not be in this one's log."""
        self._forwarded.new_term()
        self._expected = ExpectedBatches(self._round_patience_us_max)
        self._last_stamp_us = self._replica.clock_us
        self._session_asked_us = None
        self.submissions.send_again()

    def connected_to_leader(self) -> None:
        """What was under way on the old connection may be lost."""
        self._session_asked_us = None
        self.submissions.send_again()

    def deadline_us(self, read_us: Callable[[], int]) -> int | None:
        """When something is to be proposed though nothing comes: a tick, or what was proposed before.

        ``read_us`` tells the time, if that is needed.
        """
        if self._raft.leader_id is None:
            # Nobody takes proposals. A deadline that has passed, with nothing done about it, would keep the node awake.
            return None
        if self._expected.until_us is not None:
            return self._expected.until_us
        deadline_us = None
        if self.submissions.in_flight:
            deadline_us = self._progress_us + RESEND_US
        elif self._session_asked_us is not None and not self.submissions.session:
            deadline_us = self._session_asked_us + RESEND_US
        if self._raft.accepts_submissions:
            due_us = self._replica.machine.next_deadline_us()
            if due_us is not None and due_us > self._last_stamp_us:
                due_us = read_us() + max(due_us - self._clock.now_us(), 0)
                if deadline_us is None or due_us < deadline_us:
                    return due_us
        return deadline_us

    def waits_for_others(self, now_us: int, *, has_gathered: bool) -> bool:
        """Whether to propose nothing yet, as leader, since batches of other servers are expected any moment.

        ``has_gathered``: there is more of this server's own than what was submitted.
        """
        raft = self._raft
        if not raft.is_leader:
            return False
        waiting = {sender for sender, _ in self._queue} if self._queue else set()
        if has_gathered or self.submissions.can_take:
            waiting.add(raft.server_id)
        if waiting and raft.reads.gathering:
            waiting |= raft.gathered_readers
        return self._expected.are_waited_for(waiting, raft.commit_index, now_us)

    @property
    def awaits_outcomes(self) -> bool:
        """Whether something of this server's own is to be applied yet, or may be: a batch, or its session's opening."""
        return not self.submissions.session or not self.submissions.is_idle

    @property
    def has_more(self) -> bool:
        """Whether ``propose`` would send something now that it could not when it was last called."""
        return self._raft.leader_id is not None and self.submissions.can_take

    def propose(self, now_us: int) -> None:
        """Propose what there is to propose, to whoever leads."""
        raft = self._raft
        if raft.leader_id is None:
            self._queue.clear()
            return
        own = self._take_own(now_us)
        if not raft.is_leader:
            self._queue.clear()
            if own:
                self._send(raft.leader_id, own)
            return
        if own:
            self._queue += [(raft.server_id, proposal) for proposal in own]
        if raft.accepts_submissions:
            self._put_into_log()

    def applied(self, outcome: Outcome, now_us: int) -> None:
        """Something that was proposed, here or elsewhere, has been applied."""
        if isinstance(outcome, BatchApplied):
            self._progress_us = now_us
            self.submissions.applied(outcome.session, outcome.sequence, outcome.results)
        elif isinstance(outcome, BatchOutOfSequence):
            self._forwarded.out_of_sequence(outcome.session)
            if outcome.session == self.submissions.session:
                self.submissions.send_again()
        elif isinstance(outcome, SessionOpened) and outcome.session.server_id == self._raft.server_id:
            if outcome.session.nonce == self._nonce:
                self.submissions.session_opened(outcome.session.session)
            else:
                self.submissions.session_ended()
            self._await_own_session()

    def restored(self) -> None:
        """The replica's state was replaced by a snapshot's."""
        session = self._replica.session_of(self._raft.server_id)
        if session is not None and session.nonce == self._nonce and session.session != self.submissions.session:
            # To ask for one would bring nothing more: the replicas have opened one for this run already.
            self.submissions.session_opened(session.session)
        self.submissions.restored(session)
        self._await_own_session()

    def _await_own_session(self) -> None:
        """Have the replica tell of no other session's batches."""
        self._replica.awaited_session = self.submissions.session

    def _take_own(self, now_us: int) -> list[Propose]:
        submissions = self.submissions
        if not submissions.session:
            if self._session_asked_us is None or now_us >= self._session_asked_us + RESEND_US:
                self._session_asked_us = now_us
                return [Propose(OPENS_SESSION, self._nonce, 0, b"")]
            return []
        if submissions.is_idle:
            return []
        if not submissions.in_flight:
            self._progress_us = now_us
        elif now_us >= self._progress_us + RESEND_US:
            self._progress_us = now_us
            submissions.send_again()
        return submissions.take()

    def _send(self, leader_id: int, own: list[Propose]) -> None:
        group: list[Propose] = []
        size = 0
        for proposal in own:
            if group and (size + len(proposal.payload) > MESSAGE_BYTES or len(group) == MESSAGE_COUNT):
                self._send_to_leader(leader_id, Proposals(tuple(group)))
                group, size = [], 0
            group.append(proposal)
            size += len(proposal.payload)
        self._send_to_leader(leader_id, Proposals(tuple(group)))

    def _put_into_log(self) -> None:
        due_us = self._replica.machine.next_deadline_us()
        if not self._queue and due_us is None:
            return
        stamp_us = max(self._clock.now_us(), self._last_stamp_us)
        queue, self._queue = self._queue, []
        batch = []
        waiting = set()
        for sender, proposal in queue:
            entry = self._entry(stamp_us, sender, proposal)
            if entry is not None:
                batch.append(entry)
                waiting.add(sender)
        if not batch:
            if due_us is None or not self._last_stamp_us < due_us <= stamp_us:
                return
            batch.append(entries.encode_tick(stamp_us))
        self._last_stamp_us = stamp_us
        raft = self._raft
        self._expected.proposed(waiting | raft.gathered_readers, raft.log.last_index + len(batch), raft.now_us)
        raft.step(Submit(tuple(batch), frozenset(waiting - {raft.server_id})), raft.now_us)

    def _entry(self, stamp_us: int, sender: int, proposal: Propose) -> bytes | None:
        if proposal.session == OPENS_SESSION:
            return entries.encode_open_session(stamp_us, sender, proposal.sequence)
        session = self._replica.sessions.get(proposal.session)
        if not self._forwarded.accepts(proposal, session.sequence if session is not None else 0):
            return None
        return entries.encode_batch(
            stamp_us, proposal.session, proposal.sequence, proposal.acknowledged, proposal.payload
        )
