"""MIT 6.5840, lab 4C (a key/value service with snapshots), by intent; see `test_mit_names` for the list."""

from __future__ import annotations

import pytest

from statemachine.messages import InstallSnapshot
from tests.simulation.scenarios.churn import clients, generic
from tests.simulation.scenarios.cluster import SECOND_US, Cluster, Settings, Weather, reliable, unreliable
from tests.simulation.scenarios.requests import append, read, write
from tests.simulation.scenarios.seeds import scenario
from tests.simulation.scenarios.test_mit_3d import log_bytes
from tests.simulation.scenarios.test_mit_4b import MANY, ONE, check_history, puts_in_a_row

LIMIT_BYTES = 1_000
"""So many bytes of entries lead to a snapshot."""
SNAPSHOT_BYTES_MAX = 500
PADDING = b"x" * 250
"""Makes some dozens of changes more than a log may hold."""
THREE = Settings(snapshot_log_bytes=LIMIT_BYTES)


def with_load(count: int, weather: Weather = reliable) -> Settings:
    """Five servers that make snapshots, and so many clients."""
    load = {1: ONE, 5: MANY}.get(count) or clients(count, files=10, think_us=3 * SECOND_US)
    return Settings(servers=5, load=load, snapshot_log_bytes=LIMIT_BYTES, weather=weather)


def check_logs(cluster: Cluster) -> None:
    """No log is over eight times the limit."""
    for server in cluster.up:
        assert log_bytes(cluster, server) <= 8 * LIMIT_BYTES


@scenario(THREE, mit="TestSnapshot4C")
def test_snapshot_4c(cluster: Cluster) -> None:
    """A replicated counter with snapshots: the logs stay short, and all restart with the same value."""
    cluster.wait_for_leader()
    for number in range(40):
        cluster.change(cluster.ids[number % 3], append(b"counter", b"%d" % number + PADDING + b";"))
        check_logs(cluster)
    assert all(cluster.raft(server).snapshot is not None for server in cluster.ids)
    cluster.crash(*cluster.ids)
    cluster.restart(*cluster.ids)
    cluster.wait_for_leader()
    assert cluster.get(cluster.dice.choice(cluster.ids), read(b"counter"))[0].content.count(b";") == 40
    check_logs(cluster)


@scenario(THREE, mit="TestSnapshotRPC4C")
def test_snapshot_rpc_4c(cluster: Cluster) -> None:
    """A server that was cut off while the others dropped their logs' beginning joins by a snapshot, and serves."""
    leader = cluster.wait_for_leader()
    cluster.change(leader, write(b"a", b"A"))
    one, laggard = cluster.dice.sample(cluster.others(leader), 2)
    cluster.split((leader, one), (laggard,))
    for number in range(30):
        cluster.change(leader, write(b"%d" % number, b"%d" % number + PADDING))
    cluster.change(one, write(b"b", b"B"))
    check_logs(cluster)
    traffic = cluster.count()
    cluster.split((leader, laggard), (one,))
    cluster.wait_for_leader((leader, laggard))
    cluster.change(laggard, write(b"c", b"C"))
    assert traffic.messages[InstallSnapshot] > 0
    cluster.mend()
    for name, content in ((b"a", b"A"), (b"b", b"B"), (b"c", b"C")):
        assert cluster.get(one, read(name))[0].content == content
        assert cluster.get(laggard, read(name))[0].content == content


@scenario(THREE, mit="TestSnapshotSize4C")
def test_snapshot_size_4c(cluster: Cluster) -> None:
    """Snapshots hold the state, not the history: few files, however often they were changed, make small ones."""
    cluster.wait_for_leader()
    for number in range(30):
        cluster.change(cluster.ids[0], write(b"x", b"%d" % (2 * number)))
        cluster.change(cluster.ids[0], write(b"x", b"%d" % (2 * number + 1)))
    cluster.run_for(SECOND_US // 2)
    check_logs(cluster)
    for server in cluster.ids:
        snapshot = cluster.raft(server).snapshot
        assert snapshot is not None
        assert snapshot.size <= SNAPSHOT_BYTES_MAX


@scenario(THREE, mit="TestSpeed4C")
def test_speed_4c(cluster: Cluster) -> None:
    """Snapshots don't make changes slower than 33 ms each."""
    puts_in_a_row(cluster, 40)
    check_logs(cluster)


@scenario(with_load(1), mit="TestSnapshotRecover4C")
def test_snapshot_recover_4c(cluster: Cluster) -> None:
    """One client, and all servers crash and restart from their snapshots."""
    generic(cluster, crashes=True)
    check_logs(cluster)


@scenario(with_load(20), mit="TestSnapshotRecoverManyClients4C")
def test_snapshot_recover_many_clients_4c(cluster: Cluster) -> None:
    """Twenty clients, likewise."""
    generic(cluster, crashes=True)
    check_logs(cluster)


@scenario(with_load(5, unreliable), mit="TestSnapshotUnreliable4C")
def test_snapshot_unreliable_4c(cluster: Cluster) -> None:
    """Five clients on a lossy network."""
    generic(cluster, rounds=1)
    check_logs(cluster)


@scenario(with_load(5, unreliable), mit="TestSnapshotUnreliableRecover4C")
def test_snapshot_unreliable_recover_4c(cluster: Cluster) -> None:
    """Five clients on a lossy network, and all servers crash and restart."""
    generic(cluster, crashes=True)
    check_logs(cluster)


@scenario(with_load(5, unreliable), mit="TestSnapshotUnreliableRecoverConcurrentPartition4C")
def test_snapshot_unreliable_recover_concurrent_partition_4c(cluster: Cluster) -> None:
    """The same with partitions."""
    generic(cluster, crashes=True, partitions=True)
    check_logs(cluster)


@pytest.mark.slow
@scenario(
    Settings(
        servers=7,
        load=clients(15, files=100, think_us=2 * SECOND_US),
        snapshot_log_bytes=LIMIT_BYTES,
        weather=unreliable,
    ),
    mit="TestSnapshotUnreliableRecoverConcurrentPartitionLinearizable4C",
)
def test_snapshot_unreliable_recover_concurrent_partition_linearizable_4c(cluster: Cluster) -> None:
    """The same with seven servers and 15 clients on 100 files, and the history is given to the checker."""
    generic(cluster, crashes=True, partitions=True)
    check_logs(cluster)
    check_history(cluster)
