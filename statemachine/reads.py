"""ReadIndex: reads that need no log entry (thesis 6.4).

A read may be answered from applied state once that state includes everything that was committed when the
read began. The leader knows that index, as soon as an entry of its own term is committed (6.4, step 1), and
that it still leads when a majority has answered a round of contact begun after the read (step 3). Rounds are
numbered; at most one is waited for at a time, and the reads that come meanwhile share the next. A round begins
when the ready value is drained, so its messages are all younger than the reads that it confirms. Messages with entries
are as good for it as those without; so a caller that is about to submit some has the reads wait for these (``held``),
which saves a round.

A follower that asks says with it that it was in no later term than the leader's, after its reads began: that is as good
as its answer to a round, for its own reads. Had a later leader been elected before they began, then by a majority that
has a server in common with the leader, the asker and those who answer, and that one would have been in the later term.
So in a cluster of five it takes one more server to confirm a follower's reads, and in one of three none at all.

Barriers are numbered by the asking server and no number is used twice, so a late answer confirms nothing
but what it was given for. Over the network the numbers begin at a random one, so that an answer to what a
server asked before it was restarted isn't taken for one to what it asks now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from statemachine import replication, thrift
from statemachine.events import ReadBarrier
from statemachine.messages import ReadIndex, ReadIndexResult, ServerId
from statemachine.ready import BarrierConfirmed
from statemachine.roles import Role
from statemachine.values import value

if TYPE_CHECKING:
    from statemachine.raft import Raft


@value
class PendingRead:
    """A barrier that the leader is to confirm."""

    requester: ServerId
    barrier: int
    read_index: int
    """The commit index when it was asked for."""


@attrs.define(slots=True)
class Reads:
    """The barriers of one server, by how far they have got."""

    first_number: int
    """What is added to this server's barriers over the network."""
    awaiting_commit: list[PendingRead] = attrs.field(factory=list)
    """As leader: no entry of the current term is committed yet."""
    gathering: list[PendingRead] = attrs.field(factory=list)
    """As leader: to be confirmed by the next round."""
    held: bool = False
    """As leader: no round begins for those that gather, since entries are to be submitted any moment. For the caller to
    set before it drains a ready value, and to take back soon."""
    confirming: list[PendingRead] = attrs.field(factory=list)
    """As leader: confirmed when a majority has answered ``confirming_round``."""
    confirming_round: int = 0
    asked: dict[int, int] = attrs.field(factory=dict)
    """As follower: this server's barriers that the leader was asked about, and when, in microseconds."""


def read_barrier(raft: Raft, event: ReadBarrier) -> None:
    """Begin a barrier of this server's own: here if it leads, otherwise by asking the leader."""
    if raft.role is Role.LEADER:
        _add(raft, raft.server_id, event.barrier)
    elif raft.leader_id is not None:
        raft.reads.asked[event.barrier] = raft.now_us
        raft.answer(raft.leader_id, ReadIndex(raft.current_term, raft.reads.first_number + event.barrier))
    else:
        raft.output.barriers_failed.append(event.barrier)


def read_index(raft: Raft, sender: ServerId, message: ReadIndex) -> None:
    """Confirm another server's barrier, or say at once that this server can't."""
    if raft.role is Role.LEADER:
        _add(raft, sender, message.barrier)
        progress = raft.progress.get(sender)
        if progress is not None and progress.next_index <= raft.commit_index:
            progress.entries_wanted = raft.commit_index
            raft.replication_due = True
    else:
        raft.answer(sender, ReadIndexResult(raft.current_term, message.barrier, read_index=-1))


def read_index_result(raft: Raft, sender: ServerId, message: ReadIndexResult) -> None:
    """The leader has confirmed a barrier, and with it that everything up to its index is committed."""
    barrier = message.barrier - raft.reads.first_number
    if raft.reads.asked.pop(barrier, None) is None:
        return
    if message.read_index < 0:
        raft.output.barriers_failed.append(barrier)
        return
    raft.output.barriers.append(BarrierConfirmed(barrier, message.read_index))
    replication.learn_commit_index(raft, message.read_index)


def _add(raft: Raft, requester: ServerId, barrier: int) -> None:
    """Note which index a barrier stands for.

    "If the leader has not yet marked an entry from its current term committed, it waits until it has done so"
    (6.4, step 1); "the leader saves its current commit index in a local variable readIndex" (step 2).
    """
    read = PendingRead(requester, barrier, raft.commit_index)
    if not raft.committed_in_term:
        raft.reads.awaiting_commit.append(read)
        return
    raft.reads.gathering.append(read)


def begin_round_if_due(raft: Raft) -> None:
    """Begin a round for the barriers that have gathered, of which there are some, unless one is under way.

    "The leader issues a new round of heartbeats and waits for their acknowledgments from a majority" (6.4, step 3).
    """
    pending = raft.reads
    if pending.confirming:
        return
    pending.confirming, pending.gathering = pending.gathering, []
    pending.confirming_round = raft.round_number + 1
    confirm(raft)
    if pending.confirming:
        raft.round_number += 1
        raft.contact_due = True


def confirm(raft: Raft) -> None:
    """Answer those of the barriers that wait for a round that a majority has acknowledged, the asker counted in."""
    pending = raft.reads
    wanted = pending.confirming_round
    answered = [server for server, progress in raft.progress.items() if progress.acknowledged_round >= wanted]
    answered.append(raft.server_id)
    missing = raft.configuration.count_missing(answered)
    if missing > 1:
        return
    confirmed, left = pending.confirming, []
    if missing == 1:
        others = raft.configuration.voters.difference(answered)
        left = [read for read in confirmed if read.requester not in others]
        confirmed = [read for read in confirmed if read.requester in others]
    pending.confirming = left
    if not left:
        thrift.confirmed(raft)
    for read in confirmed:
        if read.requester == raft.server_id:
            raft.output.barriers.append(BarrierConfirmed(read.barrier, read.read_index))
        else:
            raft.answer(read.requester, ReadIndexResult(raft.current_term, read.barrier, read.read_index))


def committed_in_term(raft: Raft) -> None:
    """An entry of the leader's own term is committed: the barriers that waited for that can begin."""
    waiting, raft.reads.awaiting_commit = raft.reads.awaiting_commit, []
    for read in waiting:
        _add(raft, read.requester, read.barrier)


def fail_asked(raft: Raft) -> None:
    """The leader that was asked is no longer followed: those barriers must be asked anew."""
    raft.output.barriers_failed.extend(raft.reads.asked)
    raft.reads.asked.clear()


def fail_old(raft: Raft) -> None:
    """Give up on questions older than an election timeout: the message or its answer was lost."""
    oldest_us = raft.now_us - raft.options.election_timeout_us_min
    lost = [barrier for barrier, asked_us in raft.reads.asked.items() if asked_us < oldest_us]
    for barrier in lost:
        del raft.reads.asked[barrier]
    raft.output.barriers_failed.extend(lost)


def fail_all_as_former_leader(raft: Raft) -> None:
    """Leadership is over: nothing that waited for this leader's confirmation can be answered by it."""
    pending = raft.reads
    for read in [*pending.confirming, *pending.gathering, *pending.awaiting_commit]:
        if read.requester == raft.server_id:
            raft.output.barriers_failed.append(read.barrier)
        else:
            raft.answer(read.requester, ReadIndexResult(raft.current_term, read.barrier, read_index=-1))
    pending.confirming.clear()
    pending.gathering.clear()
    pending.awaiting_commit.clear()
