"""MIT 6.5840, lab 4B (a key/value service), by intent; see `test_mit_names` for the list.

A Get is a read and a Put by version a cas. "Unreliable" is what the name of a test says: a lossy network, whatever a
flag in some copies of the course says. The clients are the simulator's own, whose every reply the oracle judges.
"""

from __future__ import annotations

import pytest

from fileserver.linearizability.checker import check
from fileserver.linearizability.search import Verdict
from fileserver.simulation.history import operations_of
from tests.simulation.scenarios.churn import clients, generic, repartition
from tests.simulation.scenarios.cluster import MILLISECOND_US, SECOND_US, Cluster, Settings, unreliable
from tests.simulation.scenarios.requests import cas, read, write
from tests.simulation.scenarios.seeds import scenario

ONE = clients(1, think_us=200 * MILLISECOND_US)
MANY = clients(5)
SPEED_US = 33 * MILLISECOND_US
"""What a change may take on average, as the course has it: a third of a heartbeat's interval."""


def puts_in_a_row(cluster: Cluster, count: int) -> None:
    """Changes one after the other, each of the version that the one before it led to, at a server that doesn't lead."""
    leader = cluster.wait_for_leader()
    follower = cluster.dice.choice(cluster.others(leader))
    version = cluster.change(follower, cas(b"row", 0))
    began_us = cluster.loop.now_us
    for _ in range(count):
        version = cluster.change(follower, cas(b"row", version))
    assert cluster.loop.now_us - began_us < count * SPEED_US
    assert version == count + 1


def check_history(cluster: Cluster) -> None:
    """What clients saw until all was over was linearizable, as the checker has it that knows of nothing else."""
    cluster.finish()
    assert check(operations_of(cluster.world.history), clock_slack_us=0).verdict is Verdict.LINEARIZABLE


@scenario(Settings(servers=5, load=ONE), mit="TestBasic4B")
def test_basic_4b(cluster: Cluster) -> None:
    """One client."""
    generic(cluster, rounds=1)


@scenario(mit="TestSpeed4B")
def test_speed_4b(cluster: Cluster) -> None:
    """Changes in a row take less than 33 ms each."""
    puts_in_a_row(cluster, 40)


@scenario(Settings(servers=5, load=MANY), mit="TestConcurrent4B")
def test_concurrent_4b(cluster: Cluster) -> None:
    """Five clients."""
    generic(cluster, rounds=1)


@scenario(Settings(servers=5, load=MANY, weather=unreliable), mit="TestUnreliable4B")
def test_unreliable_4b(cluster: Cluster) -> None:
    """Five clients on a lossy network."""
    generic(cluster, rounds=1)


@scenario(Settings(servers=5), mit="TestOnePartition4B")
def test_one_partition_4b(cluster: Cluster) -> None:
    """Requests to a minority, the old leader in it, aren't completed until the network is well again."""
    leader = cluster.wait_for_leader()
    version = cluster.change(leader, write(b"key"))
    other, *majority = cluster.dice.sample(cluster.others(leader), 4)
    cluster.split((leader, other), majority)
    cluster.wait_for_leader(majority)
    version = cluster.change(majority[0], cas(b"key", version))
    put = cluster.ask(leader, cas(b"key", version))
    gets = [cluster.ask(server, read(b"key")) for server in (leader, other)]
    cluster.run_for(SECOND_US)
    assert not any(ask.is_done for ask in (put, *gets))
    assert cluster.get(majority[1], read(b"key"))[0].version == version
    later = cluster.change(majority[2], cas(b"key", version, b"later"))
    cluster.mend()
    cluster.finish_asks(put, *gets)
    assert put.reply.line == b"ERR_VERSION %d" % later
    assert [get.reply.content for get in gets] == [b"later"] * 2


@scenario(Settings(servers=5, load=ONE), mit="TestManyPartitionsOneClient4B")
def test_many_partitions_one_client_4b(cluster: Cluster) -> None:
    """One client, while the servers are split again and again."""
    repartition(cluster, 3)
    generic(cluster, partitions=True, rounds=1)


@scenario(Settings(servers=5, load=MANY), mit="TestManyPartitionsManyClients4B")
def test_many_partitions_many_clients_4b(cluster: Cluster) -> None:
    """Five clients, likewise."""
    repartition(cluster, 3)
    generic(cluster, partitions=True, rounds=1)


@scenario(Settings(servers=5, load=ONE), mit="TestPersistOneClient4B")
def test_persist_one_client_4b(cluster: Cluster) -> None:
    """One client, and all servers crash and restart."""
    generic(cluster, crashes=True)


@scenario(Settings(servers=5, load=MANY), mit="TestPersistConcurrent4B")
def test_persist_concurrent_4b(cluster: Cluster) -> None:
    """Five clients, and all servers crash and restart."""
    generic(cluster, crashes=True)


@scenario(Settings(servers=5, load=MANY, weather=unreliable), mit="TestPersistConcurrentUnreliable4B")
def test_persist_concurrent_unreliable_4b(cluster: Cluster) -> None:
    """The same on a lossy network."""
    generic(cluster, crashes=True)


@scenario(Settings(servers=5, load=MANY), mit="TestPersistPartition4B")
def test_persist_partition_4b(cluster: Cluster) -> None:
    """Five clients and partitions, and all servers crash and restart."""
    generic(cluster, crashes=True, partitions=True)


@scenario(Settings(servers=5, load=MANY, weather=unreliable), mit="TestPersistPartitionUnreliable4B")
def test_persist_partition_unreliable_4b(cluster: Cluster) -> None:
    """The same on a lossy network."""
    generic(cluster, crashes=True, partitions=True)


@pytest.mark.slow
@scenario(
    Settings(servers=7, load=clients(15, files=100, think_us=2 * SECOND_US), weather=unreliable),
    mit="TestPersistPartitionUnreliableLinearizable4B",
)
def test_persist_partition_unreliable_linearizable_4b(cluster: Cluster) -> None:
    """The same with seven servers and 15 clients on 100 files, and the history is given to the checker."""
    generic(cluster, crashes=True, partitions=True)
    check_history(cluster)
