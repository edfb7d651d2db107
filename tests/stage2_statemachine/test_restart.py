"""What a server makes of its disk when it starts, and of its disk's reports while it runs."""

from __future__ import annotations

import random

import pytest

from statemachine.configuration import Configuration
from statemachine.events import EntriesRun, HardState, Persisted, SnapshotInstalled, SnapshotTaken, Submit, Timeout
from statemachine.messages import AppendEntries, AppendEntriesResult
from statemachine.progress import SnapshotMeta
from statemachine.raft import Raft
from statemachine.ready import LogReset, Ready
from statemachine.roles import Restored
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import (
    OPTIONS,
    THREE,
    accept,
    entry,
    receive,
    runs_of,
    saved,
    sent,
    step,
    terms_of,
)


def restored(snapshot: tuple[int, int] | None, first_index: int, *terms: int, term: int = 9) -> Raft:
    meta = SnapshotMeta(*snapshot, 100) if snapshot is not None else None
    found = Restored(hard_state=HardState(term, None), snapshot=meta, runs=runs_of(terms, first_index))
    return Raft(1, THREE, OPTIONS, random.Random(0), found, 0)


@pytest.mark.parametrize(
    ("snapshot", "first_index", "terms", "base", "kept"),
    [
        (None, 1, (), 0, []),
        (None, 1, (1, 2), 0, [1, 2]),
        ((3, 2), 4, (), 3, []),
        ((3, 2), 4, (2, 5), 3, [2, 5]),
        ((3, 2), 1, (1, 1, 2, 2, 5), 3, [2, 5]),
        ((3, 2), 3, (2, 5), 3, [5]),
        ((3, 2), 2, (2, 2), 3, []),
    ],
)
def test_the_log_goes_on_behind_the_snapshot(
    snapshot: tuple[int, int] | None, first_index: int, terms: tuple[int, ...], base: int, kept: list[int]
) -> None:
    raft = restored(snapshot, first_index, *terms)
    assert (raft.log.base_index, terms_of(raft)) == (base, kept)
    assert (raft.commit_index, raft.persisted_index) == (base, base + len(kept))
    assert raft.log.entries(base + 1, base + len(kept)) == [entry(base + 1 + i, t) for i, t in enumerate(kept)]
    assert raft.ready().log_reset is None


def test_a_snapshot_of_a_later_term_than_was_saved() -> None:
    """Others had committed its entries before this server's own save of the term was done, and so before any vote."""
    raft = restored((3, 5), 4, term=4)
    assert (raft.current_term, raft.voted_for) == (5, None)
    assert raft.ready().hard_state == HardState(5, None)


@pytest.mark.parametrize(("first_index", "terms"), [(1, (1,)), (1, (1, 1, 1, 4)), (2, (1,)), (3, (3, 3))])
def test_a_log_that_does_not_agree_with_the_snapshot_is_dropped(first_index: int, terms: tuple[int, ...]) -> None:
    """The stop came after a snapshot was kept and before the log was begun anew behind it, or before entries that
    the snapshot covers were saved."""
    raft = restored((3, 2), first_index, *terms)
    assert (raft.log.base_index, raft.log.last_index, raft.persisted_index) == (3, 3, 3)
    assert raft.ready().log_reset == LogReset(3, 2)


def test_one_run_of_many_entries_is_cut_at_the_snapshot() -> None:
    runs = (EntriesRun(2, 2, (b"2", b"3", b"4")), EntriesRun(5, 4, (b"5",)))
    found = Restored(hard_state=HardState(4, 1), snapshot=SnapshotMeta(3, 2, 9), runs=runs)
    raft = Raft(1, THREE, OPTIONS, random.Random(0), found, 0)
    assert raft.log.entries(4, 5) == [b"4", b"5"]


@pytest.mark.parametrize(
    ("snapshot", "runs", "term", "why"),
    [
        (None, runs_of((1,), 2), 9, "begins at 2"),
        ((3, 2), runs_of((2,), 5), 9, "begins at 5"),
        (None, (*runs_of((1,)), *runs_of((1,), 3)), 9, "no entry 2"),
        (None, runs_of((1, 5)), 4, "later term"),
    ],
)
def test_what_does_not_hang_together_is_refused(
    snapshot: tuple[int, int] | None, runs: tuple[EntriesRun, ...], term: int, why: str
) -> None:
    meta = SnapshotMeta(*snapshot, 100) if snapshot is not None else None
    found = Restored(hard_state=HardState(term, None), snapshot=meta, runs=runs)
    with pytest.raises(ValueError, match=why):
        Raft(1, THREE, OPTIONS, random.Random(0), found, 0)


def test_a_server_that_is_not_in_the_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="not in the configuration"):
        Raft(4, THREE, OPTIONS, random.Random(0), Restored(), 0)


def append(raft: Raft, term: int, previous: int, previous_term: int, *terms: int) -> Ready:
    entries = tuple(entry(index, each) for index, each in enumerate(terms, previous + 1))
    first = terms[0] if terms else 0
    return receive(raft, 2, AppendEntries(term, 2, previous, previous_term, first, entries, 0, raft.leader_round + 1))


def test_saves_are_counted_in_order() -> None:
    raft = states.follower((1,), term=2)
    first = append(raft, 2, 1, 1, 2)
    second = append(raft, 2, 2, 2, 2)
    saved(raft, first)
    assert raft.persisted_index == 2
    saved(raft, second)
    assert raft.persisted_index == 3


def test_one_report_will_do_for_several_saves() -> None:
    raft = states.follower((1,), term=2)
    append(raft, 2, 1, 1, 2)
    saved(raft, append(raft, 2, 2, 2, 2))
    assert raft.persisted_index == 3


def test_a_save_of_what_was_overwritten_counts_for_nothing() -> None:
    """By its index alone it would (thesis 10.2.1)."""
    raft = states.follower((1,), term=2)
    old = append(raft, 2, 1, 1, 2, 2)
    new = append(raft, 3, 1, 1, 3)
    saved(raft, old)
    assert raft.persisted_index == 1
    saved(raft, new)
    assert raft.persisted_index == 2


def test_a_save_counts_for_the_part_that_was_not_overwritten() -> None:
    raft = states.follower((1,), term=2)
    old = append(raft, 2, 1, 1, 2, 2)
    append(raft, 3, 2, 2, 3)
    saved(raft, old)
    assert raft.persisted_index == 2


def test_a_save_of_an_entry_that_was_overwritten_and_restored_counts_for_nothing() -> None:
    """Its term and index are right, and the disk has it; but the disk is still to overwrite and to restore it, and a
    crash in between leaves the wrong entry there."""
    raft = states.follower((1,), term=2)
    first = append(raft, 2, 1, 1, 2)
    second = append(raft, 3, 1, 1, 3)
    third = append(raft, 4, 1, 1, 2)
    saved(raft, first)
    assert (raft.log.term_at(2), raft.persisted_index) == (2, 1)
    assert sent(append(raft, 4, 2, 2)) == []
    saved(raft, second)
    assert raft.persisted_index == 1
    saved(raft, third)
    assert raft.persisted_index == 2
    assert sent(append(raft, 4, 2, 2)) == [(2, AppendEntriesResult(4, True, 2, 0, 0, raft.leader_round))]


def test_a_save_from_before_the_log_was_reset_counts_for_nothing() -> None:
    raft = states.follower((1,), term=2)
    old = append(raft, 2, 1, 1, 2, 2, 2, 2)
    step(raft, SnapshotInstalled(3, 1, 9))
    assert (raft.persisted_index, raft.log.last_index) == (3, 3)
    saved(raft, old)
    assert raft.persisted_index == 3


def test_entries_that_a_snapshot_covers_are_as_good_as_saved() -> None:
    raft = states.leader(term=2)
    accept(raft, 2, 3)
    unsaved = step(raft, Submit((b"x",)))
    accept(raft, 2, 3)
    step(raft, SnapshotTaken(2, 2, 9, 3))
    assert raft.persisted_index == 2
    saved(raft, unsaved)
    assert raft.persisted_index == 2


def test_a_report_that_names_another_hard_state_leaves_answers_waiting() -> None:
    raft = states.server()
    receive(raft, 2, AppendEntries(3, 2, 0, 0, 0, (), 0, 0))
    raft.step(Persisted(0, 0, HardState(2, None)), 0)
    assert not raft.hard_state_is_saved
    raft.step(Persisted(0, 0, HardState(3, None)), 0)
    assert raft.hard_state_is_saved


def test_a_lone_server_leads_when_its_vote_is_on_disk() -> None:
    """Before, a crash would let it lead the same term again, with other entries (simulation, seed 2005985)."""
    raft = states.server(configuration=Configuration(frozenset({1})))
    raft.step(Timeout(), raft.deadline_us)
    ready = raft.ready()
    assert ready.hard_state == HardState(1, 1)
    assert not raft.is_leader
    assert not raft.accepts_submissions
    saved(raft, ready)
    assert raft.is_leader
    assert raft.ready().runs == [EntriesRun(1, 1, (b"",))]
