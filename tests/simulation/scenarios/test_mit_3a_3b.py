"""MIT 6.5840, lab 3A (elections) and 3B (agreement), by intent; see `test_mit_names` for the list.

What the course calls a command's index is a change's version here: the k-th change of a cluster has version k.
"""

from __future__ import annotations

from statemachine.messages import AppendEntries, AppendEntriesResult, InstallSnapshot, ReadIndex, RequestVote
from tests.simulation.scenarios.cluster import SECOND_US, Cluster, Settings
from tests.simulation.scenarios.requests import write
from tests.simulation.scenarios.seeds import scenario

THREE = Settings(servers=3)
FIVE = Settings(servers=5)
SEVEN = Settings(servers=7)

CALLS = (AppendEntries, RequestVote, InstallSnapshot, ReadIndex)
"""What asks for an answer, as the course counts RPCs."""


# 3A


@scenario(THREE, mit="TestInitialElection3A")
def test_initial_election_3a(cluster: Cluster) -> None:
    """One leader; terms agree; nothing changes for two seconds without failures."""
    leader = cluster.wait_for_leader()
    terms = {cluster.raft(server).current_term for server in cluster.ids}
    assert len(terms) == 1
    assert min(terms) >= 1
    cluster.run_for(2 * SECOND_US)
    assert {cluster.raft(server).current_term for server in cluster.ids} == terms
    assert cluster.leader() == leader


@scenario(THREE, mit="TestReElection3A")
def test_re_election_3a(cluster: Cluster) -> None:
    """A new leader after the old one is cut off, which comes back quietly; none without a quorum, one with it."""
    first = cluster.wait_for_leader()
    cluster.disconnect(first)
    second = cluster.wait_for_leader()
    term = cluster.raft(second).current_term
    cluster.connect(first)
    cluster.run_for(SECOND_US)
    assert cluster.leader() == second
    assert cluster.raft(first).leader_id == second
    assert cluster.raft(second).current_term == term
    third = cluster.dice.choice(cluster.others(second))
    cluster.disconnect(second, third)
    cluster.run_for(SECOND_US)
    assert not any(cluster.server(server).is_leader for server in cluster.ids), "a leader without a quorum steps down"
    cluster.nobody_leads_for(SECOND_US)
    cluster.connect(third)
    cluster.wait_for_leader()
    cluster.connect(second)
    cluster.wait_for_leader()


@scenario(SEVEN, mit="TestManyElections3A")
def test_many_elections_3a(cluster: Cluster) -> None:
    """Ten rounds in which three random servers are cut off: the other four always have a leader."""
    cluster.wait_for_leader()
    for _ in range(10):
        away = cluster.dice.sample(cluster.ids, 3)
        cluster.disconnect(*away)
        cluster.wait_for_leader()
        cluster.connect(*away)
    cluster.wait_for_leader()


# 3B


@scenario(THREE, mit="TestBasicAgree3B")
def test_basic_agree_3b(cluster: Cluster) -> None:
    """Three changes get the versions 1 to 3 on all servers, and nothing is there before they were asked for."""
    leader = cluster.wait_for_leader()
    for version in (1, 2, 3):
        assert {cluster.store(server).version for server in cluster.ids} == {version - 1}
        assert cluster.change(leader) == version
        cluster.wait_until_equal()


@scenario(THREE, mit="TestRPCBytes3B")
def test_rpc_bytes_3b(cluster: Cluster) -> None:
    """Each command of 5 kB goes to each follower once, and little else goes."""
    leader = cluster.wait_for_leader()
    cluster.change(leader)
    cluster.wait_until_equal()
    traffic = cluster.count()
    contents = [b"%d:" % number + b"x" * 5_000 for number in range(10)]
    for content in contents:
        cluster.change(leader, write(b"big", content))
    cluster.wait_until_equal()
    for follower in cluster.others(leader):
        entries = [
            entry
            for _, receiver, message in traffic.sent
            if receiver == follower and isinstance(message, AppendEntries)
            for entry in message.entries
        ]
        assert [sum(content in entry for entry in entries) for content in contents] == [1] * len(contents)
        assert traffic.bytes_to[follower] <= sum(map(len, contents)) + 50_000 // len(cluster.ids)


@scenario(THREE, mit="TestFollowerFailure3B")
def test_follower_failure_3b(cluster: Cluster) -> None:
    """With one follower lost changes go on; with both lost none is made."""
    leader = cluster.wait_for_leader()
    cluster.change(leader)
    one, other = cluster.others(leader)
    cluster.disconnect(one)
    assert cluster.change(leader) == 2
    assert cluster.change(leader) == 3
    cluster.disconnect(other)
    ask = cluster.ask(leader, write(b"file"))
    cluster.run_for(2 * SECOND_US)
    assert not ask.is_done
    assert cluster.store(leader).version == 3


@scenario(THREE, mit="TestLeaderFailure3B")
def test_leader_failure_3b(cluster: Cluster) -> None:
    """With the leader lost the others go on; with the next one lost too nothing is changed anywhere."""
    first = cluster.wait_for_leader()
    assert cluster.change(first) == 1
    cluster.disconnect(first)
    second = cluster.wait_for_leader()
    assert cluster.change(cluster.others(first)[0]) == 2
    assert cluster.change(cluster.others(first)[1]) == 3
    cluster.disconnect(second)
    asks = [cluster.ask(server, write(b"file")) for server in cluster.ids]
    cluster.run_for(2 * SECOND_US)
    assert not any(ask.is_done for ask in asks)
    assert max(cluster.store(server).version for server in cluster.ids) == 3


@scenario(THREE, mit="TestFailAgree3B")
def test_fail_agree_3b(cluster: Cluster) -> None:
    """A follower that was cut off has everything when it is back."""
    leader = cluster.wait_for_leader()
    cluster.change(leader)
    follower = cluster.dice.choice(cluster.others(leader))
    cluster.disconnect(follower)
    for version in (2, 3, 4, 5):
        assert cluster.change(leader) == version
        cluster.run_for(cluster.dice.randrange(SECOND_US // 2))
    assert cluster.store(follower).version <= 1
    cluster.connect(follower)
    assert cluster.change(leader) == 6
    assert cluster.change(follower) == 7
    cluster.wait_until_equal()


@scenario(FIVE, mit="TestFailNoAgree3B")
def test_fail_no_agree_3b(cluster: Cluster) -> None:
    """Nothing is changed with three of five lost; when they are back, the next change is the second or third."""
    leader = cluster.wait_for_leader()
    assert cluster.change(leader) == 1
    away = cluster.dice.sample(cluster.others(leader), 3)
    cluster.disconnect(*away)
    pending = cluster.ask(leader, write(b"file"))
    cluster.run_for(2 * SECOND_US)
    assert not pending.is_done
    assert cluster.store(leader).version == 1
    cluster.connect(*away)
    assert cluster.change(cluster.wait_for_leader()) in (2, 3)
    cluster.finish_asks(pending)
    assert pending.reply.version in (2, 3)


@scenario(THREE, mit="TestConcurrentStarts3B")
def test_concurrent_starts_3b(cluster: Cluster) -> None:
    """Five changes proposed at once in one term are all made, each once."""
    leader = cluster.wait_for_leader()
    term = cluster.raft(leader).current_term
    asks = [cluster.ask(leader, write(b"file")) for _ in range(5)]
    cluster.finish_asks(*asks)
    assert sorted(ask.reply.version for ask in asks) == [1, 2, 3, 4, 5]
    assert cluster.raft(leader).current_term == term
    cluster.wait_until_equal()


@scenario(THREE, mit="TestRejoin3B")
def test_rejoin_3b(cluster: Cluster) -> None:
    """The entries of a leader that was cut off give way to those that were committed meanwhile."""
    first = cluster.wait_for_leader()
    cluster.change(first)
    cluster.wait_until_equal()
    committed = cluster.raft(first).commit_index
    cluster.disconnect(first)
    cluster.propose(first, 3)
    cluster.run_for(SECOND_US // 10)
    stale = cluster.log_terms(first)
    assert len(stale) == committed + 3
    second = cluster.wait_for_leader()
    cluster.change(second)
    cluster.disconnect(second)
    cluster.connect(first)
    third = cluster.wait_for_leader()
    assert third != first, "its log lacks what is committed"
    cluster.change(third)
    cluster.connect(second)
    cluster.change(cluster.dice.choice(cluster.ids))
    cluster.wait_until_equal()
    logs = [cluster.log_terms(server) for server in cluster.ids]
    assert logs[0] == logs[1] == logs[2]
    assert logs[0][: len(stale)] != stale


@scenario(FIVE, mit="TestBackup3B")
def test_backup_3b(cluster: Cluster) -> None:
    """Followers with 50 wrong entries, of two terms, are brought to the leader's log in a few steps."""
    first = cluster.wait_for_leader()
    for server in cluster.ids:
        cluster.change(server)
    one, two, three, four = cluster.dice.sample(cluster.others(first), 4)
    cluster.split((first, one))
    cluster.propose(first, 50)
    cluster.run_for(SECOND_US // 5)
    cluster.split((two, three, four))
    second = cluster.wait_for_leader((two, three, four))
    cluster.propose(second, 50)
    cluster.wait_until_equal((two, three, four))
    last = next(server for server in (two, three, four) if server != second)
    pair = [server for server in (two, three, four) if server != last]
    cluster.split(pair)
    cluster.propose(second, 50)
    cluster.run_for(SECOND_US // 5)
    traffic = cluster.count()
    cluster.split((first, one, last))
    third = cluster.wait_for_leader((first, one, last))
    assert third == last, "only its log has what is committed"
    cluster.propose(third, 50)
    cluster.wait_until_equal((first, one, last))
    cluster.mend()
    cluster.wait_until_equal()
    refusals = sum(isinstance(message, AppendEntriesResult) and not message.success for *_, message in traffic.sent)
    assert refusals <= 20, "the leader skips back by terms, not entry by entry"


@scenario(THREE, mit="TestCount3B")
def test_count_3b(cluster: Cluster) -> None:
    """Few messages: at most 30 for an election, few for a batch of changes, at most 60 in an idle second."""
    traffic = cluster.count()

    def calls() -> int:
        return sum(traffic.messages[kind] for kind in CALLS)

    leader = cluster.wait_for_leader()
    assert 1 <= calls() <= 30
    cluster.change(leader)
    cluster.wait_until_equal()
    traffic = cluster.count()
    count = 10
    asks = [cluster.ask(leader, write(b"file")) for _ in range(count)]
    cluster.finish_asks(*asks)
    assert calls() <= (count + 1 + 3) * 3
    cluster.wait_until_equal()
    traffic = cluster.count()
    cluster.run_for(SECOND_US)
    assert calls() <= 60
