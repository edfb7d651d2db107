"""How the cost grows: with files, connections, snapshots, servers; with nothing to do; and when the leader is killed.

What compares two states of affairs measures them in turns, so that a machine whose speed changes hits both, and takes
the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import attrs

from fileserver.bench import generator
from fileserver.bench.cases import WRITE_64, Case, CaseResult, Measured, median_of
from fileserver.bench.cpu import CpuMeter
from fileserver.bench.generator import connect_all
from fileserver.bench.load import Load
from fileserver.bench.local import LocalCluster, NotReady, await_until, local_servers, temporary_directory
from fileserver.bench.results import GrowthResult
from fileserver.config import Address

FEW_FILES = 10_000
MANY_FILES = 1_000_000
MANY_FILES_BYTES = 100
FILES_LOSS_MAX = 0.15
SNAPSHOT_LOG_BYTES = 2 * 1024 * 1024
"""About as much as 10,000 files of 256 bytes are in a snapshot: less than a second's log."""
SNAPSHOTS_LOSS_MAX = 0.15
SNAPSHOTS_P99_MAX_US = 100_000
IDLE_CONNECTIONS = 936
IDLE_CONNECTIONS_LOSS_MAX = 0.10
IDLE_SECONDS = 5.0
IDLE_SHARE_MAX = 0.015
MEMORY_FILES = 100_000
MEMORY_FILE_BYTES = 1024
MEMORY_BYTES_MAX = 2.5 * 1024
START_SECONDS_MAX = 6.0
START_PATIENCE_SECONDS = 120.0
GAP_US_MAX = 1_500_000
QUICK_GAP_US_MAX = 400_000
QUICK_TIMEOUTS = {"election_timeout_min_us": 100_000, "election_timeout_max_us": 200_000, "heartbeat_us": 20_000}
KILL_AFTER_SECONDS = 1.0
GAP_SECONDS = 3.0
SETTLE_SECONDS = 1.0


@attrs.frozen(slots=True)
class Wishes:
    """How to measure."""

    seconds: float
    rounds: int
    servers: int
    tell: Callable[[str], None]
    """Is given a line about what is done now."""


@contextmanager
def fresh_cluster(servers: int, **settings: Any) -> Iterator[LocalCluster]:
    """A cluster without data, for the time of a ``with`` block. Raises NotReady."""
    with temporary_directory() as directory, local_servers(servers, directory / "data", **settings) as cluster:
        yield cluster


def fill(cluster: LocalCluster, load: Load, *, first: int = 0) -> None:
    """Write the load's files. Raises NotReady if they can't be written."""
    filled = generator.fill(load.at([cluster.leader_address()]), first=first)
    if filled.errors:
        raise NotReady(f"the files couldn't be written: {dict(filled.errors)}")


def measure(cluster: LocalCluster, case: Case, seconds: float) -> Measured:
    """One round of a case."""
    load = case.at(cluster.leader_address(), cluster.addresses, seconds)
    return Measured.of(generator.run(load, pids=cluster.pids))


def measure_cases(cluster: LocalCluster, cases: tuple[Case, ...], wishes: Wishes) -> list[CaseResult]:
    """All cases, round by round. Raises NotReady."""
    for load in {case.load.folder: case.load for case in cases if case.load.read_percent}.values():
        wishes.tell(f"writing {load.files:,} files")
        fill(cluster, load)
    rounds: dict[str, list[Measured]] = {case.name: [] for case in cases}
    for number in range(1, wishes.rounds + 1):
        for case in cases:
            wishes.tell(f"round {number} of {wishes.rounds}: {case.name}")
            rounds[case.name].append(measure(cluster, case, wishes.seconds))
    return [CaseResult(name, tuple(each)) for name, each in rounds.items()]


@attrs.frozen(slots=True)
class Comparison:
    """Rounds of something as it is usually, and of the same under a strain."""

    usual: list[Measured]
    strained: list[Measured]

    @property
    def loss(self) -> float:
        """How much of the throughput the strain costs; less than 0 if it is even quicker."""
        pairs = zip(self.usual, self.strained, strict=True)
        return 1 - statistics.median(each.per_second / usual.per_second for usual, each in pairs)

    @property
    def errors(self) -> int:
        """All of them."""
        return sum(each.errors for each in (*self.usual, *self.strained))

    def result(
        self, name: str, what: str, limit: float, *, more: str = "", more_limit: str = "", is_ok: bool = True
    ) -> GrowthResult:
        """The row of it; ``what`` names the strain, ``more`` is said besides, and ``is_ok`` of that."""
        usual, strained = median_of(self.usual), median_of(self.strained)
        rates = f"{usual.per_second:,.0f} and {strained.per_second:,.0f} op/s"
        costs = f"{usual.server_us:.0f} and {strained.server_us:.0f} us of server CPU"
        return GrowthResult(
            name=name,
            what=f"throughput of write-64 {what}",
            value=f"{-self.loss:+.1%} ({rates}, {costs}){more}",
            limit=f"-{limit:.0%}{more_limit}",
            is_ok=self.loss < limit and is_ok and not self.errors,
            errors=self.errors,
        )


def many_files(wishes: Wishes) -> list[GrowthResult]:
    """Two clusters side by side, one with a hundred times the files of the other."""
    case = attrs.evolve(WRITE_64, load=attrs.evolve(WRITE_64.load, size_bytes=MANY_FILES_BYTES, files=FEW_FILES))
    many = attrs.evolve(case, load=attrs.evolve(case.load, files=MANY_FILES))
    with fresh_cluster(wishes.servers) as small, fresh_cluster(wishes.servers) as big:
        fill(small, case.load)
        wishes.tell(f"writing {MANY_FILES:,} files")
        fill(big, many.load)
        time.sleep(SETTLE_SECONDS)
        comparison = Comparison([], [])
        for number in range(1, wishes.rounds + 1):
            wishes.tell(f"round {number} of {wishes.rounds}: write-64 with {FEW_FILES:,} and {MANY_FILES:,} files")
            comparison.usual.append(measure(small, case, wishes.seconds))
            comparison.strained.append(measure(big, many, wishes.seconds))
        small.stop_all()
        wishes.tell(f"starting a server with {MANY_FILES:,} files")
        seconds = _start_from_snapshot(big)
    return [
        comparison.result("many-files", f"with {MANY_FILES:,} files against {FEW_FILES:,}", FILES_LOSS_MAX),
        GrowthResult(
            name="many-files",
            what=f"start from a snapshot of {MANY_FILES:,} files",
            value=f"{seconds:.1f} s",
            limit=f"{START_SECONDS_MAX:g} s",
            is_ok=seconds < START_SECONDS_MAX,
        ),
    ]


def _start_from_snapshot(cluster: LocalCluster) -> float:
    """Seconds from the start of a follower's process until it is where the leader is, with all in a snapshot."""
    leader = cluster.leader()
    follower = next(server_id for server_id in cluster.ids if server_id != leader)
    newest = _newest_snapshot(cluster, follower)
    cluster.stop(follower)
    cluster.set_for_next_starts(snapshot_log_bytes=1)
    cluster.start(follower)
    await_until("a snapshot", lambda: _newest_snapshot(cluster, follower) > newest, START_PATIENCE_SECONDS)
    cluster.leader()
    cluster.stop(follower)
    applied_index = cluster.status(leader)["applied_index"]
    started_at = time.monotonic()
    cluster.start(follower)
    await_until(
        "a start",
        lambda: cluster.status(follower).get("applied_index", 0) >= applied_index,
        START_PATIENCE_SECONDS,
    )
    return time.monotonic() - started_at


def _newest_snapshot(cluster: LocalCluster, server_id: int) -> str:
    """The name of a server's newest snapshot, which begins with the last index that it covers."""
    return max((path.name for path in cluster.place(server_id).glob("*.snap")), default="")


def snapshots(wishes: Wishes) -> list[GrowthResult]:
    """Two clusters side by side, one of which makes snapshots all the while."""
    with (
        fresh_cluster(wishes.servers) as usual,
        fresh_cluster(wishes.servers, snapshot_log_bytes=SNAPSHOT_LOG_BYTES) as busy,
    ):
        for cluster in (usual, busy):
            fill(cluster, WRITE_64.load)
        comparison = Comparison([], [])
        leader = busy.leader()
        is_made = True
        for number in range(1, wishes.rounds + 1):
            wishes.tell(f"round {number} of {wishes.rounds}: write-64 without and with snapshots")
            comparison.usual.append(measure(usual, WRITE_64, wishes.seconds))
            newest = _newest_snapshot(busy, leader)
            comparison.strained.append(measure(busy, WRITE_64, wishes.seconds))
            is_made &= _newest_snapshot(busy, leader) > newest
    p99_us = median_of(comparison.strained).p99_us
    return [
        comparison.result(
            "snapshots",
            f"with a snapshot every {SNAPSHOT_LOG_BYTES >> 20} MiB of log",
            SNAPSHOTS_LOSS_MAX,
            more_limit=f", p99 {SNAPSHOTS_P99_MAX_US / 1000:g} ms",
            more=f", p99 {p99_us / 1000:.1f} ms" + ("" if is_made else ", but there was a round without any"),
            is_ok=p99_us < SNAPSHOTS_P99_MAX_US and is_made,
        )
    ]


def idle_connections(wishes: Wishes) -> list[GrowthResult]:
    """One cluster, with and without many connections on which nothing happens."""
    with fresh_cluster(wishes.servers) as cluster:
        fill(cluster, WRITE_64.load)
        comparison = Comparison([], [])
        for number in range(1, wishes.rounds + 1):
            wishes.tell(f"round {number} of {wishes.rounds}: write-64 without and with idle connections")
            for rounds, idle in ((comparison.usual, 0), (comparison.strained, IDLE_CONNECTIONS)):
                with _idle((cluster.leader_address(),), idle) if idle else nullcontext():
                    rounds.append(measure(cluster, WRITE_64, wishes.seconds))
    what = f"with {IDLE_CONNECTIONS} idle connections beside"
    return [comparison.result("idle-connections", what, IDLE_CONNECTIONS_LOSS_MAX)]


@contextmanager
def _idle(servers: tuple[Address, ...], count: int) -> Iterator[None]:
    """So many connections that do nothing."""
    clients = connect_all(servers, count)
    try:
        yield
    finally:
        for client in clients:
            client.socket.close()


def idle_cpu(wishes: Wishes) -> list[GrowthResult]:
    """What servers cost that nobody asks for anything."""
    with fresh_cluster(wishes.servers) as cluster:
        cluster.leader()
        time.sleep(SETTLE_SECONDS)
        wishes.tell(f"{IDLE_SECONDS:g} s of nothing")
        meters = {server_id: CpuMeter([cluster.pid(server_id)]) for server_id in cluster.ids}
        time.sleep(IDLE_SECONDS)
        shares = [(meter.servers_us() or 0) / 1e6 / IDLE_SECONDS for meter in meters.values()]
    return [
        GrowthResult(
            name="idle-cpu",
            what=f"processor time of an idle server, {wishes.servers} of them idle",
            value=f"{max(shares):.2%} of a core (mean {statistics.mean(shares):.2%})",
            limit=f"{IDLE_SHARE_MAX:.1%}",
            is_ok=max(shares) < IDLE_SHARE_MAX,
        )
    ]


def memory(wishes: Wishes) -> list[GrowthResult]:
    """What files take in main memory, log and all."""
    load = attrs.evolve(WRITE_64.load, size_bytes=MEMORY_FILE_BYTES, files=MEMORY_FILES)
    with fresh_cluster(wishes.servers) as cluster:
        before = {server_id: cluster.memory_bytes(server_id) for server_id in cluster.ids}
        wishes.tell(f"writing {MEMORY_FILES:,} files")
        fill(cluster, load)
        time.sleep(SETTLE_SECONDS)
        each = max((cluster.memory_bytes(server_id) - before[server_id]) / MEMORY_FILES for server_id in cluster.ids)
    return [
        GrowthResult(
            name="memory",
            what=f"main memory for a file of {MEMORY_FILE_BYTES // 1024} KiB, {MEMORY_FILES:,} of them",
            value=f"{each / 1024:.2f} KiB",
            limit=f"{MEMORY_BYTES_MAX / 1024:g} KiB",
            is_ok=each < MEMORY_BYTES_MAX,
        )
    ]


def failover(wishes: Wishes) -> list[GrowthResult]:
    """How long clients of other servers get no acknowledgement when the leader is killed."""
    results = []
    for settings, what, limit_us in (
        ({}, "default timeouts", GAP_US_MAX),
        (QUICK_TIMEOUTS, "timeouts of 100 to 200 ms", QUICK_GAP_US_MAX),
    ):
        gaps_us, errors = [], 0
        with fresh_cluster(wishes.servers, **settings) as cluster:
            for number in range(1, wishes.rounds + 1):
                wishes.tell(f"round {number} of {wishes.rounds}: the leader is killed, {what}")
                gap_us, failed = _kill_leader(cluster)
                gaps_us.append(gap_us)
                errors += failed
        times = f"{len(gaps_us)} times" if len(gaps_us) > 1 else "once"
        results.append(
            GrowthResult(
                name="failover",
                what=f"longest time without an acknowledged write, leader killed under write-64 {times}, {what}",
                value=f"{max(gaps_us) / 1e6:.2f} s (median {statistics.median(gaps_us) / 1e6:.2f} s)",
                limit=f"{limit_us / 1e6:g} s",
                is_ok=max(gaps_us) < limit_us and not errors,
                errors=errors,
            )
        )
    return results


def _kill_leader(cluster: LocalCluster) -> tuple[int, int]:
    """Kill the leader under load; gives the longest gap in microseconds, and how many errors there were."""
    leader = cluster.leader()
    others = [server.client for server in cluster.config.servers if server.server_id != leader]
    load = attrs.evolve(WRITE_64.load, servers=tuple(others), seconds=GAP_SECONDS)
    is_killed = False

    def kill_in_time(_outcome: object, seconds: float) -> None:
        nonlocal is_killed
        if seconds >= KILL_AFTER_SECONDS and not is_killed:
            is_killed = True
            cluster.kill(leader)

    outcome = generator.run(load, kill_in_time)
    if not is_killed:
        raise NotReady("the load was over before the leader was to be killed")
    cluster.start(leader)
    cluster.leader()
    return outcome.longest_gap_us, outcome.errors.total()


GROWTH: dict[str, Callable[[Wishes], list[GrowthResult]]] = {
    "many-files": many_files,
    "snapshots": snapshots,
    "idle-connections": idle_connections,
    "idle-cpu": idle_cpu,
    "memory": memory,
    "failover": failover,
}
"""By the name that ``--only`` takes."""
