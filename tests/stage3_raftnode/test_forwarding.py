"""What a leader takes of proposals that come again, late, or with gaps."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from raftnode.forwarding import Forwarded
from raftnode.proposals import Propose

SESSION = 7


def propose(sequence: int, session: int = SESSION) -> Propose:
    return Propose(session, sequence, 0, b"")


def taken(forwarded: Forwarded, *sequences: int, applied: int = 0, session: int = SESSION) -> list[int]:
    return [sequence for sequence in sequences if forwarded.accepts(propose(sequence, session), applied)]


def test_each_sequence_number_is_taken_once() -> None:
    forwarded = Forwarded()
    assert taken(forwarded, 1, 2, 2, 1, 3, 3) == [1, 2, 3]


def test_a_gap_is_not_taken_until_it_is_filled() -> None:
    forwarded = Forwarded()
    assert taken(forwarded, 1, 3, 4) == [1]
    assert taken(forwarded, 2, 3, 4) == [2, 3, 4]


def test_what_is_applied_is_not_taken() -> None:
    assert taken(Forwarded(), 4, 5, 6, 7, applied=5) == [6, 7]


def test_what_was_applied_by_way_of_another_leader_leaves_no_gap() -> None:
    forwarded = Forwarded()
    assert taken(forwarded, 1, 2) == [1, 2]
    assert taken(forwarded, 6, applied=5) == [6]


def test_a_new_leader_takes_what_comes_first() -> None:
    """It can't know what is in the log; the replicas skip what leaves a gap there."""
    forwarded = Forwarded()
    assert taken(forwarded, 1, 2) == [1, 2]
    forwarded.new_term()
    assert taken(forwarded, 2, 3, 5) == [2, 3]


def test_after_a_gap_in_the_log_what_comes_again_is_taken() -> None:
    forwarded = Forwarded()
    assert taken(forwarded, 5, 6) == [5, 6]
    forwarded.out_of_sequence(SESSION)
    forwarded.out_of_sequence(SESSION)
    assert taken(forwarded, 4, 5, 6) == [4, 5, 6]


def test_sessions_do_not_mix() -> None:
    forwarded = Forwarded()
    assert taken(forwarded, 1, 2) == [1, 2]
    assert taken(forwarded, 1, 2, session=SESSION + 1) == [1, 2]
    forwarded.out_of_sequence(SESSION + 1)
    assert taken(forwarded, 2, 3) == [3]


@given(st.lists(st.integers(1, 10)), st.integers(0, 5))
def test_what_is_taken_within_a_term_has_no_gaps_and_nothing_twice(sequences: list[int], applied: int) -> None:
    log = taken(Forwarded(), *sequences, applied=applied)
    assert all(later == earlier + 1 for earlier, later in pairwise(log))
    assert all(sequence > applied for sequence in log)
