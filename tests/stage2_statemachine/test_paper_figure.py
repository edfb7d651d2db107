"""One test for each sentence of the thesis' Figure 3.1 (Figure 2 of the paper), in the figure's order."""

from __future__ import annotations

import pytest

from statemachine.events import EntriesRun, HardState, Receive, Submit, Timeout
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
    Message,
    ReadIndex,
    ReadIndexResult,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)
from statemachine.progress import ProgressState
from statemachine.roles import Role
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import (
    ELECTION_TIMEOUT_US,
    FIVE,
    OPTIONS,
    accept,
    entry,
    receive,
    save_all,
    saved,
    sent,
    sent_after_save,
    server,
    step,
    terms_of,
)

# State


def test_persistent_state_is_updated_on_stable_storage_before_responding_to_rpcs() -> None:
    """ "Persistent state on all servers (updated on stable storage before responding to RPCs)"."""
    raft = server()
    ready = receive(raft, 2, RequestVote(1, 2, 0, 0))
    assert ready.hard_state == HardState(1, 2)
    assert sent(ready) == []
    assert sent_after_save(ready) == [(2, RequestVoteResult(1, vote_granted=True))]
    # Until it is saved, later answers wait as well, as they speak of the same term.
    later = receive(raft, 3, RequestVote(1, 3, 0, 0))
    assert (later.hard_state, sent(later)) == (None, [])
    assert sent_after_save(later) == [(3, RequestVoteResult(1, vote_granted=False))]
    saved(raft, ready)
    assert sent(receive(raft, 3, RequestVote(1, 3, 0, 0))) == [(3, RequestVoteResult(1, vote_granted=False))]


def test_current_term_is_initialised_to_0_and_increases_monotonically() -> None:
    """ "currentTerm: latest term server has seen (initialized to 0 on first boot, increases monotonically)"."""
    raft = server()
    assert raft.current_term == 0
    for term, expected in ((3, 3), (2, 3), (3, 3), (7, 7), (1, 7)):
        receive(raft, 2, AppendEntries(term, 2, 0, 0, 0, (), 0, 0))
        assert raft.current_term == expected


def test_voted_for_is_null_or_the_candidate_of_the_current_term() -> None:
    """ "votedFor: candidateId that received vote in current term (or null if none)"."""
    raft = server()
    assert raft.voted_for is None
    receive(raft, 2, RequestVote(1, 2, 0, 0))
    assert raft.voted_for == 2
    receive(raft, 3, RequestVote(2, 3, 0, 0))
    assert raft.voted_for == 3
    receive(raft, 2, AppendEntries(3, 2, 0, 0, 0, (), 0, 0))
    assert raft.voted_for is None


def test_log_entries_have_a_term_and_the_first_index_is_1() -> None:
    """ "log[]: each entry contains command for state machine, and term when entry was received by leader (first
    index is 1)"."""
    raft = states.leader(term=4)
    step(raft, Submit((b"command",)))
    assert raft.log.first_index == 1
    assert raft.log.entries(1, 2) == [b"", b"command"]
    assert terms_of(raft) == [4, 4]


def test_the_state_survives_a_restart() -> None:
    """What was persistent is there after a restart; the rest begins anew (3.8)."""
    raft = server((1, 2, 2), term=5, voted_for=3)
    assert (raft.current_term, raft.voted_for, terms_of(raft)) == (5, 3, [1, 2, 2])
    assert (raft.role, raft.leader_id, raft.commit_index, raft.persisted_index) == (Role.FOLLOWER, None, 0, 3)


def test_commit_index_is_initialised_to_0_and_increases_monotonically() -> None:
    """ "commitIndex: index of highest log entry known to be committed (initialized to 0, increases
    monotonically)"."""
    raft = states.follower((1, 1, 1), term=1)
    assert raft.commit_index == 0
    for commit, expected in ((1, 1), (3, 3), (2, 3), (0, 3)):
        receive(raft, 2, AppendEntries(1, 2, 3, 1, 0, (), commit, 1))
        assert raft.commit_index == expected


def test_next_index_is_initialised_to_the_last_log_index_plus_1_and_match_index_to_0() -> None:
    """ "nextIndex[]: (initialized to leader last log index + 1); matchIndex[]: (initialized to 0, increases
    monotonically)". The leader's own first entry comes behind that."""
    raft = states.leader((1, 1, 3), term=5)
    assert {each: (p.next_index, p.match_index) for each, p in raft.progress.items()} == {2: (4, 0), 3: (4, 0)}
    for index, expected in ((3, 3), (2, 3), (4, 4), (0, 4)):
        accept(raft, 2, index=index)
        assert raft.progress[2].match_index == expected


def test_next_and_match_index_are_reinitialised_after_election() -> None:
    """ "Volatile state on leaders: (reinitialized after election)"."""
    raft = states.leader((1,), term=2)
    accept(raft, 2, 3)
    receive(raft, 3, AppendEntriesResult(3, False, 1, 1, 1, 0))
    assert raft.progress == {}
    raft.step(Timeout(), raft.deadline_us)
    saved(raft, receive(raft, 2, RequestVoteResult(4, vote_granted=True, pre_vote=True)))
    receive(raft, 2, RequestVoteResult(4, vote_granted=True))
    assert raft.is_leader
    assert [p.match_index for p in raft.progress.values()] == [0, 0]


# AppendEntries RPC, receiver implementation


def test_append_entries_1_false_if_the_term_is_old() -> None:
    """ "1. Reply false if term < currentTerm"."""
    raft = states.follower((1,), term=3)
    ready = receive(raft, 3, AppendEntries(2, 3, 1, 1, 2, (b"x",), 2, 0))
    assert sent(ready) == [(3, AppendEntriesResult(3, False, 1, 1, 1, 0))]
    assert (terms_of(raft), raft.commit_index) == ([1], 0)


@pytest.mark.parametrize(
    ("previous", "previous_term", "hint"),
    [(4, 3, (3, 3)), (9, 9, (3, 3)), (3, 2, (2, 2)), (2, 1, (1, 1)), (3, 4, (3, 3))],
)
def test_append_entries_2_false_if_the_previous_entry_does_not_match(
    previous: int, previous_term: int, hint: tuple[int, int]
) -> None:
    """ "2. Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm"."""
    raft = states.follower((1, 2, 3), term=9)
    ready = receive(raft, 2, AppendEntries(9, 2, previous, previous_term, 9, (b"x",), 9, 1))
    assert sent(ready) == [(2, AppendEntriesResult(9, False, previous, *hint, 1))]
    assert (terms_of(raft), raft.commit_index) == ([1, 2, 3], 0)


def test_append_entries_3_a_conflicting_entry_and_all_behind_it_are_deleted() -> None:
    """ "3. If an existing entry conflicts with a new one (same index but different terms), delete the existing
    entry and all that follow it"."""
    raft = states.follower((1, 2, 2, 2, 3), term=4)
    ready = receive(raft, 2, AppendEntries(4, 2, 2, 2, 4, (b"x",), 0, 1))
    assert terms_of(raft) == [1, 2, 4]
    assert ready.runs == [EntriesRun(3, 4, (b"x",))]


@pytest.mark.parametrize(
    ("previous", "count", "expected"),
    [
        (0, 1, [1, 2, 2, 2]),
        (1, 2, [1, 2, 2, 2]),
        (1, 3, [1, 2, 2, 2]),
        (4, 0, [1, 2, 2, 2]),
        (3, 3, [1, 2, 2, 2, 2, 2]),
    ],
)
def test_append_entries_3_entries_that_match_are_left_with_all_behind_them(
    previous: int, count: int, expected: list[int]
) -> None:
    """The same, the other way round: a message that is old or came twice deletes nothing."""
    raft = states.follower((1, 2, 2, 2), term=2)
    term = 1 if previous == 0 else 2
    entries = tuple(entry(index, term) for index in range(previous + 1, previous + count + 1))
    receive(raft, 2, AppendEntries(2, 2, previous, min(previous, 2 if previous > 1 else 1), term, entries, 0, 1))
    assert terms_of(raft) == expected


def test_append_entries_4_new_entries_are_appended_and_saved_before_the_answer() -> None:
    """ "4. Append any new entries not already in the log"."""
    raft = states.follower((1,), term=2)
    ready = receive(raft, 2, AppendEntries(2, 2, 0, 0, 1, (entry(1, 1), b"new"), 0, 1))
    assert ready.runs == [EntriesRun(2, 1, (b"new",))]
    assert sent(ready) == []
    assert sent_after_save(ready) == [(2, AppendEntriesResult(2, True, 2, 0, 0, 1))]


@pytest.mark.parametrize(
    ("leader_commit", "previous", "count", "expected"),
    [(9, 1, 1, 2), (1, 1, 1, 1), (0, 1, 1, 0), (9, 1, 0, 1), (9, 0, 0, 0), (3, 2, 5, 3)],
)
def test_append_entries_5_commit_index_is_the_minimum_of_the_leaders_and_the_last_new_entry(
    leader_commit: int, previous: int, count: int, expected: int
) -> None:
    """ "5. If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)": never by
    entries of one's own that the leader may not have."""
    raft = states.follower((1, 1, 1, 1), term=2)
    entries = tuple(entry(index, 1) for index in range(previous + 1, previous + count + 1))
    receive(raft, 2, AppendEntries(2, 2, previous, min(previous, 1), 1, entries, leader_commit, 1))
    assert raft.commit_index == expected


def test_append_entries_5_what_another_leader_verified_counts_for_nothing() -> None:
    """The log may differ from the new leader's behind the last entry that this one has sent."""
    raft = states.follower((1, 1, 1), term=2)
    receive(raft, 2, AppendEntries(2, 2, 3, 1, 0, (), 0, 1))
    receive(raft, 3, AppendEntries(3, 3, 1, 1, 0, (), 3, 0))
    assert (raft.commit_index, raft.known_commit_index) == (1, 3)
    receive(raft, 3, AppendEntries(3, 3, 2, 1, 3, (b"other",), 3, 0))
    assert (terms_of(raft), raft.commit_index) == ([1, 1, 3], 3)


# RequestVote RPC, receiver implementation


def test_request_vote_1_false_if_the_term_is_old() -> None:
    """ "1. Reply false if term < currentTerm"."""
    raft = server(term=5)
    assert sent(receive(raft, 2, RequestVote(4, 2, 9, 4))) == [(2, RequestVoteResult(5, vote_granted=False))]
    assert raft.voted_for is None


@pytest.mark.parametrize(("voted_for", "granted"), [(None, True), (2, True), (3, False), (1, False)])
def test_request_vote_2_granted_if_voted_for_is_null_or_the_candidate(voted_for: int | None, granted: bool) -> None:
    """ "2. If votedFor is null or candidateId, ... grant vote": to the same candidate again, to no other."""
    raft = server(term=5, voted_for=voted_for)
    ready = receive(raft, 2, RequestVote(5, 2, 0, 0))
    assert [*sent(ready), *sent_after_save(ready)] == [(2, RequestVoteResult(5, vote_granted=granted))]


@pytest.mark.parametrize(
    ("last_index", "last_term", "granted"),
    [(3, 2, True), (4, 2, True), (1, 3, True), (2, 2, False), (9, 1, False), (0, 0, False)],
)
@pytest.mark.parametrize("pre_vote", [False, True])
def test_request_vote_2_granted_if_the_log_is_at_least_as_up_to_date(
    last_index: int, last_term: int, granted: bool, pre_vote: bool
) -> None:
    """ "... and candidate's log is at least as up-to-date as receiver's log" (3.6.1)."""
    raft = server((1, 2, 2))
    ready = receive(raft, 2, RequestVote(3, 2, last_index, last_term, pre_vote))
    [(_, answer)] = [*sent(ready), *sent_after_save(ready)]
    assert isinstance(answer, RequestVoteResult)
    assert answer.vote_granted is granted


# Rules for servers: all


def test_all_servers_what_is_committed_may_be_applied() -> None:
    """ "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to state machine": the ready value
    says how far."""
    raft = states.follower((1, 1), term=1)
    assert receive(raft, 2, AppendEntries(1, 2, 2, 1, 0, (), 2, 1)).commit_index == 2


@pytest.mark.parametrize("role", ["follower", "pre_candidate", "candidate", "leader"])
@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(9, 3, 0, 0, 0, (), 0, 0),
        AppendEntriesResult(9, False, 0, 0, 0, 0),
        RequestVoteResult(9, vote_granted=False),
        RequestVoteResult(9, vote_granted=False, pre_vote=True),
        RequestVote(9, 3, 9, 9, leadership_transfer=True),
        InstallSnapshot(9, 3, 5, 5, 0, b"", False, 0),
        InstallSnapshotResult(9, 5, 0, False, 0),
        TimeoutNow(9),
        ReadIndex(9, 1),
        ReadIndexResult(9, 1, 5),
    ],
    ids=lambda message: type(message).__name__,
)
def test_all_servers_a_later_term_is_taken_and_makes_a_follower(role: str, message: Message) -> None:
    """ "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower"."""
    raft = getattr(states, role)((1,), term=5)
    ready = receive(raft, 3, message)
    assert (raft.role, raft.current_term) == (Role.FOLLOWER, 9)
    assert ready.hard_state == HardState(9, 3 if isinstance(message, RequestVote) else None)


# Rules for servers: followers


def test_followers_respond_to_rpcs_from_candidates_and_leaders() -> None:
    """ "Respond to RPCs from candidates and leaders", and issue none themselves."""
    raft = server()
    assert len(sent(receive(raft, 2, AppendEntries(0, 2, 0, 0, 0, (), 0, 0)))) == 1
    assert len(sent_after_save(receive(raft, 3, RequestVote(2, 3, 0, 0, leadership_transfer=True)))) == 1
    assert raft.ready().messages == []


def test_followers_campaign_when_the_election_timeout_elapses() -> None:
    """ "If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote to
    candidate: convert to candidate", by a pre-vote first (9.6)."""
    raft = states.follower((1,), term=3)
    assert sent(step(raft, Timeout(), ELECTION_TIMEOUT_US - 1)) == []
    ready = step(raft, Timeout(), 1)
    assert sent(ready) == [(to, RequestVote(4, 1, 1, 1, pre_vote=True)) for to in (2, 3)]
    assert (raft.role, raft.current_term) == (Role.PRE_CANDIDATE, 3)


def test_followers_put_the_election_off_when_they_hear_the_leader() -> None:
    """ "... without receiving AppendEntries RPC from current leader ..."."""
    raft = states.follower(term=3)
    receive(raft, 2, AppendEntries(3, 2, 0, 0, 0, (), 0, 1), 50_000)
    assert raft.deadline_us == 50_000 + ELECTION_TIMEOUT_US


def test_followers_put_the_election_off_when_they_vote() -> None:
    """ "... or granting vote to candidate"; a refused vote changes nothing."""
    raft = server((1,), term=3)
    receive(raft, 2, RequestVote(4, 2, 0, 0), 50_000)
    assert raft.deadline_us == ELECTION_TIMEOUT_US
    receive(raft, 2, RequestVote(4, 2, 1, 1), 50_000)
    assert raft.deadline_us == 100_000 + ELECTION_TIMEOUT_US


# Rules for servers: candidates


def test_candidates_start_an_election() -> None:
    """ "On conversion to candidate, start election: increment currentTerm, vote for self, reset election timer, send
    RequestVote RPCs to all other servers": these once the vote is saved."""
    raft = states.pre_candidate((1,), term=3)
    ready = receive(raft, 2, RequestVoteResult(4, vote_granted=True, pre_vote=True), 50_000)
    assert (raft.role, raft.current_term, raft.voted_for) == (Role.CANDIDATE, 4, 1)
    assert raft.deadline_us == ELECTION_TIMEOUT_US + 50_000 + ELECTION_TIMEOUT_US
    assert ready.hard_state == HardState(4, 1)
    assert sent(ready) == []
    assert sent_after_save(ready) == [(to, RequestVote(4, 1, 1, 1)) for to in (2, 3)]


def test_candidates_become_leader_with_votes_of_a_majority() -> None:
    """ "If votes received from majority of servers: become leader": of different ones, however often they answer."""
    raft = states.candidate(term=4, configuration=FIVE)
    for _ in range(3):
        receive(raft, 2, RequestVoteResult(4, vote_granted=True))
    receive(raft, 9, RequestVoteResult(4, vote_granted=True))
    assert not raft.is_leader
    receive(raft, 5, RequestVoteResult(4, vote_granted=True))
    assert raft.is_leader


def test_candidates_give_up_when_a_majority_says_no() -> None:
    """Not said in the figure: the election is lost, and the timeout goes on."""
    raft = states.candidate(term=4)
    deadline_us = raft.deadline_us
    receive(raft, 2, RequestVoteResult(4, vote_granted=False), 10_000)
    assert raft.role is Role.CANDIDATE
    receive(raft, 3, RequestVoteResult(4, vote_granted=False), 10_000)
    assert (raft.role, raft.deadline_us) == (Role.FOLLOWER, deadline_us)


@pytest.mark.parametrize("role", ["pre_candidate", "candidate"])
def test_candidates_follow_a_leader_of_their_term(role: str) -> None:
    """ "If AppendEntries RPC received from new leader: convert to follower"."""
    raft = getattr(states, role)(term=4)
    receive(raft, 2, AppendEntries(4, 2, 0, 0, 0, (), 0, 0))
    assert (raft.role, raft.leader_id) == (Role.FOLLOWER, 2)


@pytest.mark.parametrize("role", ["pre_candidate", "candidate"])
def test_candidates_start_again_when_the_election_timeout_elapses(role: str) -> None:
    """ "If election timeout elapses: start new election", again by asking first, as others may lead meanwhile."""
    raft = getattr(states, role)(term=4)
    ready = step(raft, Timeout(), ELECTION_TIMEOUT_US)
    assert (raft.role, raft.current_term) == (Role.PRE_CANDIDATE, 4)
    assert sent(ready) == [(to, RequestVote(5, 1, 0, 0, pre_vote=True)) for to in (2, 3)]


# Rules for servers: leaders


def test_leaders_send_appends_to_each_server_upon_election() -> None:
    """ "Upon election: send initial empty AppendEntries RPC (heartbeat) to each server": here with the first entry."""
    raft = states.candidate((1, 3), term=4)
    ready = receive(raft, 3, RequestVoteResult(4, vote_granted=True))
    assert sent(ready) == [(to, AppendEntries(4, 1, 2, 3, 4, (b"",), 0, 0)) for to in (2, 3)]


def test_leaders_repeat_during_idle_periods() -> None:
    """ "... repeat during idle periods to prevent election timeouts"."""
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    save_all(raft)
    for number in (1, 2, 3):
        assert raft.deadline_us == raft.now_us + OPTIONS.heartbeat_us or number == 1
        raft.step(Timeout(), raft.deadline_us)
        assert sent(raft.ready()) == [
            (to, AppendEntries(4, 1, 1, 4, 0, (), 1, number, may_be_silent=True)) for to in (2, 3)
        ]
        accept(raft, 2, 3)


def test_leaders_append_commands_and_respond_when_they_are_applied() -> None:
    """ "If command received from client: append entry to local log, respond after entry applied to state machine":
    which it may be once it is committed."""
    raft = states.leader(term=4)
    accept(raft, 2)
    ready = step(raft, Submit((b"a", b"b")))
    assert (ready.runs, ready.commit_index) == ([EntriesRun(2, 4, (b"a", b"b"))], 1)
    saved(raft, ready)
    accept(raft, 2)
    assert raft.ready().commit_index == 3


def test_leaders_send_what_a_follower_lacks() -> None:
    """ "If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at
    nextIndex"."""
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    save_all(raft)
    ready = step(raft, Submit((b"a", b"b")))
    assert sent(ready) == [(to, AppendEntries(4, 1, 1, 4, 4, (b"a", b"b"), 1, 0)) for to in (2, 3)]
    assert sent(raft.ready()) == []


def test_leaders_update_next_and_match_index_when_successful() -> None:
    """ "If successful: update nextIndex and matchIndex for follower"."""
    raft = states.leader((1, 1), term=4)
    accept(raft, 2, index=3)
    assert (raft.progress[2].match_index, raft.progress[2].next_index) == (3, 4)


def test_leaders_decrement_next_index_and_retry_upon_inconsistency() -> None:
    """ "If AppendEntries fails because of log inconsistency: decrement nextIndex and retry", by whole terms."""
    raft = states.leader((1, 1, 2, 2), term=4)
    ready = receive(raft, 2, AppendEntriesResult(4, False, 4, 3, 1, 0))
    assert sent(ready) == [(2, AppendEntries(4, 1, 2, 1, 2, (entry(3, 2), entry(4, 2)), 0, 0))]


def test_leaders_do_not_skip_back_for_an_older_refusal() -> None:
    """A refusal of another message than the one that is under way says nothing about it (copycat#29)."""
    raft = states.leader((1, 1, 2, 2), term=4)
    receive(raft, 2, AppendEntriesResult(4, False, 4, 3, 1, 0))
    assert raft.progress[2].next_index == 3
    for _ in range(2):
        assert sent(receive(raft, 2, AppendEntriesResult(4, False, 4, 1, 1, 0))) == []
    assert raft.progress[2].next_index == 3
    accept(raft, 2, index=4)
    receive(raft, 2, AppendEntriesResult(4, False, 2, 1, 1, 0))
    assert raft.progress[2].match_index == 4


@pytest.mark.parametrize(
    ("matches", "committed"),
    [((5, 0, 0, 0), 0), ((5, 5, 0, 0), 5), ((4, 4, 4, 4), 0), ((6, 6, 0, 0), 6), ((6, 5, 0, 0), 5), ((0, 0, 6, 6), 6)],
)
def test_leaders_commit_by_counting_only_entries_of_their_own_term(matches: tuple[int, ...], committed: int) -> None:
    """ "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term ==
    currentTerm: set commitIndex = N" (3.6.2)."""
    raft = states.leader((1, 1, 2, 2), term=4, configuration=FIVE)
    step(raft, Submit((b"six",)))
    saved(raft, raft.ready())
    raft.persisted_index = 6
    for each, match in zip((2, 3, 4, 5), matches, strict=True):
        accept(raft, each, index=match)
    assert raft.commit_index == committed


def test_leaders_count_themselves_only_for_what_they_have_saved() -> None:
    """The leader writes its own disk in parallel (thesis 10.2.1), and may even be the last one to have an entry."""
    raft = states.leader(term=4, configuration=FIVE)
    accept(raft, 2, 3)
    unsaved = step(raft, Submit((b"x",)))
    assert len(sent(unsaved)) == 2
    accept(raft, 2, 3)
    assert raft.commit_index == 1
    saved(raft, unsaved)
    assert raft.commit_index == 2


def test_followers_may_commit_before_the_leader_has_saved() -> None:
    """The same, when a majority without the leader has it."""
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    step(raft, Submit((b"x",)))
    accept(raft, 2, 3)
    assert (raft.commit_index, raft.persisted_index) == (2, 1)


def test_a_lower_term_never_has_an_effect() -> None:
    """A server that gets a request with a stale term number rejects it (3.3); stale answers are dropped."""
    raft = states.leader((1,), term=5)
    for message in (
        RequestVoteResult(4, vote_granted=True),
        AppendEntriesResult(4, True, 2, 0, 0, 9),
        InstallSnapshotResult(4, 1, 0, True, 9),
        TimeoutNow(4),
    ):
        assert sent(receive(raft, 2, message)) == []
    assert raft.progress[2].state is ProgressState.PROBE
    raft.step(Receive(3, AppendEntries(4, 3, 0, 0, 0, (), 0, 0)), raft.now_us)
    assert raft.is_leader
