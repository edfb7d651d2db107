"""AppendEntries: replicating the log, committing, and knowing whether one still leads (thesis 3.5, 3.6.2, 6.2).

A leader gathers submissions and sends when its ready value is drained, so that a batch of events costs one
message per follower. To followers whose log agrees, messages are pipelined within a window; others are
probed. A follower's refusal names the highest index where the logs could still agree, and the leader
skips back by whole terms, so a follower far behind is found in a few round trips.

Heartbeats claim no more than the follower has acknowledged, so they are never refused for what is still
under way and may overtake it. They go at their time whatever else goes, since entries may be a long while on their
way. For the same reason nothing is sent again only because it isn't answered: the follower is asked, behind what
is under way, whether it has all of it, and a refusal says from where on it hasn't.

A follower that has everything, and has said so lately, is told that it needn't answer a heartbeat if it agrees: answers
are most of what an idle leader would be woken by. It still answers at least twice in the longest election timeout,
after which check-quorum would miss it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

from statemachine import disk_entries, reads, snapshots, thrift, transfer
from statemachine.events import PeerConnected, Submit
from statemachine.messages import AppendEntries, AppendEntriesResult, ServerId
from statemachine.progress import Progress, ProgressState
from statemachine.roles import Role

if TYPE_CHECKING:
    from statemachine.raft import Raft

_EmptyMessages: TypeAlias = dict[tuple[int, bool], AppendEntries]
"""Messages without entries that were made in one go, by the index that they claim and whether they need an answer."""
_Batches: TypeAlias = dict[tuple[int, bool], tuple[AppendEntries, int]]
"""Messages with entries that were made in one go, and the entries' bytes; by the index before and whether it probes."""


def become_leader(raft: Raft) -> None:
    """Convert to leader.

    "Upon election: send initial empty AppendEntries RPC (heartbeat) to each server" (Figure 3.1).
    An entry without contents comes first: entries of earlier terms are committed only through one of the
    leader's own term (thesis 3.6.2), and reads wait for it (6.4).
    """
    raft.role = Role.LEADER
    raft.leader_id = raft.server_id
    raft.progress = {
        server: Progress(next_index=raft.log.last_index + 1, last_contact_us=raft.now_us)
        for server in sorted(raft.configuration.members - {raft.server_id})
    }
    raft.thrift = thrift.Thrift()
    raft.round_number = 0
    raft.heartbeat_deadline_us = raft.now_us + raft.options.heartbeat_us
    raft.append_to_log(raft.current_term, (b"",))
    raft.replication_due = True


def submit(raft: Raft, event: Submit) -> None:
    """Take submitted entries, or refuse them.

    "If command received from client: append entry to local log, respond after entry applied to state
    machine" (Figure 3.1).
    """
    if not event.entries:
        return
    if not raft.accepts_submissions:
        raft.output.refused.extend(event.entries)
        return
    raft.append_to_log(raft.current_term, event.entries)
    thrift.submitted(raft, sum(map(len, event.entries)))
    raft.replication_due = True
    for server in event.waiting:
        if server in raft.progress:
            raft.progress[server].commit_wanted = raft.log.last_index


# The leader's side: sending


def send_what_is_due(raft: Raft) -> None:
    """Send entries, heartbeats, commit indexes and snapshot chunks to every follower that can take them."""
    heartbeat, contact = raft.heartbeat_due, raft.contact_due
    if not (heartbeat or contact or raft.replication_due):
        return
    assert raft.hard_state_is_saved, "nobody leads a term that isn't on disk"
    raft.heartbeat_due = raft.contact_due = raft.replication_due = False
    batches: _Batches = {}
    empty: _EmptyMessages = {}
    spares, spared = thrift.spares(raft), False
    last_index, commit_index = raft.log.last_index, raft.commit_index
    rested_since_us = math.inf if contact else _rested_since_us(raft)
    for server, progress in raft.progress.items():
        entries_sent = False
        if progress.state is ProgressState.REPLICATE and progress.next_index > last_index:
            pass  # It has been sent all there is.
        elif progress.state is ProgressState.SNAPSHOT:
            snapshots.send_chunk(raft, server, progress)
        elif spares and thrift.is_spared(raft, server, progress):
            spared = True
        else:
            entries_sent = _send_entries(raft, server, progress, batches)
        if heartbeat or (contact and not entries_sent and thrift.asks(raft, server)):
            _send_heartbeat(raft, server, progress, empty, rested_since_us)
        # The second: it waits for an outcome and doesn't know yet that the log is committed so far.
        if progress.position_due or (progress.commit_wanted > progress.commit_sent < commit_index):
            _send_position(raft, server, progress, empty)
    thrift.sent(raft, spared=spared)


def _send_entries(raft: Raft, server: ServerId, progress: Progress, batches: _Batches) -> bool:
    """Send what the follower has not been sent yet, as far as its window allows. True when a message went.

    "If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at
    nextIndex" (Figure 3.1).
    """
    sent = False
    while _may_send_entries(raft, progress):
        previous = progress.next_index - 1
        if previous < raft.log.base_index:
            snapshots.begin(raft, server, progress)
            break
        probing = progress.state is ProgressState.PROBE
        if previous < raft.log.memory_base and not probing:
            disk_entries.request(raft, server, progress)
            break
        message, size_bytes = _append_entries_from(raft, previous, batches, probing=probing)
        sent = True
        if probing:
            progress.probe_sent = True
            progress.commit_sent = message.leader_commit
            raft.send(server, message, urgent=False)
        else:
            _send_in_order(raft, server, progress, message, size_bytes)
        if probing or progress.next_index > raft.log.last_index:
            break
    return sent


def _send_in_order(raft: Raft, server: ServerId, progress: Progress, message: AppendEntries, size_bytes: int) -> None:
    """Send the next entries, of so many bytes, to a follower whose log agrees."""
    progress.commit_sent = message.leader_commit
    progress.sent(message.prev_log_index + len(message.entries), size_bytes, raft.now_us)
    raft.send(server, message, urgent=False)


def send_entries_from_disk(raft: Raft, server: ServerId, progress: Progress, entries: tuple[bytes, ...]) -> None:
    """Send the next entries to a follower whose log agrees; they were read back, and are of one term."""
    term = raft.log.term_at(progress.next_index)
    assert term is not None, "what is to be read is kept"
    message = _append_entries(raft, progress.next_index - 1, term, entries)
    _send_in_order(raft, server, progress, message, sum(map(len, entries)))


def _may_send_entries(raft: Raft, progress: Progress) -> bool:
    if progress.state is ProgressState.PROBE:
        return not progress.probe_sent
    return (
        progress.state is ProgressState.REPLICATE
        and progress.next_index <= raft.log.last_index
        and progress.inflight_bytes < raft.options.inflight_bytes_max
        and len(progress.inflight) < raft.options.inflight_messages_max
    )


def _append_entries_from(raft: Raft, previous: int, batches: _Batches, *, probing: bool) -> tuple[AppendEntries, int]:
    """The message with the entries behind ``previous``, and their bytes.

    Followers at one index share it, so that it is encoded once. A probe is repeated with every heartbeat, so it has
    entries only if they are small, and in memory.
    """
    batch = batches.get((previous, probing))
    if batch is None:
        term = 0
        entries: tuple[bytes, ...] = ()
        if raft.log.memory_base <= previous < raft.log.last_index:
            bytes_max = raft.options.probe_bytes_max if probing else raft.options.append_bytes_max
            term, entries = raft.log.run_from(previous + 1, bytes_max)
            if probing and len(entries[0]) > bytes_max:
                term, entries = 0, ()
        batch = _append_entries(raft, previous, term, entries), sum(map(len, entries))
        batches[previous, probing] = batch
    return batch


def _append_entries(
    raft: Raft, previous: int, term: int, entries: tuple[bytes, ...], *, may_be_silent: bool = False
) -> AppendEntries:
    previous_term = raft.log.term_at(previous)
    assert previous_term is not None, "an AppendEntries from below the log's first entry"
    return AppendEntries(
        term=raft.current_term,
        leader_id=raft.server_id,
        prev_log_index=previous,
        prev_log_term=previous_term,
        entries_term=term,
        entries=entries,
        leader_commit=raft.commit_index,
        round_number=raft.round_number,
        may_be_silent=may_be_silent,
    )


def _without_entries(raft: Raft, previous: int, empty: _EmptyMessages, *, may_be_silent: bool) -> AppendEntries:
    """A message without entries; followers of whom the same is claimed share it, so that it is encoded once."""
    message = empty.get((previous, may_be_silent))
    if message is None:
        message = _append_entries(raft, previous, 0, (), may_be_silent=may_be_silent)
        empty[previous, may_be_silent] = message
    return message


def _send_heartbeat(
    raft: Raft, server: ServerId, progress: Progress, empty: _EmptyMessages, rested_since_us: float
) -> None:
    """Make contact, claiming only what the follower has acknowledged (or, below the log's beginning, nothing).

    If it has said so since ``rested_since_us``, an answer would tell nothing.
    """
    may_be_silent = (
        progress.last_contact_us > rested_since_us
        and progress.match_index == raft.log.last_index
        and progress.state is ProgressState.REPLICATE
    )
    # A follower below waits for a snapshot; an index that it can't match only makes it answer.
    previous = max(progress.match_index, raft.log.base_index)
    raft.send(server, _without_entries(raft, previous, empty, may_be_silent=may_be_silent))


def _rested_since_us(raft: Raft) -> float:
    """Who has been heard of since then needn't answer a heartbeat, if it has everything."""
    if raft.transfer_target is not None or raft.reads.confirming:
        return math.inf
    return raft.now_us - raft.options.silence_us


def _send_position(raft: Raft, server: ServerId, progress: Progress, empty: _EmptyMessages) -> None:
    """Tell the commit index behind the entries that are under way, and ask whether all has come, if that is due."""
    previous = progress.next_index - 1
    if progress.state is ProgressState.REPLICATE and raft.log.term_at(previous) is not None:
        may_be_silent = not progress.position_due
        progress.position_due = False
        progress.commit_sent = raft.commit_index
        raft.send(server, _without_entries(raft, previous, empty, may_be_silent=may_be_silent), urgent=False)


def heartbeat_timeout(raft: Raft) -> None:
    """Do what is to be done with each heartbeat.

    Repeat it "during idle periods to prevent election timeouts" (Figure 3.1), ask after what may be lost, and step
    down if no majority has answered within an election timeout (check-quorum, thesis 6.2).
    """
    if raft.now_us < raft.heartbeat_deadline_us:
        return
    oldest_us = raft.now_us - raft.options.election_timeout_us_max
    answering = {server for server, progress in raft.progress.items() if progress.last_contact_us >= oldest_us}
    if not raft.configuration.is_quorum(answering | {raft.server_id}):
        raft.become_follower(raft.current_term, None)
        return
    lost_before_us, last_index = raft.now_us - raft.options.election_timeout_us_min, raft.log.last_index
    for progress in raft.progress.values():
        if progress.state is ProgressState.PROBE:
            progress.probe_sent = False
        elif progress.progressed_us < lost_before_us and (progress.inflight or progress.next_index <= last_index):
            _ask_again(raft, progress)
    transfer.hand_over_when_caught_up(raft)
    thrift.choose(raft)
    raft.round_number += 1
    raft.heartbeat_deadline_us = raft.now_us + raft.options.heartbeat_us
    raft.heartbeat_due = True
    raft.replication_due = True


def _ask_again(raft: Raft, progress: Progress) -> None:
    """Nothing of what is under way was answered for an election timeout: it may be lost, or may take long."""
    if progress.state is ProgressState.SNAPSHOT:
        progress.chunk_sent = False
    elif raft.log.term_at(progress.next_index - 1) is None:
        progress.probe(progress.next_index)
    elif progress.inflight:
        progress.progressed_us = raft.now_us
        progress.position_due = True


def peer_connected(raft: Raft, event: PeerConnected) -> None:
    """What was under way on the old connection is lost: find out where that follower stands.

    It is asked about the end of what was sent, not of what it acknowledged: a follower that hasn't acknowledged
    anything to this leader may have it all, and its refusal tells if not.
    """
    progress = raft.progress.get(event.server)
    if progress is not None:
        progress.probe(progress.next_index)
        raft.replication_due = True


# The leader's side: answers


def append_entries_result(raft: Raft, sender: ServerId, message: AppendEntriesResult) -> None:
    """Take a follower's answer.

    "If successful: update nextIndex and matchIndex for follower. If AppendEntries fails because of log
    inconsistency: decrement nextIndex and retry" (Figure 3.1).
    """
    if not answered(raft, sender, message.term, message.round_number):
        return
    progress = raft.progress[sender]
    if message.success:
        _accepted(raft, progress, message.match_index)
    else:
        _refused(raft, progress, message)
    if raft.reads.confirming:
        reads.confirm(raft)


def answered(raft: Raft, sender: ServerId, term: int, round_number: int) -> bool:
    """Note that a follower has answered; False when the answer isn't one to this leadership."""
    if raft.role is not Role.LEADER or term != raft.current_term or sender not in raft.progress:
        return False
    progress = raft.progress[sender]
    progress.last_contact_us = raft.now_us
    progress.acknowledged_round = max(progress.acknowledged_round, round_number)
    return True


def _accepted(raft: Raft, progress: Progress, match_index: int) -> None:
    news = progress.matched(match_index, raft.round_number, raft.now_us)
    if progress.state is ProgressState.PROBE and match_index >= progress.next_index - 1:
        progress.replicate()
        raft.replication_due = True
    elif progress.state is ProgressState.SNAPSHOT and raft.log.term_at(progress.match_index) is not None:
        progress.probe(progress.match_index + 1)
        raft.replication_due = True
    if news:
        if progress.next_index <= raft.log.last_index:
            raft.replication_due = True
        if match_index > raft.commit_index:
            advance_leader_commit(raft)
        if raft.transfer_target is not None:
            transfer.hand_over_when_caught_up(raft)


def _refused(raft: Raft, progress: Progress, message: AppendEntriesResult) -> None:
    """Skip back to where the logs may agree, unless the refusal is of an older message than what is known now.

    A follower never refuses what it has acknowledged in the same term. If it does so in a round that began after
    its acknowledgement was counted, it has lost what it had, and is served from where it is now.
    """
    refused = message.match_index
    if progress.state is ProgressState.SNAPSHOT:
        return
    agreeing = raft.log.last_index_not_after(message.conflict_index, message.conflict_term)
    if message.conflict_index < raft.log.base_index:
        agreeing = message.conflict_index
    agreeing = min(agreeing, refused - 1)
    if refused <= progress.match_index:
        if message.round_number <= progress.matched_round:
            return
        progress.lost_its_tail(agreeing)
    elif progress.state is ProgressState.PROBE and refused != progress.next_index - 1:
        return
    else:
        progress.probe(agreeing + 1)
    raft.replication_due = True


def advance_leader_commit(raft: Raft) -> None:
    """Commit what a majority has; the leader itself counts for what its own disk has.

    "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term ==
    currentTerm: set commitIndex = N" (Figure 3.1).
    """
    own_index, commit_index = raft.persisted_index, raft.commit_index
    # Most of the time too few have come further, which is quicker to see than how far a majority has come.
    further = [server for server, progress in raft.progress.items() if progress.match_index > commit_index]
    if own_index > commit_index:
        further.append(raft.server_id)
    if not raft.configuration.is_quorum(further):
        return
    matches = {server: progress.match_index for server, progress in raft.progress.items()}
    matches[raft.server_id] = own_index
    index = raft.configuration.quorum_value(matches)
    if raft.log.term_at(index) != raft.current_term:
        return
    first_of_term = not raft.committed_in_term
    raft.advance_commit_index(index)
    for progress in raft.progress.values():
        if progress.commit_wanted > progress.commit_sent < index:
            raft.replication_due = True
    if first_of_term:
        reads.committed_in_term(raft)


# The follower's side


def append_entries(raft: Raft, sender: ServerId, message: AppendEntries) -> None:
    """Receive entries from the leader, or its heartbeat.

    1. "Reply false if term < currentTerm."
    2. "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm."
    3. "If an existing entry conflicts with a new one (same index but different terms), delete the existing entry
       and all that follow it."
    4. "Append any new entries not already in the log."
    5. "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)" (Figure 3.1).
    """
    if message.term < raft.current_term:
        raft.answer(sender, _refusal(raft, message))
        return
    raft.heard_from_leader(sender, message.round_number)
    if raft.reads.asked:
        reads.fail_old(raft)
    if message.prev_log_index >= raft.log.base_index:
        if raft.log.term_at(message.prev_log_index) != message.prev_log_term:
            raft.answer(sender, _refusal(raft, message))
            return
        _append_what_is_new(raft, message.prev_log_index + 1, message.entries_term, message.entries)
    else:
        # What the snapshot covers is committed, so it agrees; only what lies behind it can be new (thesis 5.1).
        covered = raft.log.base_index - message.prev_log_index
        _append_what_is_new(raft, raft.log.first_index, message.entries_term, message.entries[covered:])
    match_index = message.prev_log_index + len(message.entries)
    if match_index > raft.verified_index:
        raft.verified_index = min(match_index, raft.log.last_index)
    learn_commit_index(raft, message.leader_commit)
    if message.may_be_silent and match_index <= raft.persisted_index:
        return
    result = AppendEntriesResult(
        raft.current_term,
        success=True,
        match_index=match_index,
        conflict_index=0,
        conflict_term=0,
        round_number=message.round_number,
    )
    if match_index <= raft.persisted_index:
        raft.answer(sender, result)
    else:
        raft.send_after_save(sender, result)


def _append_what_is_new(raft: Raft, first_index: int, term: int, entries: tuple[bytes, ...]) -> None:
    """Steps 3 and 4: entries that stand in the log already are left alone, with all that follows them."""
    if not entries:
        return
    present = raft.log.count_matching(first_index, term, len(entries))
    if present == len(entries):
        return
    first_new = first_index + present
    if first_new <= raft.log.last_index:
        raft.truncate_log(first_new - 1)
    raft.append_to_log(term, entries[present:])
    raft.leader_lives()


def _refusal(raft: Raft, message: AppendEntries) -> AppendEntriesResult:
    conflict_index = raft.log.last_index_not_after(message.prev_log_index, message.prev_log_term)
    conflict_term = raft.log.term_at(conflict_index)
    assert conflict_term is not None, "the log's base has a term"
    return AppendEntriesResult(
        raft.current_term,
        success=False,
        match_index=message.prev_log_index,
        conflict_index=conflict_index,
        conflict_term=conflict_term,
        round_number=message.round_number,
    )


def learn_commit_index(raft: Raft, leader_commit: int) -> None:
    """Step 5. What is committed stays so: an index learned before its entries came counts when they have."""
    if leader_commit > raft.known_commit_index:
        raft.known_commit_index = leader_commit
    if raft.known_commit_index > raft.commit_index < raft.verified_index:
        raft.advance_commit_index(min(raft.known_commit_index, raft.verified_index))
