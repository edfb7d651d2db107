"""MIT 6.5840, lab 3D (snapshots), by intent; see `test_mit_names` for the list.

The course has the log bounded at 2,000 bytes in 30 rounds of one run; here in a few rounds of each seed.
"""

from __future__ import annotations

import enum

import attrs

from statemachine.messages import InstallSnapshot
from tests.simulation.scenarios.cluster import RAFT, SECOND_US, Cluster, Settings, unreliable
from tests.simulation.scenarios.requests import append, read, write
from tests.simulation.scenarios.seeds import scenario

LOG_BYTES_MAX = 2_000
SNAPSHOT_LOG_BYTES = 300
IN_CHUNKS = attrs.evolve(RAFT, snapshot_chunk_bytes=300)
RELIABLE = Settings(snapshot_log_bytes=SNAPSHOT_LOG_BYTES, raft=IN_CHUNKS)
UNRELIABLE = Settings(snapshot_log_bytes=SNAPSHOT_LOG_BYTES, raft=IN_CHUNKS, weather=unreliable)
ROUNDS = 3


class Absence(enum.Enum):
    """What is done to a server in each round."""

    NONE = enum.auto()
    CUT_OFF = enum.auto()
    CRASHED = enum.auto()


def log_bytes(cluster: Cluster, server: int) -> int:
    """The size of the entries that a server keeps, in memory and on disk alone."""
    log, storage = cluster.raft(server).log, cluster.world.servers[server].storage
    index, size = log.first_index, log.memory_bytes
    while index <= log.memory_base:
        entries = storage.read_entries(index, log.memory_base)
        index, size = index + len(entries), size + sum(map(len, entries))
    return size


def change_in_a_row(cluster: Cluster, server: int, count: int) -> None:
    """Changes one after the other, so that each is an entry of its own."""
    for _ in range(count):
        cluster.change(server, write(b"file"))


def snapshots(cluster: Cluster, absence: Absence) -> None:
    """Rounds of changes that lead to snapshots; in each, one server is away until no log reaches back to it."""
    installed = 0
    for number in range(ROUNDS):
        leader = cluster.wait_for_leader()
        victim = cluster.dice.choice(cluster.ids)
        cluster.change(leader, append(b"rounds", b"%d" % number))
        if absence is not Absence.NONE:
            cluster.wait_until_equal()
            left_at = cluster.raft(victim).log.last_index
            if absence is Absence.CUT_OFF:
                cluster.disconnect(victim)
            else:
                cluster.crash(victim)
            leader = cluster.wait_for_leader()
            while cluster.raft(leader).log.first_index <= left_at + 1:
                change_in_a_row(cluster, leader, 4)
                leader = cluster.wait_for_leader()
        else:
            change_in_a_row(cluster, leader, 12)
        traffic = cluster.count()
        if victim not in cluster.up:
            cluster.restart(victim)
        cluster.connect(victim)
        cluster.change(cluster.wait_for_leader())
        cluster.wait_until_equal()
        installed += traffic.messages[InstallSnapshot]
        cluster.wait(
            lambda: max(log_bytes(cluster, server) for server in cluster.ids) < LOG_BYTES_MAX,
            SECOND_US,
            f"logs below {LOG_BYTES_MAX} bytes",
        )
    assert all(cluster.raft(server).snapshot is not None for server in cluster.ids)
    assert (installed >= ROUNDS) == (absence is not Absence.NONE), f"{installed} chunks of snapshots were sent"
    content = b"".join(b"%d" % number for number in range(ROUNDS))
    assert cluster.get(cluster.dice.choice(cluster.ids), read(b"rounds"))[0].content == content


@scenario(RELIABLE, mit="TestSnapshotBasic3D")
def test_snapshot_basic_3d(cluster: Cluster) -> None:
    """Snapshots keep the log short."""
    snapshots(cluster, Absence.NONE)


@scenario(RELIABLE, mit="TestSnapshotInstall3D")
def test_snapshot_install_3d(cluster: Cluster) -> None:
    """A server that was cut off comes back by a snapshot."""
    snapshots(cluster, Absence.CUT_OFF)


@scenario(UNRELIABLE, mit="TestSnapshotInstallUnreliable3D")
def test_snapshot_install_unreliable_3d(cluster: Cluster) -> None:
    """So it does on a lossy network."""
    snapshots(cluster, Absence.CUT_OFF)


@scenario(RELIABLE, mit="TestSnapshotInstallCrash3D")
def test_snapshot_install_crash_3d(cluster: Cluster) -> None:
    """A server that had crashed comes back by a snapshot."""
    snapshots(cluster, Absence.CRASHED)


@scenario(UNRELIABLE, mit="TestSnapshotInstallUnCrash3D")
def test_snapshot_install_un_crash_3d(cluster: Cluster) -> None:
    """So it does on a lossy network."""
    snapshots(cluster, Absence.CRASHED)


@scenario(RELIABLE, mit="TestSnapshotAllCrash3D")
def test_snapshot_all_crash_3d(cluster: Cluster) -> None:
    """All crash with a snapshot and entries behind it: no server's applied index is lower when they are back."""
    for _ in range(ROUNDS):
        leader = cluster.wait_for_leader()
        change_in_a_row(cluster, leader, cluster.dice.randint(5, 15))
        before = max(cluster.raft(server).commit_index for server in cluster.ids)
        version = cluster.store(leader).version
        cluster.crash(*cluster.ids)
        cluster.restart(*cluster.ids)
        leader = cluster.wait_for_leader()
        cluster.wait_until_equal()
        assert min(cluster.applied_index(server) for server in cluster.ids) > before
        assert {cluster.store(server).version for server in cluster.ids} == {version}
        assert cluster.change(leader) == version + 1


@scenario(RELIABLE, mit="TestSnapshotInit3D")
def test_snapshot_init_3d(cluster: Cluster) -> None:
    """A snapshot that a server started from is still there after it has crashed again, with little done in between."""
    leader = cluster.wait_for_leader()
    change_in_a_row(cluster, leader, 15)
    cluster.wait(
        lambda: all(cluster.raft(server).snapshot is not None for server in cluster.ids), SECOND_US, "a snapshot each"
    )
    for count in (0, 1):
        cluster.crash(*cluster.ids)
        cluster.restart(*cluster.ids)
        assert all(cluster.raft(server).snapshot is not None for server in cluster.ids)
        change_in_a_row(cluster, cluster.wait_for_leader(), count)
    cluster.crash(*cluster.ids)
    cluster.restart(*cluster.ids)
    assert cluster.change(cluster.wait_for_leader()) == 17
