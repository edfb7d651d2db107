"""Clusters under random faults, each from one seed: always safe, and well again once the faults end.

A run has two phases. In the first anything may happen: loss, repeats, reordering, cut links, crashes that lose what
wasn't saved, snapshots, transfers. In the second the faults end, and the cluster must elect a leader, take an entry,
answer a read, and agree.
"""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import attrs
import pytest

from statemachine.configuration import Configuration
from statemachine.roles import Options
from tests.stage2_statemachine.harness import MS, Cluster, Weather

SEEDS = 150
STEPS = 60
OPTIONS = Options(
    heartbeat_us=75 * MS,
    append_bytes_max=64,
    probe_bytes_max=32,
    inflight_bytes_max=256,
    inflight_messages_max=4,
    snapshot_chunk_bytes=100,
)
"""Limits so small that they are met."""


def weather_of(dice: random.Random) -> Weather:
    """What a run's network and disks are like: many are good in most respects, so that much happens."""
    return Weather(
        delay_us=dice.choice([(1 * MS, 1 * MS), (1 * MS, 10 * MS), (1 * MS, 80 * MS)]),
        save_us=dice.choice([(0, 0), (1 * MS, 3 * MS), (1 * MS, 60 * MS)]),
        turn_us=dice.choice([(0, 0), (0, 3 * MS)]),
        loss=dice.choice([0, 0, 0.02, 0.1, 0.3]),
        repeats=dice.choice([0, 0, 0.05, 0.3]),
        in_order=dice.random() < 0.6,
        damaged_snapshots=dice.choice([0, 0.3]),
        crashes_noticed=dice.choice([0, 0.5, 1]),
        crashes_before_save=dice.choice([0, 0, 0.02, 0.1]),
    )


def configuration_of(dice: random.Random) -> Configuration:
    voters = dice.choice([1, 2, 3, 3, 4, 5, 5, 5, 5])
    learners = dice.choice([0, 0, 0, 1, 2])
    return Configuration(voters=range(1, voters + 1), learners=range(voters + 1, voters + learners + 1))


def links_of(dice: random.Random, members: list[int]) -> list[list[int]]:
    """The groups that hear each other: two, three, a bridge, a hub with leaves, a chain."""
    members = dice.sample(members, len(members))
    hub, rest = members[0], members[1:]
    cut = dice.randint(0, len(members))
    shapes = [
        [members[:cut], members[cut:]],
        [members[::3], members[1::3], members[2::3]],
        [[hub, *rest[: len(rest) // 2]], [hub, *rest[len(rest) // 2 :]]],
        [[hub, leaf] for leaf in rest],
        [list(pair) for pair in pairwise(members)],
    ]
    return dice.choice(shapes)


def disturb(cluster: Cluster, dice: random.Random) -> None:
    """One step of the first phase."""
    members = list(cluster.disks)
    leader = cluster.leader
    server = leader.server_id if leader is not None and dice.random() < 0.5 else dice.choice(members)
    what = dice.random()
    if what < 0.10:
        cluster.separate(links_of(dice, members))
    elif what < 0.15:
        for sender, to in dice.sample(list(combinations(members, 2)), min(len(members) - 1, 3)):
            cluster.cut_link(*dice.sample([sender, to], 2))
    elif what < 0.20:
        cluster.separate([[server], [other for other in members if other != server]])
    elif what < 0.35:
        cluster.heal()
    elif what < 0.47:
        if server in cluster.servers:
            cluster.crash(server)
    elif what < 0.65:
        for down in members:
            if down not in cluster.servers and dice.random() < 0.7:
                cluster.start(down)
    elif what < 0.80:
        cluster.take_snapshot(server, kept=dice.choice([0, 0, 3, 10]))
    elif what < 0.85:
        cluster.transfer(server, dice.choice([None, *members]))
    elif what < 0.95:
        cluster.limit_memory(server, dice.choice([0, 0, 30, 300]))


def work(cluster: Cluster, dice: random.Random, number: int) -> None:
    """Some submissions and reads, anywhere."""
    for server in cluster.disks:
        if dice.random() < (0.7 if cluster.servers.get(server) is cluster.leader else 0.1):
            count = dice.choice([1, 1, 3, 30])
            entries = [b"%d.%d.%d" % (number, server, each) for each in range(count)]
            cluster.submit(server, *entries, waiting=frozenset(dice.sample(list(cluster.disks), 1)))
        if dice.random() < 0.3:
            cluster.read(server)


def play(seed: int) -> Cluster:
    """One run; what it is made of is drawn from the seed."""
    dice = random.Random(f"play {seed}")
    cluster = Cluster(configuration_of(dice), options=OPTIONS, weather=weather_of(dice), seed=seed)
    for number in range(STEPS):
        work(cluster, dice, number)
        disturb(cluster, dice)
        cluster.run(dice.choice([1, 10, 100, 300]) * MS)
    recover(cluster)
    return cluster


def recover(cluster: Cluster) -> None:
    """The faults end, and everything goes well again."""
    cluster.weather = attrs.evolve(cluster.weather, delay_us=(1 * MS, 2 * MS), save_us=(0, 1 * MS), loss=0, repeats=0)
    cluster.weather = attrs.evolve(cluster.weather, damaged_snapshots=0, crashes_before_save=0)
    cluster.heal()
    for server in cluster.disks:
        cluster.start_if_down(server)
    cluster.run_until(lambda: cluster.settled)
    while cluster.history[-1] != b"last":
        assert cluster.leader is not None, "a leader is lost for nothing"
        cluster.submit(cluster.leader.server_id, b"last")
        cluster.run(2 * OPTIONS.election_timeout_us_max)
    for server in cluster.servers:
        cluster.read(server)
    passed = sum(server.barriers_passed for server in cluster.servers.values())
    wanted = passed + len(cluster.servers)
    cluster.run_until(lambda: sum(server.barriers_passed for server in cluster.servers.values()) >= wanted, 500 * MS)
    logs = [server.raft.log for server in cluster.servers.values()]
    first = max(log.memory_base for log in logs) + 1
    assert len({tuple(log.entries(first, log.last_index)) for log in logs}) == 1


@pytest.mark.parametrize("seed", range(SEEDS))
def test_safe_under_faults_and_well_after_them(seed: int) -> None:
    play(seed)


def churn(seed: int) -> Cluster:
    """Leaders come and go before they get much done (Figure 8): in many terms, entries are left on a few servers."""
    dice = random.Random(f"churn {seed}")
    weather = Weather(
        delay_us=dice.choice([(1 * MS, 1 * MS), (1 * MS, 30 * MS)]),
        save_us=dice.choice([(0, 0), (1 * MS, 30 * MS)]),
        crashes_noticed=dice.choice([0, 1]),
        crashes_before_save=dice.choice([0, 0.05]),
    )
    options = attrs.evolve(OPTIONS, election_timeout_us_min=150 * MS, election_timeout_us_max=200 * MS)
    cluster = Cluster(Configuration(voters=range(1, 6)), options=options, weather=weather, seed=seed)
    members = list(cluster.disks)
    for number in range(60):
        leader = cluster.leader
        if leader is not None:
            if dice.random() < 0.5:
                cluster.separate([[leader.server_id, dice.choice(members)]])
            cluster.submit(leader.server_id, b"%d" % number)
            cluster.run(dice.choice([0, 1, 2, 40, 100]) * MS)
            if leader.server_id in cluster.servers:
                cluster.crash(leader.server_id)
        cluster.heal()
        for down in dice.sample(members, 5):
            if len(cluster.servers) < 3 or dice.random() < 0.2:
                cluster.start_if_down(down)
        cluster.run(dice.choice([100, 200, 300]) * MS)
    recover(cluster)
    return cluster


@pytest.mark.parametrize("seed", range(16))
def test_safe_when_leaders_come_and_go(seed: int) -> None:
    churn(seed)
