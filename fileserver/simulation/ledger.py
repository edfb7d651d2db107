"""Keeps the books of a cluster: what servers told and saved, held against what they do upon it.

Properties beside those of :mod:`statemachine.invariants`, which look at what each server believes:

* A leader was voted for, in its term, by a majority: votes are counted as they are sent.
* A leader commits only up to an entry of its own term (thesis 3.6.2), and what it commits, a majority has saved by
  then. (Running or not: what a server had saved when it ended, it has.)
* What a server knew to be saved when it ended (its term, its vote, its entries) it knows when it is started again; and
  so it does every vote that it has told anybody of.

So a vote that was counted wrongly, a save that is spoken of too early, and one that didn't last are found when that
happens, and not only when more bad luck makes a cluster forget something.
"""

from __future__ import annotations

from collections import defaultdict

from statemachine.invariants import InvariantViolation
from statemachine.messages import Message, RequestVote, RequestVoteResult
from statemachine.raft import Raft


class Ledger:
    """Watches a cluster; every method raises :class:`InvariantViolation`."""

    def __init__(self) -> None:
        """Nobody has told or saved anything yet."""
        self._rafts: dict[int, Raft] = {}
        """The last run of each server, be it over."""
        self._told: dict[int, tuple[int, int]] = {}
        """By server: the last term in which it has told of a vote, and whom it is for."""
        self._voters: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        """By term and candidate: who has told of a vote for it."""
        self._leaders: dict[int, tuple[int, int]] = {}
        """By server: the last term that it was found to lead, and how far it had committed then."""

    def started(self, raft: Raft, *, may_forget: bool) -> None:
        """A server has started; ``may_forget``: its disk was damaged meanwhile."""
        before = self._rafts.get(raft.server_id)
        if before is not None and not may_forget:
            _check_memory(before, raft)
            self._check_vote(raft)
        self._rafts[raft.server_id] = raft

    def sent(self, sender: int, to: int, message: Message) -> None:
        """A message has left a server."""
        if isinstance(message, RequestVote) and not message.pre_vote:
            self._voted(sender, message.term, sender)
        elif isinstance(message, RequestVoteResult) and message.vote_granted and not message.pre_vote:
            self._voted(sender, message.term, to)

    def stepped(self, raft: Raft) -> None:
        """A server has taken its turn."""
        if not raft.is_leader:
            return
        term, commit_index = self._leaders.get(raft.server_id, (0, 0))
        if term != raft.current_term:
            self._check_elected(raft)
        elif raft.commit_index > commit_index:
            self._check_commit(raft)
        self._leaders[raft.server_id] = raft.current_term, raft.commit_index

    def _voted(self, voter: int, term: int, candidate: int) -> None:
        self._told[voter] = term, candidate
        self._voters[term, candidate].add(voter)

    def _check_elected(self, raft: Raft) -> None:
        voters = self._voters[raft.current_term, raft.server_id] | {raft.server_id}
        if not _is_majority(raft, voters):
            raise InvariantViolation(
                f"server {raft.server_id} leads term {raft.current_term} by the votes of {sorted(voters)}"
            )

    def _check_commit(self, raft: Raft) -> None:
        index = raft.commit_index
        term = raft.log.term_at(index)
        if term != raft.current_term:
            raise InvariantViolation(
                f"leader {raft.server_id} of term {raft.current_term} has committed entry {index} of term {term}"
            )
        savers = {server for server, other in self._rafts.items() if _has_saved(other, index, term)}
        if not _is_majority(raft, savers):
            raise InvariantViolation(
                f"leader {raft.server_id} has committed entry {index}, which only {sorted(savers)} have saved"
            )

    def _check_vote(self, raft: Raft) -> None:
        if raft.server_id not in self._told:
            return
        term, candidate = self._told[raft.server_id]
        if raft.current_term < term or (raft.current_term == term and raft.voted_for != candidate):
            raise InvariantViolation(f"server {raft.server_id} has forgotten its vote for {candidate} in term {term}")


def _is_majority(raft: Raft, servers: set[int]) -> bool:
    """Counted here, and not by the configuration's own rule, which may be wrong."""
    voters = raft.configuration.voters
    return 2 * len(voters & servers) > len(voters)


def _has_saved(raft: Raft, index: int, term: int | None) -> bool:
    return raft.persisted_index >= index and (raft.log.base_index >= index or raft.log.term_at(index) == term)


def _check_memory(before: Raft, raft: Raft) -> None:
    forgotten = None
    if before.hard_state_is_saved:
        if raft.current_term < before.current_term:
            forgotten = f"term {before.current_term}"
        elif raft.current_term == before.current_term and before.voted_for not in (None, raft.voted_for):
            forgotten = f"its vote for {before.voted_for} in term {before.current_term}"
    if not _has_saved(raft, before.persisted_index, before.log.term_at(before.persisted_index)):
        forgotten = f"entry {before.persisted_index}, which it had saved"
    if forgotten is not None:
        raise InvariantViolation(f"server {raft.server_id} has forgotten {forgotten}")
