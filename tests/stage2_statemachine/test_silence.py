"""Heartbeats that need no answer: when a leader says so, and what a follower then does."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from statemachine.events import PeerConnected, ReadBarrier, Submit, Timeout, TransferLeadership
from statemachine.messages import AppendEntries, AppendEntriesResult
from statemachine.raft import Raft
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import FIVE, MS, OPTIONS, accept, receive, save_all, sent, sent_after_save, step

SWIFT = attrs.evolve(OPTIONS, heartbeat_us=60 * MS)


def leader_at_rest() -> Raft:
    """All followers have everything, and have just said so."""
    raft = states.leader(term=4, configuration=FIVE, options=SWIFT)
    accept(raft, 2, 3, 4, 5)
    save_all(raft)
    return raft


def heartbeat(raft: Raft) -> dict[int, bool]:
    """The next heartbeat: to whom it goes, and who may be silent."""
    ready = step(raft, Timeout(), max(raft.heartbeat_deadline_us - raft.now_us, 0))
    return {
        to: message.may_be_silent
        for to, message in sent(ready)
        if isinstance(message, AppendEntries) and not message.entries
    }


def all_four(may_be_silent: bool) -> dict[int, bool]:
    return dict.fromkeys((2, 3, 4, 5), may_be_silent)


def test_a_leader_at_rest_asks_now_and_then() -> None:
    raft = leader_at_rest()
    asked = []
    for _ in range(8):
        told = heartbeat(raft)
        silent = told[2]
        assert told == all_four(silent)
        asked.append(not silent)
        if not silent:
            accept(raft, 2, 3, 4, 5)
    assert asked == [False, False, False, True] * 2
    assert SWIFT.silence_us + SWIFT.heartbeat_us < SWIFT.election_timeout_us_min


def test_who_does_not_answer_is_asked_again_and_again_and_the_leader_steps_down_as_ever() -> None:
    raft = leader_at_rest()
    heard_us = raft.now_us
    while raft.is_leader:
        heartbeat(raft)
        assert raft.now_us <= heard_us + SWIFT.election_timeout_us_max + SWIFT.heartbeat_us


@pytest.mark.parametrize(
    ("happens", "spoken_to"),
    [
        pytest.param(lambda raft: step(raft, Submit((b"x",))), {2, 3, 4, 5}, id="an entry is under way"),
        pytest.param(lambda raft: step(raft, ReadBarrier(1)), {2, 3, 4, 5}, id="a read waits for a round"),
        pytest.param(lambda raft: step(raft, TransferLeadership(3)), {2, 3, 4, 5}, id="leadership is handed over"),
        pytest.param(lambda raft: step(raft, PeerConnected(4)), {4}, id="a connection was made anew"),
    ],
)
def test_answers_are_wanted_of_whom_something_is_waited_for(
    happens: Callable[[Raft], object], spoken_to: set[int]
) -> None:
    raft = leader_at_rest()
    happens(raft)
    save_all(raft)
    assert {to for to, may_be_silent in heartbeat(raft).items() if not may_be_silent} == spoken_to


def test_a_heartbeat_that_is_a_reads_round_too_is_answered() -> None:
    raft = leader_at_rest()
    raft.step(ReadBarrier(1), raft.heartbeat_deadline_us)
    assert heartbeat(raft) == all_four(False)


def test_a_follower_that_agrees_is_silent_and_puts_its_election_off() -> None:
    raft = states.follower((1, 2), term=2)
    raft.now_us += 100 * MS
    ready = receive(raft, 2, AppendEntries(2, 2, 2, 2, 0, (), 2, 7, may_be_silent=True))
    assert sent(ready) == sent_after_save(ready) == []
    assert raft.commit_index == 2
    assert raft.deadline_us == raft.now_us + states.ELECTION_TIMEOUT_US


def test_a_follower_that_does_not_agree_speaks() -> None:
    raft = states.follower((1, 2), term=2)
    ready = receive(raft, 2, AppendEntries(2, 2, 3, 2, 0, (), 2, 7, may_be_silent=True))
    assert [type(message) for _, message in sent(ready)] == [AppendEntriesResult]


def test_a_follower_whose_disk_is_behind_speaks_when_it_has_caught_up() -> None:
    raft = states.follower((1, 2), term=2)
    receive(raft, 2, AppendEntries(2, 2, 2, 2, 2, (b"x",), 2, 7))
    ready = receive(raft, 2, AppendEntries(2, 2, 3, 2, 0, (), 2, 8, may_be_silent=True))
    assert sent(ready) == []
    assert len(sent_after_save(ready)) == 1
