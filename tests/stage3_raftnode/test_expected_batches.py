"""When a leader waits for the batches of other servers, for how long, and when it stops doing so."""

from __future__ import annotations

from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.expected_batches import CONFIDENCE_ENOUGH, CONFIDENCE_MAX, PATIENCE_US_MAX, TRIAL_ROUNDS, ExpectedBatches

ROUND_US = 800
NOBODY: frozenset[int] = frozenset()


@attrs.define
class Leader:
    """One that proposes rounds, each of which takes as long."""

    expected: ExpectedBatches = attrs.Factory(ExpectedBatches)
    index: int = 0
    now_us: int = 0
    round_us: int = ROUND_US

    def propose(self, *servers: int) -> None:
        self.index += len(servers)
        self.expected.proposed(frozenset(servers), self.index, self.now_us)

    def commit(self) -> None:
        self.now_us += self.round_us
        assert not self.expected.are_waited_for(NOBODY, self.index, self.now_us)

    def rounds(self, count: int, *servers: int) -> None:
        for _ in range(count):
            self.propose(*servers)
            self.commit()

    def waits(self, *waiting: int, committed: int | None = None) -> bool:
        commit_index = self.index if committed is None else committed
        return self.expected.are_waited_for(frozenset(waiting), commit_index, self.now_us)

    def misses(self, count: int) -> None:
        """So often server 2 is in a round, and isn't there for the next one."""
        for _ in range(count):
            self.rounds(1, 1, 2)
            self.waits(1)
            self.rounds(1, 1)


def steady(*servers: int) -> Leader:
    """One that knows how long a round takes."""
    leader = Leader()
    leader.rounds(100, *servers)
    return leader


def test_nobody_is_waited_for_at_first() -> None:
    assert not ExpectedBatches().are_waited_for(frozenset({1, 2}), 0, 0)


def test_a_round_waits_for_all_that_were_in_the_last_one() -> None:
    leader = steady(1, 2, 3)
    assert leader.waits(1)
    assert leader.waits(1, 2)
    assert not leader.waits(1, 2, 3)
    assert leader.expected.until_us is None


def test_when_nothing_is_there_nothing_waits() -> None:
    leader = steady(1, 2, 3)
    assert not leader.waits()
    assert leader.expected.until_us is None


@pytest.mark.parametrize(
    ("servers", "round_us", "patience_us"),
    [
        ((1, 2), 800, 400),
        ((1, 2, 3), 800, 800),
        ((1, 2, 3, 4, 5), 800, 1600),
        ((1, 2, 3, 4, 5), 4_000, 8_000),  # as on a busy machine, where sharing rounds gains most
        ((1, 2, 3, 4, 5), 50_000, PATIENCE_US_MAX),
        ((1, 2), 50_000, PATIENCE_US_MAX),
    ],
)
def test_patience_is_half_a_round_for_each_other_server(
    servers: tuple[int, ...], round_us: int, patience_us: int
) -> None:
    leader = Leader(round_us=round_us)
    leader.rounds(200, *servers)
    assert leader.waits(1)
    until_us = leader.expected.until_us
    assert until_us is not None
    assert until_us - leader.now_us == pytest.approx(patience_us, abs=1)
    leader.now_us = until_us - 1
    assert leader.waits(1)
    leader.now_us = until_us
    assert not leader.waits(1)


def test_clients_of_one_server_never_wait() -> None:
    leader = steady(1)
    assert not leader.waits(1)
    leader.propose(1)
    assert not leader.waits(1, committed=leader.index - 1)


def test_a_batch_waits_for_a_round_of_others_that_is_under_way_but_not_for_long() -> None:
    leader = steady(1, 2, 3)
    leader.propose(1, 2)
    assert leader.waits(3, committed=leader.index - 1)
    leader.now_us += PATIENCE_US_MAX
    assert not leader.waits(3, committed=leader.index - 1), "the log is slow: batches go as they come"


def test_what_has_waited_for_a_round_under_way_goes_with_the_others() -> None:
    leader = steady(1, 2, 3)
    leader.propose(1, 2)
    assert leader.waits(3, committed=leader.index - 1)
    leader.commit()
    assert leader.waits(3)
    assert leader.waits(1, 3)
    assert not leader.waits(1, 2, 3)


def test_a_server_that_did_not_come_is_not_waited_for_again() -> None:
    leader = steady(1, 2, 3)
    leader.rounds(1, 1, 2)
    assert not leader.waits(1, 2)


def test_who_waits_in_vain_too_often_stops_but_for_trials() -> None:
    leader = steady(1, 2)
    leader.misses(CONFIDENCE_MAX - CONFIDENCE_ENOUGH + 1)
    waited = []
    for _ in range(2 * TRIAL_ROUNDS):
        leader.rounds(1, 1, 2)
        waited.append(leader.waits(1))
        leader.rounds(1, 1)
    assert 0 < sum(waited) <= 4


def test_trials_that_succeed_bring_the_waiting_back() -> None:
    leader = steady(1, 2)
    leader.misses(10 * CONFIDENCE_MAX)
    leader.rounds(CONFIDENCE_ENOUGH + 1, 1, 2)
    waited = []
    for _ in range(TRIAL_ROUNDS):
        waited.append(leader.waits(1))
        leader.rounds(1, 1, 2)
    assert all(waited)


def test_rounds_of_one_server_say_nothing_about_whether_waiting_pays() -> None:
    leader = steady(1, 2)
    leader.misses(10 * CONFIDENCE_MAX)
    leader.rounds(100, 1)
    leader.rounds(1, 1, 2)
    if leader.waits(1):  # A trial; the next one is none.
        leader.rounds(1, 1)
        leader.rounds(1, 1, 2)
    assert not leader.waits(1)


def test_rounds_proposed_while_one_is_under_way_say_nothing_either() -> None:
    leader = steady(1, 2)
    for _ in range(100):
        leader.propose(1, 2)
        leader.propose(3)
    leader.commit()
    leader.rounds(1, 1, 2)
    assert leader.waits(1)


@given(seed=st.integers(0, 1000), rounds=st.integers(1, 60))
def test_no_wait_is_longer_than_the_longest_patience_allows(seed: int, rounds: int) -> None:
    """Once while a round is under way, and once more behind it."""
    dice = Random(seed)
    leader = Leader()
    for _ in range(rounds):
        leader.propose(*dice.sample(range(1, 6), dice.randint(1, 5)))
        begun_us = leader.now_us
        waiting = dice.sample(range(1, 6), dice.randint(1, 4))
        committed_after_us = dice.choice((100, 1000, 10_000))
        while leader.waits(*waiting, committed=leader.index - (leader.now_us - begun_us < committed_after_us)):
            until_us = leader.expected.until_us
            assert until_us is not None
            assert leader.now_us < until_us <= leader.now_us + PATIENCE_US_MAX
            leader.now_us += dice.randint(1, until_us - leader.now_us)
        assert leader.now_us - begun_us <= 2 * PATIENCE_US_MAX
        leader.now_us = max(leader.now_us, begun_us + committed_after_us)
        leader.waits()
