"""What a round of replication takes must not grow with the log that is in memory.

Calls that are counted don't show it: a single built-in one may look at every entry that there is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from timeit import repeat

import pytest

from statemachine.events import Submit
from statemachine.messages import AppendEntries
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import accept, receive, save_all, saved, step

SHORT, LONG = 10, 100_000
RATIO_MAX = 2
ROUNDS, REPEATS = 50, 9
TERM = 4


def _leaders_round(entries: int) -> Callable[[], None]:
    raft = states.leader(term=TERM)
    saved(raft, step(raft, Submit((b"entry",) * entries)))
    accept(raft, 2, 3)
    save_all(raft)

    def take_round() -> None:
        saved(raft, step(raft, Submit((b"one more",))))
        accept(raft, 2, 3)
        raft.ready()
        assert raft.commit_index == raft.log.last_index

    return take_round


def _followers_round(entries: int) -> Callable[[], None]:
    raft = states.follower((TERM,), term=TERM)

    def take_round(more: int = 1) -> None:
        last_index, committed = raft.log.last_index, raft.commit_index
        message = AppendEntries(TERM, 2, last_index, TERM, TERM, (b"entry",) * more, last_index, 0)
        saved(raft, receive(raft, 2, message))
        assert raft.commit_index > committed

    take_round(entries)
    return take_round


@pytest.mark.parametrize("rounds_of", [_leaders_round, _followers_round])
def test_a_round_takes_as_long_behind_a_long_log(rounds_of: Callable[[int], Callable[[], None]]) -> None:
    """The least processor time of several tries: noise only adds."""
    times = {
        entries: min(repeat(rounds_of(entries), timer=time.process_time, number=ROUNDS, repeat=REPEATS))
        for entries in (SHORT, LONG)
    }
    assert times[LONG] < RATIO_MAX * times[SHORT], f"seconds for {ROUNDS} rounds, by entries in memory: {times}"
