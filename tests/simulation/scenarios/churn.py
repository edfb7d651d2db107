"""What several scenarios do over and over: crash leaders, cut them off, churn, and the course's generic rounds."""

from __future__ import annotations

import attrs

from fileserver.simulation.clients import Load
from tests.simulation.scenarios.cluster import LEADER_WITHIN_US, MILLISECOND_US, RAFT, SECOND_US, Cluster
from tests.simulation.scenarios.requests import append

READ_WRITE_CAS = (3, 0, 2, 3, 0, 1, 0)
"""How often clients read, stat, write, cas, delete, append and touch: the course's Get, Put, and Put by version."""


def clients(count: int, files: int = 1, think_us: int = 600 * MILLISECOND_US) -> Load:
    """Clients that read and change a few files, each at one server, and move on to another when that fails them."""
    return Load(
        clients=count,
        think_us=think_us,
        patience_us=SECOND_US,
        files=files,
        weights=READ_WRITE_CAS,
        expires=0.0,
        pipelined=0.0,
        big=0.0,
    )


SCARCE = attrs.evolve(RAFT, append_bytes_max=1, inflight_messages_max=1)
"""One entry in a message, and the next only when that was answered: leaders that crash leave logs of all kinds."""


def ask_leaders(cluster: Cluster) -> int | None:
    """Wait a while for somebody to believe that it leads; ask changes of all who do; gives one of them."""
    limit_us = cluster.loop.now_us + SECOND_US
    while not any(cluster.server(server).is_leader for server in cluster.present) and cluster.loop.now_us < limit_us:
        cluster.run_for(2 * MILLISECOND_US)
    found = None
    for server in cluster.up:
        if cluster.server(server).is_leader:
            cluster.propose(server, 1)
            found = server if found is None or cluster.dice.random() < 0.5 else found
    return found


def pause_a_moment(cluster: Cluster) -> None:
    """Mostly so short that little gets done, now and then longer (as the course's Figure 8)."""
    longest_us = 500 * MILLISECOND_US if cluster.dice.random() < 0.1 else 50 * MILLISECOND_US
    cluster.run_for(cluster.dice.randrange(longest_us))


def churn(cluster: Cluster, rounds: int) -> None:
    """Servers are cut off, connected, restarted and crashed at random, a majority always being there or soon back."""
    dice = cluster.dice
    for _ in range(rounds):
        if dice.random() < 0.2 and len(cluster.present) > cluster.majority:
            cluster.disconnect(dice.choice(cluster.present))
        if dice.random() < 0.5:
            server = dice.choice(cluster.ids)
            if server not in cluster.up:
                cluster.restart(server)
            cluster.connect(server)
        if dice.random() < 0.2 and len(cluster.present) > cluster.majority:
            cluster.crash(dice.choice(cluster.present))
        cluster.run_for(dice.randrange(100, 400) * MILLISECOND_US)


def repartition(cluster: Cluster, rounds: int) -> None:
    """Split the servers at random into two groups, again and again."""
    for _ in range(rounds):
        first = {server for server in cluster.ids if cluster.dice.random() < 0.5}
        cluster.split(first, set(cluster.others(*first)))
        cluster.run_for(cluster.dice.randrange(400, 900) * MILLISECOND_US)


def generic(
    cluster: Cluster,
    *,
    crashes: bool = False,
    partitions: bool = False,
    rounds: int = 2,
    work_us: int = 800 * MILLISECOND_US,
) -> None:
    """The course's generic test: clients work, under partitions if told so; then all servers crash and restart.

    Each round ends with a change that has to be acknowledged, so that every round has seen the cluster well.
    """
    oracle = cluster.world.oracle
    cluster.wait_for_leader()
    for _ in range(rounds):
        if partitions:
            repartition(cluster, 2)
            cluster.mend()
        else:
            cluster.run_for(work_us)
        if crashes:
            cluster.crash(*cluster.ids)
            cluster.run_for(cluster.dice.randrange(300) * MILLISECOND_US)
            cluster.restart(*cluster.ids)
        cluster.wait_for_leader()
        change_until_acknowledged(cluster)
    cluster.wait(lambda: oracle.changes_acknowledged > rounds, LEADER_WITHIN_US, "the clients served as well")


def change_until_acknowledged(cluster: Cluster) -> None:
    """Have a change acknowledged by any server: a lossy network may have taken the first few."""
    for _ in range(10):
        ask = cluster.ask(cluster.dice.choice(cluster.up), append(b"rounds"), patience_us=5 * SECOND_US)
        cluster.finish_asks(ask)
        if ask.ok:
            return
    raise AssertionError("no change was acknowledged in ten attempts")
