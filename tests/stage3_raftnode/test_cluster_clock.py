"""One server's reading of cluster time: never back, and never ahead of the time that has truly passed."""

from __future__ import annotations

from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.cluster_clock import ClusterClock, hear
from statemachine.configuration import Configuration
from statemachine.events import HardState, Persisted, Timeout
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteResult,
)
from statemachine.raft import Raft
from statemachine.roles import Options, Restored


@attrs.define
class Monotonic:
    """A server's own clock, which begins anywhere."""

    now_us: int = 0

    def __call__(self) -> int:
        return self.now_us


def test_it_goes_on_from_where_it_was() -> None:
    own = Monotonic(5_000)
    clock = ClusterClock(own, 77)
    assert clock.now_us() == 77
    own.now_us += 10
    assert clock.now_us() == 87


def test_a_later_reading_moves_it_and_an_earlier_one_does_not() -> None:
    own = Monotonic(-3)
    clock = ClusterClock(own)
    clock.observe(100, own())
    assert clock.now_us() == 100
    own.now_us += 50
    clock.observe(120, own())
    assert clock.now_us() == 150
    clock.observe(150, own())
    assert clock.now_us() == 150


def test_a_later_line_takes_its_place_even_if_it_is_behind_and_an_earlier_one_never() -> None:
    own = Monotonic(500)
    clock = ClusterClock(own, 1_000, line=3)
    clock.follow(400, 4, 0, own())
    assert (clock.now_us(), clock.line) == (400, 4)
    clock.follow(9_000, 3, 0, own())
    assert (clock.now_us(), clock.line) == (400, 4)
    clock.follow(300, 4, 0, own())
    assert clock.now_us() == 400
    clock.follow(600, 4, 0, own())
    assert clock.now_us() == 600
    own.now_us += 10
    clock.follow(100, 6, 550, own())
    assert (clock.now_us(), clock.line) == (550, 6), "what is applied has happened"


APPEND = AppendEntries(5, 1, 0, 0, 0, (), 0, 0)
INSTALL = InstallSnapshot(5, 1, 9, 5, 0, b"", done=True, round_number=0)


@pytest.mark.parametrize(
    ("message", "term", "leads", "expected"),
    [
        pytest.param(APPEND, 5, False, (70, 5), id="a leader's"),
        pytest.param(INSTALL, 4, False, (70, 5), id="a new leader's, with a snapshot"),
        pytest.param(APPEND, 6, False, (100, 4), id="one of the past's"),
        pytest.param(RequestVote(6, 1, 9, 5, False, False), 5, False, (70, 5), id="a candidate's of a later line"),
        pytest.param(RequestVote(6, 1, 9, 4, True, False), 5, False, (100, 4), id="one's of the same line, behind"),
        pytest.param(RequestVote(6, 1, 9, 3, False, False), 5, False, (100, 4), id="one's of an earlier line"),
        pytest.param(AppendEntriesResult(5, True, 1, 0, 0, 0), 5, True, (100, 4), id="a follower's"),
    ],
)
def test_whose_reading_counts(message: Message, term: int, leads: bool, expected: tuple[int, int]) -> None:
    clock = ClusterClock(Monotonic(), 100, line=4)
    hear(clock, raft_of(term, leads=leads), message, 70, 60, 0)
    assert (clock.now_us(), clock.line) == expected


@pytest.mark.parametrize(("term", "leads", "expected"), [(5, False, 700), (5, True, 100), (6, False, 100)])
def test_voters_tell_a_candidate_the_time_but_no_leader(term: int, leads: bool, expected: int) -> None:
    clock = ClusterClock(Monotonic(), 100, line=4)
    hear(clock, raft_of(term, leads=leads), RequestVoteResult(5, True, False), 700, 60, 0)
    assert (clock.now_us(), clock.line) == (expected, 4)


def raft_of(term: int, *, leads: bool) -> Raft:
    """A server in that term, the only one of its cluster if it leads."""
    voters = frozenset({2} if leads else {1, 2, 3})
    hard_state = HardState(current_term=term - leads, voted_for=None)
    raft = Raft(2, Configuration(voters), Options(), Random(1), Restored(hard_state=hard_state), 0)
    if leads:
        raft.step(Timeout(), 10**9)
        for ready in iter(lambda: raft.ready() if raft.has_output else None, None):
            run = ready.runs[-1] if ready.runs else None
            raft.step(Persisted(run.term if run else 0, run.last_index if run else 0, ready.hard_state), 10**9)
    assert (raft.current_term, raft.is_leader) == (term, leads)
    return raft


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 10**6), st.integers(0, 10**6))),
)
def test_clocks_that_hear_of_each_other_are_never_early(
    starts: list[int], messages: list[tuple[int, int, int, int]]
) -> None:
    """Readings arrive some time after they were taken, in any order, so a hop makes time late and never early."""
    owns = [Monotonic(start) for start in starts]
    clocks = [ClusterClock(own) for own in owns]
    elapsed_us = 0
    on_their_way: list[tuple[int, int]] = []
    last = [0] * len(clocks)
    for sender, receiver, pause_us, delivered in messages:
        on_their_way.append((receiver % len(clocks), clocks[sender % len(clocks)].now_us()))
        elapsed_us += pause_us
        for own in owns:
            own.now_us += pause_us
        to, reading_us = on_their_way.pop(delivered % len(on_their_way))
        clocks[to].observe(reading_us, owns[to]())
        readings = [clock.now_us() for clock in clocks]
        assert all(before <= reading <= elapsed_us for before, reading in zip(last, readings, strict=True))
        last = readings
