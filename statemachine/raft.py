"""One server's consensus module: events in, a ready value out.

Theory of operation
-------------------
``Raft`` is a value that changes only in :meth:`Raft.step`. An event carries whatever happened and the time
at which it did; :meth:`Raft.ready` then drains everything that has become necessary since, once for a whole
batch of events. The caller owns the object alone, does what the ready value says in the order that
:mod:`statemachine.ready` gives, and steps ``Timeout`` when :attr:`Raft.deadline_us` has come. No ticks: a
deadline is known exactly, and an idle server sleeps until it.

What depends on a role is in the module named for the RPC; what all roles share is here: terms, changes
of role, the lists of what is to be done.

Invariants (checked after every step by :class:`statemachine.invariants.InvariantChecker` in tests and simulation):
terms and the commit index never decrease; a vote in a term is never changed; an entry at or below the commit
index is never overwritten; ``persisted_index`` never exceeds ``log.last_index``; only a leader has progress.

The package's modules share the fields of this object; callers read ``role``, ``leader_id``, ``current_term``,
``log``, ``commit_index``, ``deadline_us`` and ``progress``, and write none.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs

from statemachine import disk_entries, elections, reads, replication, snapshots, thrift, transfer
from statemachine.configuration import Configuration
from statemachine.events import (
    EntriesRead,
    EntriesRun,
    Event,
    HardState,
    LimitMemory,
    PeerConnected,
    PeerDisconnected,
    Persisted,
    ReadBarrier,
    Receive,
    SnapshotInstalled,
    SnapshotRefused,
    SnapshotTaken,
    Submit,
    Timeout,
    TransferLeadership,
)
from statemachine.log import Log
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
    Message,
    ReadIndex,
    ReadIndexResult,
    RequestVote,
    RequestVoteResult,
    ServerId,
    TimeoutNow,
)
from statemachine.progress import Progress
from statemachine.ready import LogReset, Outgoing, Ready
from statemachine.roles import Options, Restored, Role


@attrs.define(slots=True)
class Save:
    """Entries that a drained ready value told to save, not known yet to be on disk."""

    term: int
    index: int
    good_until: int
    """Once the save is known to be done, the disk agrees with the log up to here: to ``index``, or only to where the
    log was truncated since."""


class Raft:
    """See the module's docstring."""

    def __init__(
        self,
        server_id: ServerId,
        configuration: Configuration,
        options: Options,
        generator: random.Random,
        restored: Restored,
        now_us: int,
    ) -> None:
        """Start as a follower with what the disk had.

        ``generator`` draws the election timeouts and the first number of read barriers, and must not draw the
        same again after a restart; nothing else is random.

        Raises:
            ValueError: the server isn't in the configuration, or what was restored doesn't hang together.
        """
        if server_id not in configuration.members:
            raise ValueError(f"server {server_id} is not in the configuration")
        self.server_id = server_id
        self.configuration = configuration
        self.options = options
        self.generator = generator
        self.now_us = now_us

        self.current_term = restored.hard_state.current_term
        self.voted_for = restored.hard_state.voted_for
        self.snapshot = restored.snapshot
        self.output = Ready()
        self.log, agrees = _restored_log(restored)
        # A snapshot may be of a term that this server hadn't saved yet: of entries that others had committed. Then it
        # has neither voted nor acknowledged anything in that term, since both wait for the save.
        self._hard_state_changed = self.log.base_term > self.current_term
        if self._hard_state_changed:
            self.current_term, self.voted_for = self.log.base_term, None
        if self.log.last_term > self.current_term:
            raise ValueError("the restored log has entries of a later term than the hard state")
        if not agrees:
            # A stop between keeping an installed snapshot and beginning the log behind it, or a snapshot of entries
            # that were committed before this server's own save of them was done. Nothing of that log was
            # acknowledged that the snapshot doesn't hold, and the disk is to agree before more is appended.
            self.output.log_reset = LogReset(self.log.base_index, self.log.base_term)
        self.persisted_index = self.log.last_index
        self.commit_index = self.snapshot.last_included_index if self.snapshot else 0

        self.role = Role.FOLLOWER
        self.leader_id: ServerId | None = None
        self.leader_contact_us: int | None = None
        """When the current leader last showed that it lives."""
        self.leader_round = -1
        """The latest of the current leader's rounds that was heard of."""
        self.votes: set[ServerId] = set()
        self.rejections: set[ServerId] = set()
        self.election_timeout_us = 0
        """As it was drawn last."""
        self.election_deadline_us = 0
        self.verified_index = 0
        """As a follower: up to here the log is known to agree with the current leader's."""
        self.known_commit_index = self.commit_index
        """The highest index that any leader has called committed; this log may not reach it yet."""
        self.incoming: snapshots.Incoming | None = None

        self.progress: dict[ServerId, Progress] = {}
        self.round_number = 0
        self.heartbeat_deadline_us = 0
        self.heartbeat_due = self.contact_due = self.replication_due = False
        self.reads = reads.Reads(generator.getrandbits(62))
        self.thrift = thrift.Thrift()
        self.transfer_target: ServerId | None = None
        self.transfer_deadline_us: int | None = None

        self._hard_state_saving: HardState | None = None
        self._saves: deque[Save] = deque()
        elections.reset_election_deadline(self)

    # What the caller calls

    def step(self, event: Event, now_us: int) -> None:
        """Take one event at the time ``now_us``; what follows from it is in the next ready value."""
        if now_us > self.now_us:
            self.now_us = now_us
        _HANDLERS[type(event)](self, event)

    def ready(self) -> Ready:
        """Drain what is to be done. Called after one or more steps; calling it again at once gives nothing new."""
        if self.role is Role.LEADER:
            if self.reads.gathering and not self.reads.held:
                reads.begin_round_if_due(self)
            replication.send_what_is_due(self)
        drained = self.output
        self.output = Ready()
        drained.commit_index = self.commit_index
        if self._hard_state_changed:
            self._hard_state_changed = False
            drained.hard_state = self._hard_state_saving = HardState(self.current_term, self.voted_for)
        if drained.runs:
            last_index = drained.runs[-1].last_index
            self._saves.append(Save(drained.runs[-1].term, last_index, good_until=last_index))
        return drained

    @property
    def has_output(self) -> bool:
        """Whether ``ready`` would give anything: to ask costs less than an empty ready value."""
        output = self.output
        return bool(
            output.messages
            or output.messages_after_save
            or output.runs
            or self.replication_due
            or self.heartbeat_due
            or (self.reads.gathering and not self.reads.held)
            or output.barriers
            or self._hard_state_changed
            or self.contact_due
            or output.barriers_failed
            or output.refused
            or output.chunks_received
            or output.chunks_to_send
            or output.log_reset
            or output.entries_to_read
        )

    @property
    def deadline_us(self) -> int:
        """When ``Timeout`` is to be stepped next."""
        if self.role is not Role.LEADER:
            return self.election_deadline_us
        deadline_us = self.heartbeat_deadline_us
        if self.transfer_deadline_us is not None:
            deadline_us = min(deadline_us, self.transfer_deadline_us)
        gathered_us = thrift.deadline_us(self)
        if gathered_us is not None and gathered_us < deadline_us:
            return gathered_us
        return deadline_us

    @property
    def is_leader(self) -> bool:
        """Whether this server leads its term, as far as it knows."""
        return self.role is Role.LEADER

    @property
    def gathered_readers(self) -> set[ServerId]:
        """As leader: whose reads are to be confirmed by the next round of contact."""
        return {read.requester for read in self.reads.gathering}

    @property
    def accepts_submissions(self) -> bool:
        """Whether Submit would be taken: this server leads and isn't handing over."""
        return self.role is Role.LEADER and self.transfer_target is None

    @property
    def committed_in_term(self) -> bool:
        """Whether an entry of the current term is committed, so that the commit index is known to be fresh."""
        return self.log.term_at(self.commit_index) == self.current_term

    # Roles and terms

    def become_follower(self, term: int, leader_id: ServerId | None) -> None:
        """Convert to follower, in a later term or in this one (thesis, Figure 3.1, Rules for Servers)."""
        was_follower = self.role is Role.FOLLOWER
        if term > self.current_term:
            self.current_term = term
            self.voted_for = None
            self._new_term()
        if leader_id != self.leader_id:
            reads.fail_asked(self)
        self.leader_id = leader_id
        self.role = Role.FOLLOWER
        self.progress = {}
        self.votes.clear()
        self.rejections.clear()
        reads.fail_all_as_former_leader(self)
        transfer.clear(self)
        if not was_follower:
            elections.reset_election_deadline(self)

    def vote_for(self, candidate: ServerId) -> None:
        """Vote in the current term. It is saved before it is spoken of."""
        assert self.voted_for in (None, candidate), "a vote is never changed within a term"
        if self.voted_for is None:
            self.voted_for = candidate
            self._hard_state_changed = True

    def begin_term(self, term: int) -> None:
        """Enter a term of this server's own making, voting for itself."""
        assert term > self.current_term
        self.current_term = term
        self.voted_for = self.server_id
        self._new_term()

    def _new_term(self) -> None:
        """Nothing is known of the new term's leader."""
        self._hard_state_changed = True
        self.verified_index = 0
        self.leader_contact_us = None
        self.leader_round = -1

    def heard_from_leader(self, leader_id: ServerId, round_number: int) -> None:
        """A valid message of this term's leader came: follow it, and if it begins a round, it lives.

        A message of a round that was heard of before may be an old one come late, or once more, and shows nothing.
        """
        assert self.role is not Role.LEADER, "two leaders in one term"
        if self.role is not Role.FOLLOWER or self.leader_id != leader_id:
            self.become_follower(self.current_term, leader_id)
        if round_number > self.leader_round:
            self.leader_round = round_number
            self.leader_lives()

    def leader_lives(self) -> None:
        """The leader did something that it hadn't done before: put the next election off."""
        if self.leader_contact_us != self.now_us:
            self.leader_contact_us = self.now_us
            elections.put_election_off(self)

    # The lists of what is to be done

    @property
    def hard_state_is_saved(self) -> bool:
        """Whether the current term and vote are known to be on disk."""
        return not self._hard_state_changed and self._hard_state_saving is None

    def send(self, to: ServerId, message: Message, *, urgent: bool = True) -> None:
        """Send what relies on nothing that isn't on disk."""
        self.output.messages.append(Outgoing(to, message, urgent))

    def send_after_save(self, to: ServerId, message: Message) -> None:
        """Send what speaks of something that is to be saved first."""
        self.output.messages_after_save.append(Outgoing(to, message, urgent=True))

    def answer(self, to: ServerId, message: Message) -> None:
        """Send what speaks of nothing but the current term and vote."""
        if self.hard_state_is_saved:
            self.send(to, message)
        else:
            self.send_after_save(to, message)

    def append_to_log(self, term: int, entries: tuple[bytes, ...]) -> None:
        """Append entries to the log's end and tell the caller to save them."""
        self.output.runs.append(EntriesRun(self.log.last_index + 1, term, entries))
        self.log.append(term, entries)

    def truncate_log(self, last_index: int) -> None:
        """Drop all entries behind ``last_index``; saves of them that are under way count for nothing."""
        assert last_index >= self.commit_index, "a committed entry would be dropped"
        assert last_index >= self.verified_index, "an entry that the leader has would be dropped"
        self.log.truncate(last_index)
        self._disk_agrees_until(last_index)

    def reset_log(self, index: int, term: int) -> None:
        """Begin the log behind an installed snapshot, here and on disk."""
        assert self.role is not Role.LEADER, "a leader has all that is committed"
        self.log.reset(index, term)
        self.output.runs.clear()
        self.output.log_reset = LogReset(index, term)
        self.verified_index = 0
        self._disk_agrees_until(0)
        self.persisted_index = index

    def compact_log(self, first_index_kept: int) -> None:
        """Drop entries that a snapshot on disk covers."""
        self.log.compact(first_index_kept)
        self.persisted_index = max(self.persisted_index, self.log.base_index)

    def _disk_agrees_until(self, index: int) -> None:
        self.persisted_index = min(self.persisted_index, index)
        for save in self._saves:
            save.good_until = min(save.good_until, index)

    def advance_commit_index(self, index: int) -> None:
        """Everything up to ``index`` is committed; a lower index than before is no news."""
        assert index <= self.log.last_index, "committed past the end of the log"
        self.commit_index = max(self.commit_index, index)
        self.known_commit_index = max(self.known_commit_index, self.commit_index)

    def saved(self, event: Persisted) -> None:
        """Count what the disk has: entries only as far as the log wasn't truncated since they were drained.

        That the log has an entry of the same term and index again isn't enough: it may have been overwritten and
        restored meanwhile, and the disk be about to do the same. A save that isn't waited for counts for nothing.
        """
        if event.hard_state is not None and event.hard_state == self._hard_state_saving:
            self._hard_state_saving = None
            elections.hard_state_saved(self)
        for done in self._saves:
            if done.index == event.index and done.term == event.term:
                break
        else:
            return
        while self._saves.popleft() is not done:
            pass
        if done.good_until > self.persisted_index:
            self.persisted_index = done.good_until
            if self.role is Role.LEADER:
                replication.advance_leader_commit(self)


def _restored_log(restored: Restored) -> tuple[Log, bool]:
    """The log behind the snapshot, and whether the entries that were found agree with it; none are kept if not.

    Raises:
        ValueError: entries are missing.
    """
    snapshot, runs = restored.snapshot, restored.runs
    index, term = (snapshot.last_included_index, snapshot.last_included_term) if snapshot is not None else (0, 0)
    log = Log(index, term)
    if not runs:
        return log, True
    next_index = runs[0].first_index
    if next_index > index + 1:
        raise ValueError(f"the restored log begins at {next_index}, the snapshot ends at {index}")
    agrees = next_index == index + 1
    for run in runs:
        if run.first_index != next_index:
            raise ValueError(f"the restored log has no entry {next_index}")
        next_index = run.last_index + 1
        agrees = agrees or (run.term == term and run.first_index <= index <= run.last_index)
        if agrees and run.last_index > index:
            log.append(run.term, run.entries[max(index + 1 - run.first_index, 0) :])
    return log, agrees


def _submit(raft: Raft, event: Submit) -> None:
    replication.submit(raft, event)


def _receive(raft: Raft, event: Receive) -> None:
    """Apply the rule on terms that all RPCs share, then the RPC's own (thesis, Figure 3.1, Rules for Servers)."""
    message = event.message
    sender = event.sender
    if message.term > raft.current_term and not _keeps_term(raft, message):
        leads = isinstance(message, AppendEntries | InstallSnapshot)
        raft.become_follower(message.term, sender if leads else None)
    _MESSAGE_HANDLERS[type(message)](raft, sender, message)


def _keeps_term(raft: Raft, message: Message) -> bool:
    """Whether a message of a later term leaves the receiver's term alone.

    A pre-vote only asks, and its grant speaks of a term that hasn't begun (thesis 9.6). A server that hears
    from its leader doesn't let a stray candidate disturb it (thesis 4.2.3).
    """
    if isinstance(message, RequestVote):
        return message.pre_vote or elections.holds_on_to_leader(raft, message)
    return isinstance(message, RequestVoteResult) and message.pre_vote and message.vote_granted


def _timeout(raft: Raft, event: Timeout) -> None:
    if raft.role is Role.LEADER:
        transfer.expire(raft)
        thrift.expire(raft)
        replication.heartbeat_timeout(raft)
    elif raft.now_us >= raft.election_deadline_us:
        elections.election_timeout(raft)


def _persisted(raft: Raft, event: Persisted) -> None:
    raft.saved(event)


_HANDLERS: dict[type, Callable[[Raft, Any], None]] = {
    Submit: _submit,
    Receive: _receive,
    Persisted: _persisted,
    Timeout: _timeout,
    ReadBarrier: reads.read_barrier,
    SnapshotTaken: snapshots.snapshot_taken,
    SnapshotInstalled: snapshots.snapshot_installed,
    SnapshotRefused: snapshots.snapshot_refused,
    LimitMemory: disk_entries.limit_memory,
    EntriesRead: disk_entries.entries_read,
    TransferLeadership: transfer.transfer_leadership,
    PeerConnected: replication.peer_connected,
    PeerDisconnected: elections.peer_disconnected,
}

_MESSAGE_HANDLERS: dict[type, Callable[[Raft, ServerId, Any], None]] = {
    RequestVote: elections.request_vote,
    RequestVoteResult: elections.request_vote_result,
    AppendEntries: replication.append_entries,
    AppendEntriesResult: replication.append_entries_result,
    InstallSnapshot: snapshots.install_snapshot,
    InstallSnapshotResult: snapshots.install_snapshot_result,
    TimeoutNow: transfer.timeout_now,
    ReadIndex: reads.read_index,
    ReadIndexResult: reads.read_index_result,
}
