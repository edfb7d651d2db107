"""The properties of Figure 3.2, checked after every step of every server of a cluster, in tests and simulation.

The checker sees all servers at once, which no server can, and keeps what was ever true: who led each term, which
entry stands at an index and term, which term was committed at an index. A step is compared with the server's
state after the step before, so a check costs as much as the step changed, not as much as the log is long.

* Election Safety: "at most one leader can be elected in a given term".
* Leader Append-Only: "a leader never overwrites or deletes entries in its log; it only appends new entries".
* Log Matching: "if two logs contain an entry with the same index and term, then the logs are identical in all
  entries up through the given index". By induction it is enough that an index and a term name one entry, and one
  term of the entry before it.
* Leader Completeness: "if a log entry is committed in a given term, then that entry will be present in the logs of
  the leaders for all higher-numbered terms". With Log Matching it is enough to look for the last such entry.
* State Machine Safety: "if a server has applied a log entry at a given index to its state machine, no other server
  will ever apply a different log entry for the same index". Entries are applied up to the commit index.

Beside them, for each server by itself: its term and commit index never decrease, a vote of a term is never
changed, and its fields fit together.
"""

from __future__ import annotations

from bisect import bisect_left

import attrs

from statemachine.messages import AppendEntries, InstallSnapshot, Message, RequestVoteResult, ServerId
from statemachine.progress import ProgressState
from statemachine.raft import Raft
from statemachine.roles import Role


class InvariantViolation(AssertionError):
    """Raft's safety is broken, or a server's state makes no sense."""


@attrs.define(slots=True)
class _Seen:
    """A server as it was after its last step."""

    raft: Raft
    current_term: int
    voted_for: ServerId | None
    role: Role
    commit_index: int
    last_index: int
    runs: list[tuple[int, int]]


class InvariantChecker:
    """Watches a cluster; every method raises :class:`InvariantViolation` when something is wrong."""

    def __init__(self) -> None:
        """Begin with a cluster that has done nothing yet."""
        self._seen: dict[ServerId, _Seen] = {}
        self._leaders: dict[int, ServerId] = {}
        self._entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        """By index and term: the entry, and the term of the one before it."""
        self._committed: dict[int, int] = {}
        """By index: the term of the entry committed there."""
        self._commits_terms: list[int] = []
        self._commits_indexes: list[int] = []
        """Terms in which a leader committed, ascending, and the last index that it committed."""
        self._votes: dict[tuple[ServerId, int], ServerId] = {}

    def started(self, raft: Raft) -> None:
        """A server was made, for the first time or again from its disk."""
        runs = raft.log.runs()
        _check_fields(raft, runs)
        self._seen[raft.server_id] = seen = _Seen(raft, raft.current_term, raft.voted_for, raft.role, 0, 0, [])
        self._check_log(raft, seen, runs)
        self._check_commits(raft, seen)
        _remember(raft, seen, runs)

    def stepped(self, raft: Raft) -> None:
        """A server has taken a step."""
        seen = self._seen[raft.server_id]
        _check_monotonic(raft, seen)
        runs = raft.log.runs()
        _check_fields(raft, runs)
        self._check_log(raft, seen, runs)
        if raft.role is Role.LEADER and (seen.role is not Role.LEADER or seen.current_term != raft.current_term):
            self._check_new_leader(raft)
        self._check_commits(raft, seen)
        _remember(raft, seen, runs)

    def sent(self, sender: ServerId, to: ServerId, message: Message) -> None:
        """A message has left a server, so it must be true even if that server stops now."""
        term = message.term
        if isinstance(message, AppendEntries | InstallSnapshot):
            self._check_election_safety(term, sender)
        granted = isinstance(message, RequestVoteResult) and message.vote_granted and not message.pre_vote
        if granted and self._votes.setdefault((sender, term), to) != to:
            raise InvariantViolation(f"server {sender} voted twice in term {term}")

    def _check_election_safety(self, term: int, leader: ServerId) -> None:
        if self._leaders.setdefault(term, leader) != leader:
            raise InvariantViolation(f"servers {self._leaders[term]} and {leader} both lead term {term}")

    def _check_new_leader(self, raft: Raft) -> None:
        self._check_election_safety(raft.current_term, raft.server_id)
        before = bisect_left(self._commits_terms, raft.current_term)
        if before > 0:
            self._check_completeness(raft, max(self._commits_indexes[:before]))

    def _check_completeness(self, raft: Raft, index: int) -> None:
        """Leader Completeness: a leader of a later term than that of the commit has what was committed."""
        if index > raft.log.base_index and raft.log.term_at(index) != self._committed[index]:
            raise InvariantViolation(
                f"leader {raft.server_id} of term {raft.current_term} lacks committed entry {index}"
            )

    def _check_log(self, raft: Raft, seen: _Seen, runs: list[tuple[int, int]]) -> None:
        """Leader Append-Only and Log Matching, for the entries that changed."""
        log = raft.log
        unchanged_until = _common_last_index(seen, runs, log.last_index)
        leads_on = seen.role is Role.LEADER and raft.role is Role.LEADER and seen.current_term == raft.current_term
        if leads_on and unchanged_until < seen.last_index:
            raise InvariantViolation(f"leader {raft.server_id} has overwritten entries behind {unchanged_until}")
        first_changed = max(unchanged_until, log.base_index) + 1
        if first_changed > log.last_index:
            return
        previous_term = log.term_at(first_changed - 1)
        assert previous_term is not None, "just before the log, or within it"
        for index, entry in enumerate(log.entries(first_changed, log.last_index), first_changed):
            term = log.term_at(index)
            assert term is not None, "within the log"
            known_entry, known_previous = self._entries.setdefault((index, term), (entry, previous_term))
            if (known_entry, known_previous) != (entry, previous_term):
                raise InvariantViolation(f"server {raft.server_id}: another entry {index} of term {term}")
            previous_term = term

    def _check_commits(self, raft: Raft, seen: _Seen) -> None:
        """State Machine Safety, for what was committed by this step."""
        log = raft.log
        news = raft.commit_index > seen.commit_index
        for index in range(max(seen.commit_index + 1, log.base_index), raft.commit_index + 1):
            term = log.term_at(index)
            assert term is not None, "committed entries are in the log or just before it"
            if self._committed.setdefault(index, term) != term:
                raise InvariantViolation(f"server {raft.server_id}: another entry is committed at {index}")
        if news and raft.role is Role.LEADER and log.term_at(raft.commit_index) == raft.current_term:
            self._note_commit(raft)

    def _note_commit(self, raft: Raft) -> None:
        position = bisect_left(self._commits_terms, raft.current_term)
        if position < len(self._commits_terms) and self._commits_terms[position] == raft.current_term:
            self._commits_indexes[position] = raft.commit_index
        else:
            self._commits_terms.insert(position, raft.current_term)
            self._commits_indexes.insert(position, raft.commit_index)
        for other in self._seen.values():
            if other.role is Role.LEADER and other.current_term > raft.current_term:
                self._check_completeness(other.raft, raft.commit_index)


def _common_last_index(seen: _Seen, runs: list[tuple[int, int]], last_index: int) -> int:
    """Up to which index the log's terms, where both have it, are what they were.

    Terms change only where a run begins, so only those places are looked at.
    """
    common = min(seen.last_index, last_index)
    if runs == seen.runs:
        return common
    first = max(seen.runs[0][0] if seen.runs else common + 1, runs[0][0] if runs else common + 1)
    places = sorted({first, *(index for index, _ in [*seen.runs, *runs] if index > first)})
    for index in places:
        if index > common:
            break
        if _term_of(seen.runs, index) != _term_of(runs, index):
            return index - 1
    return common


def _term_of(runs: list[tuple[int, int]], index: int) -> int:
    return runs[bisect_left(runs, (index + 1, 0)) - 1][1]


def _remember(raft: Raft, seen: _Seen, runs: list[tuple[int, int]]) -> None:
    seen.raft = raft
    seen.current_term = raft.current_term
    seen.voted_for = raft.voted_for
    seen.role = raft.role
    seen.commit_index = raft.commit_index
    seen.last_index = raft.log.last_index
    seen.runs = runs


def _check_monotonic(raft: Raft, seen: _Seen) -> None:
    _demand(raft, raft.current_term >= seen.current_term, "the term has decreased")
    _demand(raft, raft.commit_index >= seen.commit_index, "the commit index has decreased")
    if raft.current_term == seen.current_term and seen.voted_for is not None:
        _demand(raft, raft.voted_for == seen.voted_for, "the vote has changed within a term")


def _check_fields(raft: Raft, runs: list[tuple[int, int]]) -> None:
    log = raft.log
    terms = [log.base_term, *[term for _, term in runs], raft.current_term]
    leads = raft.role is Role.LEADER
    _demand(raft, terms == sorted(terms), "terms decrease along the log")
    _demand(raft, log.base_index <= raft.commit_index <= log.last_index, "the commit index is outside of the log")
    _demand(raft, log.base_index <= raft.persisted_index <= log.last_index, "saved entries that aren't there")
    _demand(raft, log.base_index <= log.memory_base, "entries in memory that aren't in the log")
    on_disk_alone = log.memory_base if log.memory_base > log.base_index else 0
    _demand(raft, on_disk_alone <= min(raft.commit_index, raft.persisted_index), "forgotten before it was saved")
    _demand(raft, raft.verified_index <= log.last_index, "verified entries that aren't there")
    _demand(raft, raft.known_commit_index >= raft.commit_index, "committed more than any leader said")
    _demand(raft, leads == (raft.leader_id == raft.server_id), "a leader knows that it leads, and nobody else does")
    if leads:
        _check_leader(raft)
        return
    if raft.role is Role.CANDIDATE:
        _demand(raft, raft.voted_for == raft.server_id, "a candidate votes for itself")
    if raft.role is not Role.FOLLOWER:
        _demand(raft, raft.leader_id is None, "a candidate has no leader")
    _demand(raft, not raft.progress, "a leader, and nobody else, has progress of all others")
    _demand(raft, raft.transfer_target is None, "handing over what one doesn't have")


def _check_leader(raft: Raft) -> None:
    _demand(raft, raft.voted_for == raft.server_id, "a candidate votes for itself")
    others = raft.configuration.members - {raft.server_id}
    _demand(raft, raft.progress.keys() == others, "a leader, and nobody else, has progress of all others")
    next_index_max = raft.log.last_index + 1
    for progress in raft.progress.values():
        _demand(raft, progress.match_index < progress.next_index <= next_index_max, "next and match index")
        inflight = progress.inflight
        size = sum([size for _, size in inflight]) if inflight else 0
        _demand(raft, progress.inflight_bytes == size, "bytes in flight")
        snapshot = progress.state is ProgressState.SNAPSHOT
        _demand(raft, snapshot == (progress.snapshot is not None), "a snapshot is sent in the state for it alone")


def _demand(raft: Raft, holds: bool, what: str) -> None:
    if not holds:
        raise InvariantViolation(f"server {raft.server_id}, {raft.role.value} of term {raft.current_term}: {what}")
