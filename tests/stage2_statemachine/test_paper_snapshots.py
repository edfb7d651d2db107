"""Snapshots: thesis 5.1 and Figure 5.3, a test for each rule."""

from __future__ import annotations

import attrs
import pytest

from statemachine.events import (
    Receive,
    SnapshotInstalled,
    SnapshotRefused,
    SnapshotTaken,
    Submit,
    Timeout,
)
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
)
from statemachine.progress import ProgressState, SnapshotMeta
from statemachine.raft import Raft
from statemachine.ready import LogReset
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import (
    ELECTION_TIMEOUT_US,
    OPTIONS,
    accept,
    entry,
    receive,
    save_all,
    saved,
    sent,
    sent_after_save,
    step,
    terms_of,
)


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
