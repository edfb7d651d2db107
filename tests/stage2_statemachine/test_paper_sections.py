"""Rules of the thesis that stand in its text or in later figures, one test for each."""

from __future__ import annotations

import random

import attrs
import pytest

from statemachine.configuration import Configuration
from statemachine.events import (
    ReadBarrier,
    Receive,
    SnapshotInstalled,
    SnapshotRefused,
    SnapshotTaken,
    Submit,
    Timeout,
    TransferLeadership,
)
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
    TimeoutNow,
)
from statemachine.progress import ProgressState, SnapshotMeta
from statemachine.raft import Raft
from statemachine.ready import BarrierConfirmed, LogReset
from statemachine.roles import Options, Restored, Role
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import (
    ELECTION_TIMEOUT_US,
    FIVE,
    MS,
    OPTIONS,
    THREE,
    accept,
    entry,
    receive,
    save_all,
    saved,
    sent,
    sent_after_save,
    server,
    step,
    terms_of,
)

# 3.4, elections


def test_election_timeouts_are_chosen_at_random_from_a_fixed_interval() -> None:
    """ "Election timeouts are chosen randomly from a fixed interval" (3.4), anew for each election."""
    raft = Raft(1, THREE, OPTIONS, random.Random(1), Restored(), 0)
    drawn = []
    for _ in range(200):
        before_us = raft.deadline_us
        raft.step(Timeout(), before_us)
        drawn.append(raft.deadline_us - before_us)
    assert min(drawn) >= OPTIONS.election_timeout_us_min
    assert max(drawn) <= OPTIONS.election_timeout_us_max
    assert max(drawn) - min(drawn) > 0.9 * (OPTIONS.election_timeout_us_max - OPTIONS.election_timeout_us_min)


def test_each_server_votes_for_at_most_one_candidate_first_come_first_served() -> None:
    """ "Each server will vote for at most one candidate in a given term, on a first-come-first-served basis" (3.4)."""
    raft = server()
    receive(raft, 3, RequestVote(1, 3, 0, 0))
    assert sent_after_save(receive(raft, 2, RequestVote(1, 2, 9, 1))) == [(2, RequestVoteResult(1, vote_granted=False))]
    assert raft.voted_for == 3


def test_a_leader_votes_for_nobody_else_in_its_term() -> None:
    """A leader has voted for itself (daos-stack/raft#70)."""
    raft = states.leader(term=4)
    assert sent(receive(raft, 2, RequestVote(4, 2, 9, 4))) == [(2, RequestVoteResult(4, vote_granted=False))]


# 3.5, replication


def test_a_leader_never_overwrites_its_log() -> None:
    """ "A leader never overwrites or deletes entries in its own log" (Leader Append-Only, 3.5)."""
    raft = states.leader((1, 1), term=4)
    with pytest.raises(AssertionError, match="two leaders in one term"):
        receive(raft, 2, AppendEntries(4, 2, 1, 1, 4, (b"x",), 0, 0))
    assert terms_of(raft) == [1, 1, 4]


def test_entries_of_one_message_are_of_one_term() -> None:
    """AppendEntries carries one term, so a log of several terms goes in several messages."""
    raft = states.leader((1, 1, 2, 3, 3), term=4)
    accept(raft, 2, index=0)
    receive(raft, 2, AppendEntriesResult(4, False, 5, 0, 0, 0))
    accept(raft, 2, index=2)
    messages = [message for _, message in sent(raft.ready())]
    assert [(m.prev_log_index, m.entries_term, len(m.entries)) for m in messages if isinstance(m, AppendEntries)] == [
        (2, 2, 1),
        (3, 3, 2),
        (5, 4, 1),
    ]


# 3.10, leadership transfer


def test_a_leader_that_hands_over_takes_no_submissions() -> None:
    """ "1. The prior leader stops accepting new client requests"."""
    raft = states.leader(term=4)
    step(raft, TransferLeadership(2))
    assert not raft.accepts_submissions
    assert step(raft, Submit((b"x",))).refused == [b"x"]


def test_a_leader_that_hands_over_brings_the_target_up_to_date_first() -> None:
    """ "2. The prior leader fully updates the target server's log ... 3. sends a TimeoutNow request"."""
    raft = states.leader(term=4)
    assert sent(step(raft, TransferLeadership(2))) == []
    accept(raft, 3)
    assert sent(raft.ready()) == []
    accept(raft, 2)
    assert (2, TimeoutNow(4)) in sent(raft.ready())


def test_without_a_name_the_voter_furthest_along_is_the_target() -> None:
    raft = states.leader(term=4, configuration=Configuration(voters=(1, 2, 3), learners=(4,)))
    accept(raft, 3, 4)
    assert sent(step(raft, TransferLeadership())) == [(3, TimeoutNow(4))]
    assert raft.transfer_target == 3


def test_nobody_is_the_target_when_nobody_has_answered_lately() -> None:
    raft = states.leader(term=4)
    step(raft, TransferLeadership(), 3 * OPTIONS.heartbeat_us)
    assert raft.transfer_target is None
    assert raft.accepts_submissions


def test_a_transfer_that_takes_an_election_timeout_is_given_up() -> None:
    """ "If leadership transfer does not complete after about an election timeout, the prior leader aborts the transfer
    and resumes accepting client requests" (3.10)."""
    raft = states.leader(term=4)
    step(raft, TransferLeadership(2))
    accept(raft, 3)
    give_up_us = raft.now_us + ELECTION_TIMEOUT_US
    while raft.now_us < give_up_us:
        assert not raft.accepts_submissions
        assert raft.deadline_us > raft.now_us
        raft.step(Timeout(), raft.deadline_us)
        accept(raft, 2, 3)
    assert raft.now_us == give_up_us
    assert raft.accepts_submissions


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(5, 3, 0, 0, 0, (), 0, 0),
        RequestVote(5, 2, 9, 9, leadership_transfer=True),
        AppendEntriesResult(5, False, 0, 0, 0, 0),
    ],
    ids=["other leader", "target campaigns", "later term"],
)
def test_a_transfer_is_forgotten_on_every_way_out_of_leadership(message: Message) -> None:
    """A server that leads again later isn't still handing over (hashicorp/raft#696)."""
    raft = states.leader(term=4)
    step(raft, TransferLeadership(2))
    receive(raft, 3, message)
    assert (raft.role, raft.transfer_target, raft.transfer_deadline_us) == (Role.FOLLOWER, None, None)


def test_a_learner_does_not_campaign() -> None:
    """Neither by itself nor when it is told (4.2.1)."""
    raft = Raft(4, Configuration(voters=(1, 2, 3), learners=(4,)), OPTIONS, random.Random(0), Restored(), 0)
    receive(raft, 1, AppendEntries(1, 1, 0, 0, 0, (), 0, 0))
    save_all(raft)
    assert sent(receive(raft, 1, TimeoutNow(1))) == []
    deadline_us = raft.deadline_us
    raft.step(Timeout(), deadline_us)
    assert output_is_empty(raft)
    assert (raft.role, raft.leader_id) == (Role.FOLLOWER, 1)
    assert raft.deadline_us > deadline_us


def output_is_empty(raft: Raft) -> bool:
    return states.output_of(raft.ready()) == {}


# 4.2.3, disruptive servers; 9.6, pre-vote; 6.2, check-quorum


def test_a_server_that_hears_a_leader_does_not_help_replace_it() -> None:
    """ "If a server receives a RequestVote request within the minimum election timeout of hearing from a current
    leader, it does not update its term or grant its vote" (4.2.3)."""
    raft = states.follower(term=4)
    assert sent(receive(raft, 3, RequestVote(5, 3, 9, 9), ELECTION_TIMEOUT_US - 1)) == []
    assert raft.current_term == 4
    ready = receive(raft, 3, RequestVote(5, 3, 9, 9), 1)
    assert sent_after_save(ready) == [(3, RequestVoteResult(5, vote_granted=True))]


def test_a_pre_vote_changes_nothing_on_either_side() -> None:
    """ "In the Pre-Vote algorithm, a candidate only increments its term if it first learns from a majority of the
    cluster that they would be willing to grant the candidate their votes" (9.6)."""
    asked = server(term=4)
    receive(asked, 3, RequestVote(9, 3, 0, 0, pre_vote=True))
    assert (asked.current_term, asked.voted_for, asked.deadline_us) == (4, None, ELECTION_TIMEOUT_US)
    asking = states.pre_candidate(term=4)
    assert (asking.current_term, asking.voted_for) == (4, None)


def test_a_granted_pre_vote_has_the_term_that_was_asked_about() -> None:
    """Otherwise a candidate of a later term than the voters' would ignore their answers (etcd#8243)."""
    raft = server(term=4)
    ready = receive(raft, 3, RequestVote(9, 3, 0, 0, pre_vote=True))
    assert sent(ready) == [(3, RequestVoteResult(9, vote_granted=True, pre_vote=True))]


def test_a_grant_of_another_pre_vote_than_this_is_ignored() -> None:
    raft = states.pre_candidate(term=4)
    receive(raft, 3, RequestVoteResult(9, vote_granted=True, pre_vote=True))
    assert (raft.role, raft.current_term, raft.votes) == (Role.PRE_CANDIDATE, 4, {1})


def test_a_leader_steps_down_when_it_hears_from_no_majority() -> None:
    """ "A leader steps down if an election timeout elapses without a successful round of heartbeats to a majority of
    its cluster" (6.2)."""
    raft = states.leader(term=4, configuration=FIVE)
    elected_us = raft.now_us
    while raft.is_leader:
        raft.step(Timeout(), raft.deadline_us)
        if raft.is_leader:
            accept(raft, 2)
    assert raft.now_us - elected_us > OPTIONS.election_timeout_us_max
    assert raft.now_us - elected_us <= OPTIONS.election_timeout_us_max + OPTIONS.heartbeat_us
    assert (raft.leader_id, raft.current_term) == (None, 4)
    assert raft.deadline_us > raft.now_us


def test_a_leader_that_hears_a_majority_leads_on() -> None:
    raft = states.leader(term=4, configuration=FIVE)
    for _ in range(30):
        raft.step(Timeout(), raft.deadline_us)
        accept(raft, 2, 3)
    assert raft.is_leader


def test_learners_do_not_count_for_the_leaders_majority() -> None:
    raft = states.leader(term=4, configuration=Configuration(voters=(1, 2, 3), learners=(4, 5)))
    for _ in range(10):
        raft.step(Timeout(), raft.deadline_us)
        accept(raft, 4, 5)
    assert not raft.is_leader


def test_a_repeated_heartbeat_does_not_hide_that_the_leader_is_dead() -> None:
    """Only a round that wasn't heard of before, or new entries, put the election off (libraft#16)."""
    raft = states.follower(term=4)
    heartbeat = AppendEntries(4, 2, 0, 0, 0, (), 0, 1)
    receive(raft, 2, heartbeat, 50 * MS)
    deadline_us = raft.deadline_us
    receive(raft, 2, heartbeat, 50 * MS)
    receive(raft, 2, attrs.evolve(heartbeat, round_number=0), 50 * MS)
    assert raft.deadline_us == deadline_us
    receive(raft, 2, attrs.evolve(heartbeat, entries_term=4, entries=(b"x",)), 50 * MS)
    assert raft.deadline_us == 200 * MS + ELECTION_TIMEOUT_US


def test_a_server_of_a_later_term_tells_a_stale_leader() -> None:
    """A follower that has got into a later term answers an older leader, which then steps down (etcd-io/raft Step)."""
    follower = server(term=7)
    [(_, answer)] = sent(receive(follower, 2, AppendEntries(4, 2, 0, 0, 0, (), 0, 0)))
    leader = states.leader(term=4)
    receive(leader, 2, answer)
    assert (leader.role, leader.current_term) == (Role.FOLLOWER, 7)


# 5.1, snapshots


def leader_with_snapshot(size: int = 25, chunk: int = 10) -> Raft:
    """Its log begins at 4; follower 2 has refused everything and is sent the snapshot."""
    options = attrs.evolve(OPTIONS, snapshot_chunk_bytes=chunk)
    raft = states.leader((1, 1, 1), term=4, options=options)
    accept(raft, 3)
    save_all(raft)
    step(raft, SnapshotTaken(3, 1, size, 4))
    return raft


def snapshot_chunks(raft: Raft) -> list[tuple[int, int, int, bool]]:
    return [(c.to, c.header.offset, c.length, c.header.done) for c in raft.ready().chunks_to_send]


def answer_chunk(raft: Raft, offset: int, *, installed: bool = False) -> None:
    raft.step(Receive(2, InstallSnapshotResult(4, 3, offset, installed, 0)), raft.now_us)


def test_a_follower_behind_the_logs_beginning_is_sent_the_snapshot() -> None:
    """ "The leader must occasionally send snapshots to followers that lag behind ... when the leader has already
    discarded the next log entry that it needs to send" (5.1), one chunk at a time."""
    raft = leader_with_snapshot()
    receive_refusal(raft)
    assert snapshot_chunks(raft) == [(2, 0, 10, False)]
    assert snapshot_chunks(raft) == []
    answer_chunk(raft, 10)
    assert snapshot_chunks(raft) == [(2, 10, 10, False)]
    answer_chunk(raft, 20)
    assert snapshot_chunks(raft) == [(2, 20, 5, True)]
    answer_chunk(raft, 0, installed=True)
    ready = raft.ready()
    assert sent(ready) == [(2, AppendEntries(4, 1, 3, 1, 4, (b"",), 4, 0))]
    assert raft.progress[2].match_index == 3


def receive_refusal(raft: Raft) -> None:
    raft.step(Receive(2, AppendEntriesResult(4, False, 3, 0, 0, 0)), raft.now_us)


def test_a_repeated_answer_sends_no_chunk_twice() -> None:
    raft = leader_with_snapshot()
    receive_refusal(raft)
    snapshot_chunks(raft)
    answer_chunk(raft, 10)
    assert len(snapshot_chunks(raft)) == 1
    answer_chunk(raft, 10)
    assert snapshot_chunks(raft) == []


def test_an_answer_for_another_snapshot_is_ignored() -> None:
    raft = leader_with_snapshot()
    receive_refusal(raft)
    snapshot_chunks(raft)
    raft.step(Receive(2, InstallSnapshotResult(4, 2, 10, False, 0)), raft.now_us)
    assert snapshot_chunks(raft) == []


def test_refusals_are_ignored_while_a_snapshot_is_sent() -> None:
    raft = leader_with_snapshot()
    receive_refusal(raft)
    raft.ready()
    receive_refusal(raft)
    assert raft.progress[2].state is ProgressState.SNAPSHOT


def test_a_follower_that_turns_out_to_have_the_log_needs_no_snapshot_any_more() -> None:
    raft = leader_with_snapshot()
    receive_refusal(raft)
    raft.ready()
    progress = raft.progress[2]
    found = []
    for index in (2, 3):
        accept(raft, 2, index=index)
        found.append(progress.state)
    assert found == [ProgressState.SNAPSHOT, ProgressState.PROBE]


def test_heartbeats_go_on_during_a_snapshot() -> None:
    """So that a long transfer costs no election (canonical/raft#179)."""
    raft = leader_with_snapshot()
    receive_refusal(raft)
    raft.ready()
    raft.step(Timeout(), raft.deadline_us)
    assert (2, AppendEntries(4, 1, 3, 1, 0, (), 4, 1)) in sent(raft.ready())


def test_a_chunk_is_sent_again_when_it_is_not_answered() -> None:
    raft = leader_with_snapshot()
    receive_refusal(raft)
    snapshot_chunks(raft)
    sent_us = raft.now_us
    while not snapshot_chunks(raft):
        raft.step(Timeout(), raft.deadline_us)
        accept(raft, 3)
    assert ELECTION_TIMEOUT_US < raft.now_us - sent_us <= ELECTION_TIMEOUT_US + 2 * OPTIONS.heartbeat_us


def test_a_follower_whose_next_entries_are_compacted_while_its_window_is_full_gets_the_snapshot() -> None:
    """The commit index isn't told with an entry that isn't in the log any more."""
    raft = states.leader(term=4, options=attrs.evolve(OPTIONS, inflight_messages_max=1))
    accept(raft, 2, 3)
    saved(raft, step(raft, Submit((b"a",))))
    saved(raft, step(raft, Submit((b"b", b"c"), waiting=frozenset({2}))))
    accept(raft, 3, index=2)
    raft.ready()
    accept(raft, 3)
    step(raft, SnapshotTaken(4, 4, 5, 5))
    while raft.progress[2].state is not ProgressState.SNAPSHOT:
        raft.step(Timeout(), raft.deadline_us)
        accept(raft, 3)
        raft.ready()
    assert raft.is_leader


def chunk(index: int, offset: int, *, done: bool = False, leader: int = 2, term: int = 5) -> InstallSnapshot:
    return InstallSnapshot(term, leader, index, 4, offset, b"12345", done, 0)


def wanted(raft: Raft, message: InstallSnapshot) -> list[int | str]:
    """What a follower answers to a chunk: the next byte, or that it is installed; and that it keeps the chunk."""
    ready = receive(raft, message.leader_id, message)
    answers: list[int | str] = []
    for _, each in sent_after_save(ready):
        assert isinstance(each, InstallSnapshotResult)
        answers.append("installed" if each.installed else each.offset)
    return answers + ["kept"] * len(ready.chunks_received)


def test_chunks_are_taken_in_order_and_asked_for() -> None:
    """ "2. Create new snapshot file if first chunk (offset is 0). 3. Write data into snapshot file at given offset. 4.
    Reply and wait for more data chunks if done is false" (Figure 5.3)."""
    raft = states.follower(term=5)
    assert wanted(raft, chunk(8, 5)) == [0]
    assert wanted(raft, chunk(8, 0)) == [5, "kept"]
    assert wanted(raft, chunk(8, 0)) == [5]
    assert wanted(raft, chunk(8, 10)) == [5]
    assert wanted(raft, chunk(8, 5, done=True)) == ["kept"]


def test_another_snapshot_begins_anew() -> None:
    """One is identified by its index, term and leader: files of two leaders need not be the same bytes."""
    raft = states.follower(term=5)
    assert wanted(raft, chunk(8, 0)) == [5, "kept"]
    assert wanted(raft, chunk(9, 5)) == [0]
    assert wanted(raft, chunk(9, 0)) == [5, "kept"]
    assert wanted(raft, chunk(9, 5, term=6, leader=3)) == [0]


def test_no_chunk_is_taken_while_a_snapshot_is_loaded() -> None:
    """The caller has the file of the one that is complete."""
    raft = states.follower(term=5)
    wanted(raft, chunk(8, 0, done=True))
    assert wanted(raft, chunk(8, 0, done=True)) == []
    assert wanted(raft, chunk(9, 0)) == []
    assert sent_after_save(step(raft, SnapshotInstalled(8, 4, 5))) == [(2, InstallSnapshotResult(5, 8, 0, True, 0))]
    assert wanted(raft, chunk(9, 0)) == [5, "kept"]
    assert wanted(raft, chunk(8, 0)) == ["installed"]


def test_a_damaged_snapshot_is_asked_for_anew() -> None:
    raft = states.follower(term=5)
    wanted(raft, chunk(8, 0, done=True))
    assert sent_after_save(step(raft, SnapshotRefused(8))) == [(2, InstallSnapshotResult(5, 8, 0, False, 0))]
    assert (raft.commit_index, raft.snapshot) == (0, None)
    assert wanted(raft, chunk(8, 0)) == [5, "kept"]


def test_a_snapshot_is_not_answered_for_to_another_leader() -> None:
    raft = states.follower(term=5)
    wanted(raft, chunk(8, 0, done=True))
    receive(raft, 3, AppendEntries(6, 3, 0, 0, 0, (), 0, 0))
    assert sent_after_save(step(raft, SnapshotInstalled(8, 4, 5))) == []
    assert raft.commit_index == 8


def test_an_installed_snapshot_keeps_the_log_behind_an_entry_that_it_has() -> None:
    """ "5. If existing log entry has same index and term as snapshot's last included entry, retain log entries
    following it" (Figure 5.3)."""
    raft = states.follower((1, 1, 1, 1), term=5)
    ready = step(raft, SnapshotInstalled(3, 1, 9))
    assert (terms_of(raft), raft.log.base_index, raft.commit_index, ready.log_reset) == ([1], 3, 3, None)


@pytest.mark.parametrize("terms", [(1, 1), (1, 1, 2, 2, 2)])
def test_an_installed_snapshot_otherwise_discards_the_whole_log(terms: tuple[int, ...]) -> None:
    """ "6. Discard the entire log" (Figure 5.3): also what is behind an entry of another term (hashicorp/raft#697)."""
    raft = states.follower(terms, term=5)
    receive(raft, 2, AppendEntries(5, 2, 0, 0, 1, (b"unsaved",), 0, 1))
    ready = step(raft, SnapshotInstalled(3, 1, 9))
    assert (terms_of(raft), raft.log.last_index, raft.commit_index, raft.persisted_index) == ([], 3, 3, 3)
    assert (ready.log_reset, ready.runs) == (LogReset(3, 1), [])


def test_an_older_snapshot_changes_nothing() -> None:
    """Neither one installed nor one taken moves the newest back (hashicorp/raft#248)."""
    raft = states.follower((1, 1, 1, 1), term=5)
    receive(raft, 2, AppendEntries(5, 2, 4, 1, 0, (), 4, 1))
    step(raft, SnapshotTaken(4, 1, 10, 5))
    before = states.state_of(raft)
    step(raft, SnapshotInstalled(3, 1, 9))
    step(raft, SnapshotTaken(2, 1, 9, 3))
    assert states.state_of(raft) == before


def test_entries_before_a_snapshot_may_be_kept_for_slow_followers() -> None:
    raft = leader_with_snapshot()
    saved(raft, step(raft, Submit((b"x",))))
    accept(raft, 3)
    step(raft, SnapshotTaken(5, 4, 9, first_index_kept=5))
    assert (raft.log.first_index, raft.snapshot) == (5, SnapshotMeta(5, 4, 9))


def test_a_snapshot_of_what_is_not_committed_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="isn't committed"):
        step(states.follower((1,), term=5), SnapshotTaken(1, 1, 9, 2))


def test_what_a_snapshot_covers_is_no_conflict() -> None:
    """An AppendEntries from before the log's beginning agrees as far as the snapshot goes (openraft#511)."""
    raft = states.follower((4, 4), term=5, snapshot=SnapshotMeta(3, 4, 9))
    entries = tuple(entry(index, 4) for index in range(2, 7))
    ready = receive(raft, 2, AppendEntries(5, 2, 1, 1, 4, entries, 9, 1))
    assert terms_of(raft) == [4, 4, 4]
    assert raft.log.entries(6, 6) == [entry(6, 4)]
    assert sent_after_save(ready) == [(2, AppendEntriesResult(5, True, 6, 0, 0, 1))]
    old = receive(raft, 2, AppendEntries(5, 2, 0, 0, 1, (b"old",), 9, 1))
    assert sent(old) == [(2, AppendEntriesResult(5, True, 1, 0, 0, 1))]
    assert raft.log.last_index == 6


# 6.4, reads


def test_a_read_waits_for_an_entry_of_the_leaders_term() -> None:
    """ "1. If the leader has not yet marked an entry from its current term committed, it waits until it has done
    so"."""
    raft = states.leader(term=4)
    ready = step(raft, ReadBarrier(1))
    assert sent(ready) == []
    accept(raft, 2)
    ready = raft.ready()
    assert (2, AppendEntries(4, 1, 1, 4, 0, (), 1, 1)) in sent(ready)
    accept(raft, 2)
    assert raft.ready().barriers == [BarrierConfirmed(1, read_index=1)]


def test_a_read_waits_for_a_round_begun_after_it() -> None:
    """ "3. The leader issues a new round of heartbeats and waits for their acknowledgments from a majority": an
    answer to an earlier one confirms nothing."""
    raft = states.leader(term=4, configuration=FIVE)
    accept(raft, 2, 3)
    step(raft, ReadBarrier(1))
    accept(raft, 2, 3, 4, 5, round_number=0)
    assert raft.ready().barriers == []
    accept(raft, 2, round_number=1)
    accept(raft, 2, round_number=1)
    assert raft.ready().barriers == []
    accept(raft, 5, round_number=1)
    assert raft.ready().barriers == [BarrierConfirmed(1, 1)]


def test_reads_of_one_batch_share_a_round_and_later_ones_the_next() -> None:
    """ "The leader can use a single round of heartbeats for any number of read-only queries that it has
    accumulated"."""
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    raft.step(ReadBarrier(1), raft.now_us)
    receive(raft, 2, ReadIndex(4, 50))
    receive(raft, 3, ReadIndex(4, 60))
    step(raft, ReadBarrier(2))
    accept(raft, 2, round_number=1)
    ready = raft.ready()
    assert ready.barriers == [BarrierConfirmed(1, 1)]
    assert sent(ready)[0] == (2, ReadIndexResult(4, 50, 1))
    accept(raft, 3, round_number=2)
    ready = raft.ready()
    assert ready.barriers == [BarrierConfirmed(2, 1)]
    assert sent(ready)[0] == (3, ReadIndexResult(4, 60, 1))


def test_a_leader_that_loses_its_office_fails_the_reads_that_it_has() -> None:
    raft = states.leader(term=4)
    step(raft, ReadBarrier(1))
    accept(raft, 2)
    step(raft, ReadBarrier(2))
    receive(raft, 3, ReadIndex(4, 70))
    ready = receive(raft, 2, AppendEntriesResult(5, False, 0, 0, 0, 0))
    assert ready.barriers_failed == [1, 2]
    assert sent_after_save(ready) == [(3, ReadIndexResult(5, 70, -1))]


def test_a_follower_asks_its_leader_and_learns_the_commit_index() -> None:
    """Followers' reads: "the follower could issue a request to the leader that just asked for a current readIndex"."""
    raft = states.follower((1, 1), term=5)
    receive(raft, 2, AppendEntries(5, 2, 2, 1, 0, (), 0, 1))
    assert sent(step(raft, ReadBarrier(1))) == [(2, ReadIndex(5, 1))]
    ready = receive(raft, 2, ReadIndexResult(5, 1, 2))
    assert (ready.barriers, ready.commit_index) == ([BarrierConfirmed(1, 2)], 2)
    assert receive(raft, 2, ReadIndexResult(5, 1, 2)).barriers == []


def test_a_follower_whose_leader_cannot_tell_asks_anew() -> None:
    raft = states.follower(term=5)
    step(raft, ReadBarrier(1))
    assert receive(raft, 2, ReadIndexResult(5, 1, -1)).barriers_failed == [1]


def test_a_followers_read_fails_when_it_follows_another() -> None:
    raft = states.follower(term=5)
    step(raft, ReadBarrier(1))
    assert receive(raft, 3, AppendEntries(6, 3, 0, 0, 0, (), 0, 0)).barriers_failed == [1]


def test_a_followers_read_fails_when_it_is_not_answered() -> None:
    """The question or its answer was lost."""
    raft = states.follower(term=5)
    step(raft, ReadBarrier(1))
    step(raft, ReadBarrier(2), ELECTION_TIMEOUT_US)
    ready = receive(raft, 2, AppendEntries(5, 2, 0, 0, 0, (), 0, 1), 1)
    assert ready.barriers_failed == [1]


def test_an_answer_from_before_a_restart_confirms_nothing() -> None:
    """Barriers are numbered anew after a restart, but not over the network (etcd#20418)."""

    def ask(boot: int) -> tuple[Raft, int]:
        raft = Raft(1, THREE, OPTIONS, random.Random(boot), Restored(), 0)
        receive(raft, 2, AppendEntries(0, 2, 0, 0, 0, (), 0, 0))
        [(_, question)] = sent(step(raft, ReadBarrier(1)))
        assert isinstance(question, ReadIndex)
        assert question.barrier < 2**63
        return raft, question.barrier

    _, old_number = ask(boot=1)
    raft, number = ask(boot=2)
    assert old_number != number
    assert receive(raft, 2, ReadIndexResult(0, old_number, 0)).barriers == []
    assert receive(raft, 2, ReadIndexResult(0, number, 0)).barriers == [BarrierConfirmed(1, 0)]


def test_a_single_server_needs_nobody_to_answer_reads() -> None:
    raft = states.leader(term=1, configuration=Configuration(voters=(1,)))
    assert step(raft, ReadBarrier(1)).barriers == [BarrierConfirmed(1, 1)]


# Limits


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ({"election_timeout_us_min": 500, "election_timeout_us_max": 400, "heartbeat_us": 100}, "range is empty"),
        ({"election_timeout_us_min": 0, "election_timeout_us_max": 0, "heartbeat_us": 100}, "range is empty"),
        ({"election_timeout_us_min": 100, "election_timeout_us_max": 200, "heartbeat_us": 100}, "shorter"),
        ({"heartbeat_us": 0}, "shorter"),
    ],
)
def test_times_that_could_never_work_are_refused(times: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Options(**times)


def test_a_probe_that_is_repeated_carries_no_big_entry() -> None:
    big = b"a" * 11
    raft = states.leader(term=4, options=attrs.evolve(OPTIONS, probe_bytes_max=10))
    accept(raft, 2)
    save_all(raft)
    saved(raft, step(raft, Submit((b"small", big))))
    # A refusal of what was sent: the first entry that may be missing is small.
    ready = receive(raft, 2, AppendEntriesResult(4, False, 3, 1, 4, 0))
    assert sent(ready) == [(2, AppendEntries(4, 1, 1, 4, 4, (b"small",), 1, 0))]
    accept(raft, 2, index=2)
    assert sent(raft.ready()) == [(2, AppendEntries(4, 1, 2, 4, 4, (big,), 2, 0))]
    ready = receive(raft, 2, AppendEntriesResult(4, False, 3, 2, 4, 0))
    assert sent(ready) == [(2, AppendEntries(4, 1, 2, 4, 0, (), 2, 0))]
    accept(raft, 2, index=2)
    assert sent(raft.ready()) == [(2, AppendEntries(4, 1, 2, 4, 4, (big,), 2, 0))]


def test_heartbeats_go_at_their_time_even_when_entries_go_too() -> None:
    """Entries may be a long while on their way, behind others; heartbeats may pass them."""
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    save_all(raft)
    raft.step(Submit((b"x",)), raft.deadline_us)
    raft.step(Timeout(), raft.deadline_us)
    to_2 = [outgoing for outgoing in raft.ready().messages if outgoing.to == 2]
    assert [(isinstance(o.message, AppendEntries) and len(o.message.entries), o.urgent) for o in to_2] == [
        (1, False),
        (0, True),
    ]


def test_those_who_wait_are_told_the_commit_index_at_once() -> None:
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    save_all(raft)
    ready = step(raft, Submit((b"x",), waiting=frozenset({3})))
    saved(raft, ready)
    accept(raft, 2)
    assert sent(raft.ready()) == [(3, AppendEntries(4, 1, 2, 4, 0, (), 2, 0))]


def test_a_step_that_times_out_moves_the_deadline_past_now() -> None:
    """Otherwise the caller would be busy for ever; at any time, however late it comes."""
    for make in (states.server, states.follower, states.pre_candidate, states.candidate, states.leader):
        raft = make(term=4)
        for late_us in (0, 1, 10**9):
            raft.step(Timeout(), raft.deadline_us + late_us)
            raft.ready()
            assert raft.deadline_us > raft.now_us


def test_time_does_not_go_back() -> None:
    raft = states.follower(term=4)
    step(raft, Timeout(), 10)
    raft.step(Timeout(), 5)
    assert raft.now_us == 10
