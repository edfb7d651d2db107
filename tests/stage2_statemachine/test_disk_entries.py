"""Entries that were dropped from memory: who is served from disk, and what comes between."""

from __future__ import annotations

import attrs

from statemachine.events import EntriesRead, LimitMemory, PeerConnected, Receive, SnapshotTaken, Submit
from statemachine.messages import AppendEntries, AppendEntriesResult
from statemachine.progress import ProgressState
from statemachine.raft import Raft
from statemachine.ready import EntriesToRead, Ready
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import OPTIONS, accept, entry, save_all, saved, sent, step

LIMITS = attrs.evolve(OPTIONS, append_bytes_max=6, inflight_bytes_max=100)


def forgetful_leader(terms: tuple[int, ...] = (1, 1, 1, 2, 2)) -> Raft:
    """A leader of term 4 with nothing but its own entry in memory; follower 3 has all, follower 2 is silent."""
    raft = states.leader(terms, term=4, options=LIMITS)
    accept(raft, 3)
    save_all(raft)
    step(raft, LimitMemory(0, raft.log.last_index))
    assert raft.log.memory_base == raft.log.last_index - 1 == len(terms)
    return raft


def follower_agrees(raft: Raft, index: int, server: int = 2) -> Ready:
    """A follower refuses what it was asked about, and agrees with the log up to an index; what follows from that."""
    before = raft.progress[server].next_index - 1
    refusal = AppendEntriesResult(4, False, before, index, raft.log.term_at(index) or 0, raft.round_number)
    raft.step(Receive(server, refusal), raft.now_us)
    ready = raft.ready()
    assert ready.entries_to_read == [], "it isn't known yet that it agrees"
    accept(raft, server, index=index)
    return raft.ready()


def test_a_probe_of_what_is_not_in_memory_has_no_entries() -> None:
    raft = forgetful_leader()
    raft.step(Receive(2, AppendEntriesResult(4, False, 5, 2, 1, 0)), raft.now_us)
    assert sent(raft.ready()) == [(2, AppendEntries(4, 1, 2, 1, 0, (), 6, 0))]


def test_a_follower_that_is_far_behind_is_served_from_disk() -> None:
    raft = forgetful_leader()
    ready = follower_agrees(raft, 1)
    assert (ready.entries_to_read, sent(ready)) == ([EntriesToRead(2, 2, 3)], [])
    assert raft.ready() == Ready(commit_index=6), "it is asked for once"
    ready = step(raft, EntriesRead(2, 2, (entry(2, 1), entry(3, 1))))
    assert sent(ready) == [(2, AppendEntries(4, 1, 1, 1, 1, (entry(2, 1), entry(3, 1)), 6, 0))]
    assert raft.progress[2].inflight_bytes == 6
    assert ready.entries_to_read == [EntriesToRead(2, 4, 5)], "the next term's"
    ready = step(raft, EntriesRead(2, 4, (entry(4, 2),)))
    assert sent(ready) == [(2, AppendEntries(4, 1, 3, 1, 2, (entry(4, 2),), 6, 0))]
    assert ready.entries_to_read == [EntriesToRead(2, 5, 5)]
    ready = step(raft, EntriesRead(2, 5, (entry(5, 2),)))
    assert [message for _, message in sent(ready)] == [
        AppendEntries(4, 1, 4, 2, 2, (entry(5, 2),), 6, 0),
        AppendEntries(4, 1, 5, 2, 4, (b"",), 6, 0),
    ], "what is in memory follows"
    accept(raft, 2)
    assert raft.progress[2].match_index == 6


def test_no_more_is_sent_at_once_than_fits_a_message() -> None:
    raft = forgetful_leader((1, 1, 1, 1))
    follower_agrees(raft, 1)
    ready = step(raft, EntriesRead(2, 2, (entry(2, 1), entry(3, 1), entry(4, 1))))
    assert sent(ready) == [(2, AppendEntries(4, 1, 1, 1, 1, (entry(2, 1), entry(3, 1)), 5, 0))]
    assert ready.entries_to_read == [EntriesToRead(2, 4, 4)]


def test_two_followers_are_served_from_disk_each_by_itself() -> None:
    raft = forgetful_leader()
    follower_agrees(raft, 2)
    raft.step(PeerConnected(3), raft.now_us)
    raft.progress[3].lost_its_tail(0)
    accept(raft, 3, index=0)
    assert raft.ready().entries_to_read == [EntriesToRead(3, 1, 3)]
    assert [to for to, _ in sent(step(raft, EntriesRead(3, 1, (entry(1, 1),))))] == [3]
    assert [to for to, _ in sent(step(raft, EntriesRead(2, 3, (entry(3, 1),))))] == [2]


def test_what_was_read_for_a_follower_that_needs_it_no_more_is_dropped() -> None:
    raft = forgetful_leader()
    follower_agrees(raft, 1)
    accept(raft, 2, index=3)
    assert raft.ready().entries_to_read == [EntriesToRead(2, 4, 5)]
    assert step(raft, EntriesRead(2, 2, (entry(2, 1),))) == Ready(commit_index=6)
    assert raft.progress[2].next_index == 4
    step(raft, PeerConnected(2))
    assert step(raft, EntriesRead(2, 4, (entry(4, 2),))) == Ready(commit_index=6)
    assert raft.progress[2].state is ProgressState.PROBE
    raft.become_follower(5, None)
    raft.ready()
    assert step(raft, EntriesRead(2, 4, (entry(4, 2),))) == Ready(commit_index=6)


def test_a_snapshot_takes_the_place_of_what_is_dropped_while_it_is_read() -> None:
    raft = forgetful_leader()
    follower_agrees(raft, 1)
    step(raft, SnapshotTaken(4, 2, 25, 5))
    ready = step(raft, EntriesRead(2, 2, (entry(2, 1),)))
    assert (sent(ready), [chunk.to for chunk in ready.chunks_to_send]) == ([], [2])


def test_what_could_not_be_read_since_it_is_gone_comes_with_a_snapshot() -> None:
    raft = forgetful_leader()
    follower_agrees(raft, 1)
    step(raft, SnapshotTaken(4, 2, 25, 5))
    ready = step(raft, EntriesRead(2, 2, ()))
    assert (sent(ready), [chunk.to for chunk in ready.chunks_to_send]) == ([], [2])


def test_only_what_is_applied_and_saved_is_dropped_and_no_more_than_asked_for() -> None:
    raft = states.leader((1, 1, 1), term=4)
    accept(raft, 3)
    step(raft, LimitMemory(0, 3))
    assert (raft.log.memory_base, raft.commit_index) == (3, 4)
    ready = step(raft, Submit((b"new",)))
    accept(raft, 2, 3)
    assert raft.commit_index == 5, "by the followers alone"
    step(raft, LimitMemory(0, 5))
    assert raft.log.memory_base == 4, "its own disk is slow"
    saved(raft, ready)
    step(raft, LimitMemory(3, 5))
    assert (raft.log.memory_base, raft.log.memory_bytes) == (4, 3)
    step(raft, LimitMemory(2, 5))
    assert (raft.log.memory_base, raft.log.memory_bytes, raft.log.appended_bytes) == (5, 0, 12)
    step(raft, LimitMemory(0, 5))
    assert raft.log.memory_base == 5
