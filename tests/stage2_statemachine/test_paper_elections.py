"""Elections and leadership beyond the figure: thesis 3.4 to 3.10, 4.2.3, 6.2 and 9.6, a test for each rule."""

from __future__ import annotations

import random

import attrs
import pytest

from statemachine.configuration import Configuration
from statemachine.events import (
    PeerDisconnected,
    Submit,
    Timeout,
    TransferLeadership,
)
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    Message,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)
from statemachine.raft import Raft
from statemachine.roles import Restored, Role
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import (
    ELECTION_TIMEOUT_US,
    FIVE,
    MS,
    OPTIONS,
    THREE,
    accept,
    receive,
    save_all,
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
    raft = states.leader(term=4, options=attrs.evolve(OPTIONS, heartbeat_us=70 * MS))
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
    for _ in range(20):
        if raft.is_leader:
            raft.step(Timeout(), raft.deadline_us)
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


def test_a_server_whose_leader_has_hung_up_campaigns_soon() -> None:
    """It need not wait for its timer, nor refuse its vote to one who noticed first."""
    raft = states.follower(term=4, server_id=3)
    step(raft, PeerDisconnected(2), 10 * MS)
    assert raft.deadline_us == 10 * MS + OPTIONS.heartbeat_us
    ready = receive(raft, 1, RequestVote(5, 1, 0, 0, pre_vote=True))
    assert sent(ready) == [(1, RequestVoteResult(5, vote_granted=True, pre_vote=True))]
    receive(raft, 2, AppendEntries(4, 2, 0, 0, 0, (), 0, 1))
    assert raft.deadline_us > 10 * MS + OPTIONS.election_timeout_us_min


def test_hanging_up_puts_no_election_off() -> None:
    raft = states.follower(term=4, server_id=3)
    deadline_us = raft.deadline_us
    step(raft, PeerDisconnected(2), deadline_us - 1)
    assert raft.deadline_us == deadline_us


def test_a_server_of_a_later_term_tells_a_stale_leader() -> None:
    """A follower that has got into a later term answers an older leader, which then steps down (etcd-io/raft Step)."""
    follower = server(term=7)
    [(_, answer)] = sent(receive(follower, 2, AppendEntries(4, 2, 0, 0, 0, (), 0, 0)))
    leader = states.leader(term=4)
    receive(leader, 2, answer)
    assert (leader.role, leader.current_term) == (Role.FOLLOWER, 7)
