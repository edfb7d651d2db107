"""MIT 6.5840, lab 4A (a replicated state machine), by intent; see `test_mit_names` for the list.

The course's counter is a file that each increment appends one unique token to: its value is how many there are, and the
oracle sees to it that none is there twice. A waiter's outcome is the version that its own increment got.
"""

from __future__ import annotations

from tests.simulation.scenarios.cluster import SECOND_US, Cluster
from tests.simulation.scenarios.requests import Ask, append, read
from tests.simulation.scenarios.seeds import scenario

COUNTER = b"counter"


def increment(cluster: Cluster, server: int) -> Ask:
    """Increment, without waiting."""
    return cluster.ask(server, append(COUNTER))


def increment_now(cluster: Cluster, server: int) -> int:
    """Increment, and wait; gives the version."""
    ask = increment(cluster, server)
    cluster.finish_asks(ask)
    assert ask.ok
    return ask.reply.version


def value(cluster: Cluster, server: int) -> int:
    """The counter, read through a server."""
    return cluster.get(server, read(COUNTER))[0].content.count(b";")


def check_value(cluster: Cluster, expected: int) -> None:
    """All servers come to that value; so does a read through any of them."""
    cluster.wait_until_equal()
    assert value(cluster, cluster.dice.choice(cluster.ids)) == expected
    assert {cluster.store(server).version for server in cluster.ids} == {expected}


def all_at_once(cluster: Cluster, server: int, count: int) -> list[Ask]:
    """Increments by so many clients of one server at the same time."""
    return [increment(cluster, server) for _ in range(count)]


@scenario(mit="TestBasic4A")
def test_basic_4a(cluster: Cluster) -> None:
    """Ten increments, through any server: each has the version that it should have, and all servers agree."""
    cluster.wait_for_leader()
    for version in range(1, 11):
        assert increment_now(cluster, cluster.dice.choice(cluster.ids)) == version
    check_value(cluster, 10)


@scenario(mit="TestConcurrent4A")
def test_concurrent_4a(cluster: Cluster) -> None:
    """Fifty concurrent increments get fifty versions."""
    cluster.wait_for_leader()
    asks = [increment(cluster, cluster.ids[number % len(cluster.ids)]) for number in range(50)]
    cluster.finish_asks(*asks)
    assert sorted(ask.reply.version for ask in asks) == list(range(1, 51))
    check_value(cluster, 50)


@scenario(mit="TestLeaderFailure4A")
def test_leader_failure_4a(cluster: Cluster) -> None:
    """Increments go on without the leader, which has them all when it is back."""
    leader = cluster.wait_for_leader()
    assert increment_now(cluster, leader) == 1
    cluster.disconnect(leader)
    for version in (2, 3, 4):
        assert increment_now(cluster, cluster.dice.choice(cluster.others(leader))) == version
    cluster.connect(leader)
    assert increment_now(cluster, leader) == 5
    check_value(cluster, 5)


@scenario(mit="TestLeaderPartition4A")
def test_leader_partition_4a(cluster: Cluster) -> None:
    """Of a hundred increments at a leader that is cut off none is acknowledged; all end when it is back, each once."""
    leader = cluster.wait_for_leader()
    assert increment_now(cluster, leader) == 1
    cluster.disconnect(leader)
    pending = all_at_once(cluster, leader, 100)
    cluster.wait_for_leader()
    assert increment_now(cluster, cluster.dice.choice(cluster.others(leader))) == 2
    cluster.run_for(SECOND_US // 2)
    assert not any(ask.is_done for ask in pending)
    assert cluster.store(leader).version == 1
    cluster.connect(leader)
    cluster.finish_asks(*pending)
    acknowledged = [ask.reply.version for ask in pending if ask.ok]
    assert len(set(acknowledged)) == len(acknowledged)
    check_value(cluster, 2 + len(acknowledged))


@scenario(mit="TestRestartReplay4A")
def test_restart_replay_4a(cluster: Cluster) -> None:
    """All servers restart and replay their logs: the counter is exactly what it was."""
    cluster.wait_for_leader()
    count = 40
    for _ in range(4):
        cluster.finish_asks(*all_at_once(cluster, cluster.dice.choice(cluster.ids), count // 4))
    cluster.crash(*cluster.ids)
    cluster.restart(*cluster.ids)
    cluster.wait_for_leader()
    check_value(cluster, count)
    assert increment_now(cluster, cluster.dice.choice(cluster.ids)) == count + 1
    check_value(cluster, count + 1)


@scenario(mit="TestShutdown4A")
def test_shutdown_4a(cluster: Cluster) -> None:
    """Who waits at a server that ends, waits no more; and what was acknowledged before is there afterwards."""
    cluster.wait_for_leader()
    asks = [ask for server in cluster.ids for ask in all_at_once(cluster, server, 20)]
    cluster.run_for(cluster.dice.randrange(10_000))
    cluster.crash(*cluster.ids)
    assert all(ask.is_done for ask in asks)
    acknowledged = sum(ask.ok for ask in asks)
    cluster.restart(*cluster.ids)
    cluster.wait_for_leader()
    assert acknowledged <= value(cluster, cluster.dice.choice(cluster.ids)) <= len(asks)


@scenario(mit="TestRestartSubmit4A")
def test_restart_submit_4a(cluster: Cluster) -> None:
    """After a restart, those who wait at a leader that is cut off aren't told of other entries at the same indexes."""
    leader = cluster.wait_for_leader()
    cluster.finish_asks(*all_at_once(cluster, leader, 20))
    cluster.crash(*cluster.ids)
    cluster.restart(*cluster.ids)
    leader = cluster.wait_for_leader()
    assert increment_now(cluster, leader) == 21
    cluster.wait_until_equal()
    indexes = cluster.raft(leader).log.last_index
    cluster.disconnect(leader)
    pending = all_at_once(cluster, leader, 5)
    cluster.run_for(SECOND_US // 20)
    assert cluster.raft(leader).log.last_index > indexes
    cluster.wait_for_leader()
    others = [increment_now(cluster, server) for server in cluster.others(leader) for _ in range(3)]
    assert others == [22, 23, 24, 25, 26, 27]
    cluster.connect(leader)
    cluster.finish_asks(*pending)
    assert sorted(ask.reply.version for ask in pending if ask.ok) == list(range(28, 28 + sum(map(_is_ok, pending))))
    check_value(cluster, 27 + sum(map(_is_ok, pending)))


def _is_ok(ask: Ask) -> bool:
    return ask.ok
