"""RequestVote: pre-votes, votes, and becoming leader (thesis 3.4, 3.6.1, 4.2.3, 9.6).

A follower that hears from no leader for its election timeout first asks whether it would be elected
(pre-vote); only a majority's yes lets it begin a term. So a server that was cut off comes back without
disturbing a leader that the others hear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine import replication, thrift
from statemachine.events import PeerDisconnected
from statemachine.messages import RequestVote, RequestVoteResult, ServerId
from statemachine.roles import Role

if TYPE_CHECKING:
    from statemachine.raft import Raft


def reset_election_deadline(raft: Raft) -> None:
    """Draw a new election timeout from now on (thesis 3.4: chosen randomly from a fixed interval)."""
    options = raft.options
    raft.election_timeout_us = raft.generator.randint(options.election_timeout_us_min, options.election_timeout_us_max)
    put_election_off(raft)


def put_election_off(raft: Raft) -> None:
    """Let the election timeout begin anew, as long as it was: that is done with every message of a leader that lives.

    It is drawn anew with every vote and candidacy, so those who have tied once won't again.
    """
    raft.election_deadline_us = raft.now_us + raft.election_timeout_us


def holds_on_to_leader(raft: Raft, message: RequestVote) -> bool:
    """Whether a current leader was heard of too recently to help replace it (thesis 4.2.3).

    A leader holds on to itself, as check-quorum makes it step down when it isn't heard. A transfer of
    leadership is the leader's own wish, so it passes.
    """
    if message.leadership_transfer:
        return False
    if raft.role is Role.LEADER:
        return True
    return (
        raft.leader_id is not None
        and raft.leader_contact_us is not None
        and raft.now_us - raft.leader_contact_us < raft.options.election_timeout_us_min
    )


def election_timeout(raft: Raft) -> None:
    """Begin a candidacy, by asking first (9.6).

    "If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote to
    candidate: convert to candidate" (Figure 3.1).
    """
    reset_election_deadline(raft)
    if raft.server_id not in raft.configuration.voters:
        return
    raft.become_follower(raft.current_term, None)
    raft.role = Role.PRE_CANDIDATE
    _ask_for_votes(raft, pre_vote=True, leadership_transfer=False)


def peer_disconnected(raft: Raft, event: PeerDisconnected) -> None:
    """Don't wait out the election timeout for a leader whose connection broke: most likely it has died.

    It is no longer held on to, and this server asks for votes within a heartbeat's time unless the leader is heard
    of before. That is safe (it is what the timer might have done), and if the leader lives after all, a majority
    still hears it and answers no. A leader only stops to rely on that follower.
    """
    if raft.role is Role.FOLLOWER and raft.leader_id == event.server:
        raft.leader_contact_us = None
        hasty_us = raft.now_us + raft.generator.randint(0, raft.options.heartbeat_us)
        raft.election_deadline_us = min(raft.election_deadline_us, hasty_us)
    elif raft.role is Role.LEADER:
        thrift.disconnected(raft, event.server)


def campaign(raft: Raft, *, leadership_transfer: bool) -> None:
    """Convert to candidate in a new term.

    "On conversion to candidate, start election: increment currentTerm, vote for self, reset election timer,
    send RequestVote RPCs to all other servers" (Figure 3.1).
    """
    raft.become_follower(raft.current_term, None)
    raft.begin_term(raft.current_term + 1)
    raft.role = Role.CANDIDATE
    reset_election_deadline(raft)
    _ask_for_votes(raft, pre_vote=False, leadership_transfer=leadership_transfer)


def _ask_for_votes(raft: Raft, *, pre_vote: bool, leadership_transfer: bool) -> None:
    raft.votes = {raft.server_id}
    raft.rejections = set()
    request = RequestVote(
        term=raft.current_term + 1 if pre_vote else raft.current_term,
        candidate_id=raft.server_id,
        last_log_index=raft.log.last_index,
        last_log_term=raft.log.last_term,
        pre_vote=pre_vote,
        leadership_transfer=leadership_transfer,
    )
    for voter in sorted(raft.configuration.voters - {raft.server_id}):
        if pre_vote:
            raft.answer(voter, request)
        else:
            raft.send_after_save(voter, request)
    _count_votes(raft)


def hard_state_saved(raft: Raft) -> None:
    """Count a candidate's vote for itself, which is on disk now."""
    if raft.role is Role.CANDIDATE:
        _count_votes(raft)


def request_vote(raft: Raft, sender: ServerId, message: RequestVote) -> None:
    """Answer a RequestVote.

    1. "Reply false if term < currentTerm."
    2. "If votedFor is null or candidateId, and candidate's log is at least as up-to-date as receiver's log,
       grant vote" (Figure 3.1). For a pre-vote the term asked about must be a later one, and nothing changes.
    """
    if message.term < raft.current_term:
        raft.answer(sender, RequestVoteResult(raft.current_term, vote_granted=False, pre_vote=message.pre_vote))
        return
    held = holds_on_to_leader(raft, message)
    if held and not message.pre_vote and message.term > raft.current_term:
        # The term was left alone, so there is nothing true to answer in it.
        return
    if message.pre_vote:
        granted = not held and message.term > raft.current_term and _is_up_to_date(raft, message)
        term = message.term if granted else raft.current_term
        raft.answer(sender, RequestVoteResult(term, granted, pre_vote=True))
        return
    granted = _is_free_to_vote_for(raft, message.candidate_id) and _is_up_to_date(raft, message)
    if granted:
        if raft.role is Role.PRE_CANDIDATE:
            raft.become_follower(raft.current_term, None)
        raft.vote_for(message.candidate_id)
        reset_election_deadline(raft)
    raft.answer(sender, RequestVoteResult(raft.current_term, granted))


def _is_free_to_vote_for(raft: Raft, candidate: ServerId) -> bool:
    """Whether this term's vote is the candidate's already, or nobody's in a term that has no leader yet."""
    return raft.voted_for == candidate or (raft.voted_for is None and raft.leader_id is None)


def _is_up_to_date(raft: Raft, message: RequestVote) -> bool:
    """Whether a candidate's log has all that is committed, as far as this server can know.

    "If the logs have last entries with different terms, then the log with the later term is more up-to-date. If
    the logs end with the same term, then whichever log is longer is more up-to-date" (thesis 3.6.1).
    """
    return (message.last_log_term, message.last_log_index) >= (raft.log.last_term, raft.log.last_index)


def request_vote_result(raft: Raft, sender: ServerId, message: RequestVoteResult) -> None:
    """Count an answer, if it is to the question that is being asked now; each voter counts once."""
    if message.pre_vote:
        asked = raft.role is Role.PRE_CANDIDATE
        term = raft.current_term + 1 if message.vote_granted else raft.current_term
    else:
        asked = raft.role is Role.CANDIDATE
        term = raft.current_term
    if not asked or message.term != term:
        return
    (raft.votes if message.vote_granted else raft.rejections).add(sender)
    _count_votes(raft)


def _count_votes(raft: Raft) -> None:
    """End the candidacy when it is decided.

    "If votes received from majority of servers: become leader" (Figure 3.1). Its own vote counts once it is on disk:
    until then a server that needs no other's could lead the same term again after a restart.
    """
    if raft.configuration.is_quorum(raft.votes):
        if raft.role is Role.PRE_CANDIDATE:
            campaign(raft, leadership_transfer=False)
        elif raft.hard_state_is_saved:
            replication.become_leader(raft)
    elif raft.configuration.is_quorum(raft.rejections):
        deadline_us = raft.election_deadline_us
        raft.become_follower(raft.current_term, None)
        raft.election_deadline_us = deadline_us
