"""Every shape of a broken network (`fileserver/torture/shapes.py`) among 3, 5 and 7 servers.

Where the shape leaves a server that hears a majority and is heard by it, one comes to lead and to serve within a few
seconds, and stays: no row of elections. Where it leaves none, nothing is acknowledged. After healing all is well.

Sources: openraft issue 2111 and OmniPaxos (EuroSys 2023), which show how leaders come and go for ever, or never come,
in such networks; Jepsen's nemeses.
"""

from __future__ import annotations

from random import Random

import pytest

from fileserver.torture.shapes import Link, Links, Shape, can_agree, stages
from tests.simulation.scenarios.cluster import MILLISECOND_US, SECOND_US, Cluster, Settings
from tests.simulation.scenarios.requests import write
from tests.simulation.scenarios.seeds import run_seeds

SERVED_WITHIN_US = 6 * SECOND_US
"""A leader that can't lead any more steps down after 0.8 s, and an election or two take as long each."""
STAYS_US = REFUSES_US = 1_600 * MILLISECOND_US
"""Twice the longest election timeout."""


def place(cluster: Cluster) -> list[int]:
    """Who stands where: the leader at place 0, which the shape is about, on every other seed."""
    servers = cluster.dice.sample(cluster.ids, len(cluster.ids))
    if cluster.seed % 2:
        leader = cluster.wait_for_leader()
        servers.remove(leader)
        servers.insert(0, leader)
    return servers


def check_serves(cluster: Cluster) -> None:
    """A leader acknowledges changes within a while; from then on there is no other, and no other term."""
    leader = cluster.wait_for_leader(within_us=SERVED_WITHIN_US)
    cluster.change(leader, within_us=SERVED_WITHIN_US)
    term = cluster.raft(leader).current_term
    for _ in range(2):
        cluster.run_for(STAYS_US // 2)
        assert cluster.leader() == leader, f"server {leader} led, and now {cluster.leader()}"
        cluster.change(leader, within_us=SECOND_US)
    assert cluster.raft(leader).current_term == term


def check_refuses(cluster: Cluster) -> None:
    """Nothing that is asked of any server is acknowledged."""
    asks = [cluster.ask(server, write(b"file")) for server in cluster.ids]
    version = cluster.world.oracle.model.version
    cluster.run_for(REFUSES_US)
    assert not any(ask.is_done for ask in asks)
    assert cluster.world.oracle.model.version == version


def live_through(cluster: Cluster, parts: tuple[Links, ...], servers: list[int]) -> None:
    """Have the links cut, stage by stage; what must hold in each depends on whether anybody could lead."""
    for part in parts:
        cluster.cut_exactly(renamed(part, servers))
        if can_agree(part, len(servers)):
            check_serves(cluster)
        else:
            check_refuses(cluster)


def renamed(links: Links, servers: list[int]) -> list[Link]:
    """From places to servers."""
    return sorted((servers[sender], servers[receiver]) for sender, receiver in links)


@pytest.mark.parametrize("count", [3, 5, 7])
@pytest.mark.parametrize("shape", Shape, ids=lambda shape: shape.value)
def test_a_shape(shape: Shape, count: int) -> None:
    def script(cluster: Cluster) -> None:
        cluster.change(cluster.wait_for_leader())
        cluster.wait_until_equal()
        live_through(cluster, stages(shape, count, cluster.dice), place(cluster))
        cluster.mend()
        check_serves(cluster)

    run_seeds(script, Settings(servers=count))


@pytest.mark.parametrize("count", [3, 5, 7])
@pytest.mark.parametrize("shape", Shape, ids=lambda shape: shape.value)
def test_the_shapes_are_what_they_are_said_to_be(shape: Shape, count: int) -> None:
    """Which of them leave somebody who can lead, so that the scenarios above don't all end up on one side."""
    nobody_leads = {
        Shape.ONE_WAY: {3, 5, 7},
        Shape.RING: {7},
        Shape.CHAIN: {7},
    }
    agree = [can_agree(part, count) for part in stages(shape, count, Random(0))]
    if shape is Shape.SWIZZLED:
        assert any(agree)
        assert not all(agree), "at its height a majority is away"
    else:
        assert agree == [count not in nobody_leads.get(shape, set())]
