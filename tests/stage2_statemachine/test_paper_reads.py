"""Reads by ReadIndex: thesis 6.4, a test for each rule."""

from __future__ import annotations

import random

from statemachine.configuration import Configuration
from statemachine.events import ReadBarrier, Receive, Submit
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    ReadIndex,
    ReadIndexResult,
)
from statemachine.raft import Raft
from statemachine.ready import BarrierConfirmed
from statemachine.roles import Restored
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import (
    ELECTION_TIMEOUT_US,
    FIVE,
    OPTIONS,
    THREE,
    accept,
    receive,
    sent,
    sent_after_save,
    step,
)


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
    raft = states.leader(term=4, configuration=FIVE)
    accept(raft, 2, 3)
    raft.step(ReadBarrier(1), raft.now_us)
    receive(raft, 2, ReadIndex(4, 50))
    receive(raft, 3, ReadIndex(4, 60))
    step(raft, ReadBarrier(2))
    accept(raft, 4, 5, round_number=1)
    ready = raft.ready()
    assert ready.barriers == [BarrierConfirmed(1, 1)]
    assert sent(ready)[0] == (2, ReadIndexResult(4, 50, 1))
    accept(raft, 4, 5, round_number=2)
    ready = raft.ready()
    assert ready.barriers == [BarrierConfirmed(2, 1)]
    assert sent(ready)[0] == (3, ReadIndexResult(4, 60, 1))


def test_reads_that_are_held_wait_for_the_entries_that_follow() -> None:
    """A message with entries is as good a contact as a heartbeat; so it takes no round of their own."""
    raft = states.leader(term=4, configuration=FIVE)
    accept(raft, 2, 3, 4, 5)
    raft.ready()
    raft.reads.held = True
    raft.step(ReadBarrier(1), raft.now_us)
    receive(raft, 2, ReadIndex(4, 50))
    assert not raft.has_output
    assert sent(raft.ready()) == []
    assert raft.gathered_readers == {1, 2}
    raft.reads.held = False
    assert raft.has_output
    raft.step(Submit((b"a",)), raft.now_us)
    ready = raft.ready()
    assert [(to, message.entries) for to, message in sent(ready)] == [(to, (b"a",)) for to in (2, 3, 4, 5)]
    assert raft.gathered_readers == set()
    accept(raft, 3, round_number=1)
    assert (2, ReadIndexResult(4, 50, 1)) in sent(raft.ready())
    accept(raft, 4, round_number=1)
    assert raft.ready().barriers == [BarrierConfirmed(1, 1)]


def test_who_asks_counts_for_the_majority_that_confirms_its_own_reads() -> None:
    """By asking it has said that it is in the leader's term, after its reads began."""
    raft = states.leader(term=4, configuration=FIVE)
    accept(raft, 2, 3)
    raft.step(ReadBarrier(1), raft.now_us)
    receive(raft, 2, ReadIndex(4, 50))
    accept(raft, 2, round_number=1)
    assert sent(raft.ready()) == [], "its own answer is nothing new"
    accept(raft, 5, round_number=1)
    ready = raft.ready()
    assert (ready.barriers, sent(ready)) == ([BarrierConfirmed(1, 1)], [(2, ReadIndexResult(4, 50, 1))])
    receive(raft, 3, ReadIndex(4, 60))
    step(raft, ReadBarrier(2))
    accept(raft, 5, round_number=2)
    ready = raft.ready()
    assert (ready.barriers, sent(ready)[0]) == ([], (3, ReadIndexResult(4, 60, 1)))


def test_in_a_cluster_of_three_a_follower_that_asks_is_answered_at_once() -> None:
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    assert sent(receive(raft, 2, ReadIndex(4, 50))) == [(2, ReadIndexResult(4, 50, 1))]


def test_who_asked_in_an_earlier_term_counts_as_well() -> None:
    """It had voted for no later leader when its reads began, which is all that is to be known."""
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    assert sent(receive(raft, 2, ReadIndex(3, 50))) == [(2, ReadIndexResult(4, 50, 1))]


def test_who_asks_counts_for_nobody_elses_reads() -> None:
    """It may have asked before these began."""
    raft = states.leader(term=4, configuration=FIVE)
    accept(raft, 2, 3)
    raft.step(ReadBarrier(1), raft.now_us)
    raft.step(Receive(2, ReadIndex(4, 50)), raft.now_us)
    raft.step(Receive(3, ReadIndex(4, 60)), raft.now_us)
    assert [message for _, message in sent(raft.ready()) if isinstance(message, ReadIndexResult)] == []
    accept(raft, 5, round_number=1)
    ready = raft.ready()
    assert sent(ready) == [(2, ReadIndexResult(4, 50, 1)), (3, ReadIndexResult(4, 60, 1))]
    assert ready.barriers == [], "that of the leader waits for another answer"


def test_a_learner_that_asks_counts_for_nothing() -> None:
    raft = states.leader(term=4, configuration=Configuration(voters=(1, 2, 3), learners=(4,)))
    accept(raft, 2, 3)
    receive(raft, 4, ReadIndex(4, 50))
    assert raft.reads.confirming
    accept(raft, 2, round_number=1)
    assert (4, ReadIndexResult(4, 50, 1)) in sent(raft.ready())


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
