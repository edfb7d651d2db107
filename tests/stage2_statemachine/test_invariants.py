"""The checker finds what it is there to find: each property is broken once, by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from statemachine.configuration import Configuration
from statemachine.events import SnapshotInstalled, SnapshotTaken, Timeout
from statemachine.invariants import InvariantChecker, InvariantViolation
from statemachine.messages import AppendEntries, InstallSnapshot, Message, RequestVoteResult
from statemachine.progress import Progress, SnapshotMeta
from statemachine.raft import Raft
from statemachine.roles import Role
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import accept, receive, save_all, saved, server


def watched(*rafts: Raft) -> InvariantChecker:
    checker = InvariantChecker()
    for raft in rafts:
        checker.started(raft)
    return checker


def elected(server_id: int, terms: tuple[int, ...], term: int, *, check: InvariantChecker | None = None) -> Raft:
    """A server that leads ``term``; the checker sees it before and after it was elected."""
    raft = server(terms, term=term - 1, server_id=server_id)
    if check is not None:
        check.started(raft)
    raft.current_term = term
    raft.voted_for = raft.leader_id = server_id
    raft.role = Role.LEADER
    raft.progress = {other: Progress(raft.log.last_index + 1, 0) for other in {1, 2, 3} - {server_id}}
    return raft


def test_election_safety() -> None:
    checker = InvariantChecker()
    checker.stepped(elected(1, (1,), 4, check=checker))
    with pytest.raises(InvariantViolation, match="both lead term 4"):
        checker.stepped(elected(2, (1,), 4, check=checker))


@pytest.mark.parametrize(
    "message", [AppendEntries(4, 2, 0, 0, 0, (), 0, 0), InstallSnapshot(4, 2, 1, 1, 0, b"", False, 0)]
)
def test_election_safety_by_what_is_sent(message: Message) -> None:
    checker = InvariantChecker()
    checker.sent(1, 3, AppendEntries(4, 1, 0, 0, 0, (), 0, 0))
    with pytest.raises(InvariantViolation, match="both lead term 4"):
        checker.sent(2, 3, message)


def test_a_server_that_voted_twice_in_a_term() -> None:
    """Even when it forgot in between: what was sent counts."""
    checker = InvariantChecker()
    checker.sent(1, 2, RequestVoteResult(4, vote_granted=True))
    checker.sent(1, 2, RequestVoteResult(4, vote_granted=True))
    checker.sent(1, 3, RequestVoteResult(4, vote_granted=False))
    checker.sent(1, 3, RequestVoteResult(4, vote_granted=True, pre_vote=True))
    checker.sent(1, 3, RequestVoteResult(5, vote_granted=True))
    with pytest.raises(InvariantViolation, match="server 1 voted twice in term 4"):
        checker.sent(1, 3, RequestVoteResult(4, vote_granted=True))


def test_leader_append_only() -> None:
    raft = states.leader((1, 1), term=4)
    checker = watched(raft)
    raft.log.append(4, [b"more"])
    checker.stepped(raft)
    raft.log.truncate(1)
    raft.log.append(4, [b"other"] * 3)
    raft.persisted_index = 1
    with pytest.raises(InvariantViolation, match="overwritten entries behind 1"):
        checker.stepped(raft)


def test_leader_append_only_when_it_got_shorter() -> None:
    raft = states.leader((1, 1), term=4)
    checker = watched(raft)
    raft.log.truncate(2)
    raft.persisted_index = 2
    for progress in raft.progress.values():
        progress.next_index = 3
    with pytest.raises(InvariantViolation, match="overwritten entries behind 2"):
        checker.stepped(raft)


def test_log_matching_of_one_entry() -> None:
    one, other = server((1, 2)), server((1, 2), server_id=2)
    checker = watched(one, other)
    one.log.append(2, [b"x"])
    checker.stepped(one)
    other.log.append(2, [b"y"])
    with pytest.raises(InvariantViolation, match="server 2: another entry 3 of term 2"):
        checker.stepped(other)


def test_log_matching_of_what_is_before_an_entry() -> None:
    one, other = server((1, 2, 3)), server((1, 1, 3), server_id=2)
    checker = watched(one)
    with pytest.raises(InvariantViolation, match="server 2: another entry 3 of term 3"):
        checker.started(other)


def test_leader_completeness_of_a_new_leader() -> None:
    checker = InvariantChecker()
    leader = elected(1, (1, 4), 4, check=checker)
    checker.stepped(leader)
    leader.commit_index = leader.known_commit_index = 2
    checker.stepped(leader)
    checker.stepped(elected(2, (1, 4), 5, check=checker))
    checker.stepped(elected(3, (1,), 3, check=checker))
    with pytest.raises(InvariantViolation, match="leader 3 of term 6 lacks committed entry 2"):
        checker.stepped(elected(3, (1, 2), 6, check=checker))


def test_leader_completeness_when_the_older_leader_commits_later() -> None:
    """Its answers may have been long on their way; what they acknowledge was stored before the later election."""
    checker = InvariantChecker()
    old = elected(1, (1, 4), 4, check=checker)
    checker.stepped(old)
    checker.stepped(elected(2, (1,), 5, check=checker))
    old.commit_index = old.known_commit_index = 2
    with pytest.raises(InvariantViolation, match="leader 2 of term 5 lacks committed entry 2"):
        checker.stepped(old)


def test_leader_completeness_counts_what_a_snapshot_covers() -> None:
    checker = InvariantChecker()
    leader = elected(1, (1, 4), 4, check=checker)
    checker.stepped(leader)
    leader.commit_index = leader.known_commit_index = 1
    checker.stepped(leader)
    leader.commit_index = leader.known_commit_index = 2
    checker.stepped(leader)
    later = server((), term=4, server_id=2, snapshot=SnapshotMeta(2, 4, 9))
    checker.started(later)
    for each in (1, 3):
        later.step(Timeout(), later.deadline_us)
        saved(later, receive(later, each, RequestVoteResult(later.current_term + 1, vote_granted=True, pre_vote=True)))
        receive(later, each, RequestVoteResult(later.current_term, vote_granted=True))
        checker.stepped(later)
        if later.is_leader:
            break
    assert later.is_leader


def test_state_machine_safety() -> None:
    one, other = server((1, 2)), server((1, 1), server_id=2)
    checker = watched(one, other)
    one.commit_index = one.known_commit_index = 2
    checker.stepped(one)
    other.commit_index = other.known_commit_index = 1
    checker.stepped(other)
    other.commit_index = other.known_commit_index = 2
    with pytest.raises(InvariantViolation, match="server 2: another entry is committed at 2"):
        checker.stepped(other)


def test_state_machine_safety_of_snapshots() -> None:
    one = server((1, 2))
    checker = watched(one)
    one.commit_index = one.known_commit_index = 2
    checker.stepped(one)
    with pytest.raises(InvariantViolation, match="another entry is committed at 2"):
        checker.started(server((), term=5, server_id=2, snapshot=SnapshotMeta(2, 3, 9)))


def set_fields(**values: object) -> Callable[[Raft], None]:
    def change(raft: Raft) -> None:
        for name, value in values.items():
            setattr(raft, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (set_fields(current_term=3), "term has decreased|terms decrease"),
        (set_fields(commit_index=1), "commit index has decreased"),
        (set_fields(voted_for=3), "vote has changed"),
        (set_fields(commit_index=9, known_commit_index=9), "outside of the log"),
        (set_fields(persisted_index=9), "saved entries"),
        (set_fields(verified_index=9), "verified entries"),
        (set_fields(known_commit_index=1), "committed more"),
        (set_fields(leader_id=None), "knows that it leads"),
        (set_fields(progress={}), "has progress"),
        (set_fields(role=Role.FOLLOWER, leader_id=None), "has progress"),
        (set_fields(role=Role.FOLLOWER, leader_id=None, progress={}, transfer_target=2), "handing over"),
        (set_fields(role=Role.CANDIDATE, leader_id=2), "has no leader"),
        (lambda raft: setattr(raft.progress[2], "match_index", 9), "next and match index"),
        (lambda raft: setattr(raft.progress[2], "inflight_bytes", 9), "bytes in flight"),
        (lambda raft: setattr(raft.progress[2], "snapshot", SnapshotMeta(1, 1, 1)), "state for it alone"),
        (lambda raft: raft.log.append(9, [b"x"]), "terms decrease"),
    ],
)
def test_a_servers_own_state(change: Callable[[Raft], None], what: str) -> None:
    raft = states.leader((1, 1), term=4)
    accept(raft, 2, 3)
    checker = watched(raft)
    change(raft)
    with pytest.raises(InvariantViolation, match=what):
        checker.stepped(raft)


def test_a_candidate_votes_for_itself() -> None:
    raft = states.candidate(term=4)
    raft.voted_for = 2
    with pytest.raises(InvariantViolation, match="votes for itself"):
        watched(raft)


def test_a_new_term_begins_without_a_vote() -> None:
    raft = server((1,), term=4, voted_for=2)
    checker = watched(raft)
    receive(raft, 3, AppendEntries(5, 3, 1, 1, 0, (), 0, 0))
    checker.stepped(raft)
    assert raft.voted_for is None


def test_changes_of_the_log_that_are_right() -> None:
    """Appending, compaction, truncation of what isn't committed, a reset behind a snapshot: none is a violation."""
    raft = states.follower((1, 1, 2, 2), term=5)
    checker = watched(raft)
    receive(raft, 2, AppendEntries(5, 2, 4, 2, 5, (b"x",), 2, 1))
    checker.stepped(raft)
    raft.step(SnapshotTaken(2, 1, 9, 3), raft.now_us)
    checker.stepped(raft)
    receive(raft, 3, AppendEntries(6, 3, 3, 2, 6, (b"y",), 3, 1))
    checker.stepped(raft)
    receive(raft, 3, AppendEntries(6, 3, 3, 2, 0, (), 3, 2))
    checker.stepped(raft)
    raft.step(SnapshotInstalled(9, 6, 9), raft.now_us)
    checker.stepped(raft)
    saved(raft, receive(raft, 3, AppendEntries(6, 3, 9, 6, 6, (b"z",), 10, 3)))
    checker.stepped(raft)
    assert (raft.commit_index, raft.persisted_index) == (10, 10)


def test_a_single_voter() -> None:
    raft = states.leader(term=1, configuration=Configuration(voters=(1,)))
    checker = watched(raft)
    save_all(raft)
    checker.stepped(raft)
    assert raft.commit_index == 1
