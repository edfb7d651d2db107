"""The ledger finds what it is there to find: each of its rules is broken once, by hand."""

from __future__ import annotations

import pytest

from fileserver.simulation.ledger import Ledger
from statemachine.invariants import InvariantViolation
from statemachine.messages import RequestVoteResult
from statemachine.raft import Raft
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import server


def elected() -> tuple[Ledger, Raft]:
    """Server 1 of three, just elected in term 4 with servers 1 and 2 having voted; servers 2 and 3 have no log."""
    ledger = Ledger()
    leader = states.leader((1, 1), term=4)
    for raft in (leader, server(server_id=2), server(server_id=3)):
        ledger.started(raft, may_forget=False)
    ledger.sent(2, 1, RequestVoteResult(4, vote_granted=True))
    ledger.stepped(leader)
    return ledger, leader


def test_a_leader_without_the_votes() -> None:
    ledger = Ledger()
    ledger.sent(2, 1, RequestVoteResult(3, vote_granted=True))
    ledger.sent(2, 1, RequestVoteResult(4, vote_granted=True, pre_vote=True))
    ledger.sent(3, 2, RequestVoteResult(4, vote_granted=True))
    with pytest.raises(InvariantViolation, match=r"server 1 leads term 4 by the votes of \[1\]"):
        ledger.stepped(states.leader((1, 1), term=4))


def test_a_commit_that_no_majority_has_saved() -> None:
    ledger, leader = elected()
    leader.advance_commit_index(3)
    with pytest.raises(InvariantViolation, match=r"leader 1 has committed entry 3, which only \[1\] have saved"):
        ledger.stepped(leader)


def test_a_commit_that_a_server_has_saved_that_is_down() -> None:
    ledger, leader = elected()
    ledger.started(server((1, 1, 4), term=4, voted_for=1, server_id=2), may_forget=False)
    leader.advance_commit_index(3)
    ledger.stepped(leader)


def test_a_commit_of_an_earlier_term() -> None:
    """Thesis, Figure 3.7."""
    ledger, leader = elected()
    ledger.started(server((1, 1), term=4, voted_for=1, server_id=2), may_forget=False)
    leader.advance_commit_index(2)
    with pytest.raises(InvariantViolation, match="leader 1 of term 4 has committed entry 2 of term 1"):
        ledger.stepped(leader)


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (server((1, 2)), "term 4"),
        (server((1, 2), term=4, voted_for=2), "its vote for 3 in term 4"),
        (server((1,), term=4, voted_for=3), "entry 2, which it had saved"),
        (server((1, 3), term=4, voted_for=3), "entry 2, which it had saved"),
    ],
)
def test_a_server_that_has_forgotten(after: Raft, what: str) -> None:
    ledger = Ledger()
    ledger.started(server((1, 2), term=4, voted_for=3), may_forget=False)
    with pytest.raises(InvariantViolation, match=f"server 1 has forgotten {what}"):
        ledger.started(after, may_forget=False)
    ledger.started(after, may_forget=True)


def test_a_vote_that_was_told_and_is_forgotten() -> None:
    """Told, and never known to be saved."""
    ledger = Ledger()
    ledger.started(server((1, 2), term=3), may_forget=False)
    ledger.sent(1, 2, RequestVoteResult(4, vote_granted=True))
    with pytest.raises(InvariantViolation, match="server 1 has forgotten its vote for 2 in term 4"):
        ledger.started(server((1, 2), term=4, voted_for=3), may_forget=False)
