"""Clients that were answered together share the next batch, and servers whose batches were in one round the next round.

(:mod:`fileserver.returning_clients`, :mod:`raftnode.expected_batches`)
"""

from __future__ import annotations

from random import Random

from fileserver.commands import decode_batch
from fileserver.simulation.network import LinkWeather
from raftnode.proposals import Proposals
from statemachine.messages import AppendEntries
from tests.simulation.scenarios.cluster import MILLISECOND_US, SECOND_US, Cluster, Settings, Traffic
from tests.simulation.scenarios.requests import Ask, read, write
from tests.simulation.scenarios.seeds import scenario

CLIENTS = 20
CLIENTS_EACH = 8
TIMES = 20


def near(_dice: Random) -> LinkWeather:
    """A network on which nothing takes long."""
    return LinkWeather(delay_us_max=300)


def ask_again_and_again(cluster: Cluster, *servers: int) -> None:
    """A client at each of these servers asks as soon as it is answered, so many times; wait for all of them."""
    left = dict.fromkeys(range(len(servers)), TIMES)

    def ask(client: int) -> None:
        left[client] -= 1
        cluster.ask(servers[client], write(b"%d" % client), done=lambda ask: again(client, ask))

    def again(client: int, done: Ask) -> None:
        assert done.ok
        if left[client]:
            ask(client)
        else:
            del left[client]

    for client in range(len(servers)):
        ask(client)
    cluster.wait(lambda: not left, 10 * SECOND_US, "all have been answered")


def batches(traffic: Traffic, sender: int) -> list[int]:
    """How many changes each batch had that a server sent to the leader."""
    return [
        len(decode_batch(proposal.payload)[0])
        for source, _, message in traffic.sent
        if source == sender and isinstance(message, Proposals)
        for proposal in message.items
    ]


@scenario(Settings(weather=near))
def test_clients_that_were_answered_together_share_the_next_batch(cluster: Cluster) -> None:
    follower = cluster.dice.choice(cluster.others(cluster.wait_for_leader()))
    ask_again_and_again(cluster, *[follower] * CLIENTS)
    traffic = cluster.count()
    ask_again_and_again(cluster, *[follower] * CLIENTS)
    assert sum(batches(traffic, follower)) == CLIENTS * TIMES
    assert len(batches(traffic, follower)) <= TIMES * 1.4


@scenario(Settings(weather=near))
def test_who_does_not_come_again_is_not_waited_for_long(cluster: Cluster) -> None:
    follower = cluster.dice.choice(cluster.others(cluster.wait_for_leader()))
    ask_again_and_again(cluster, *[follower] * CLIENTS)
    begun_us = cluster.world.loop.now_us
    cluster.change(follower, write(b"alone"))
    took_us = cluster.world.loop.now_us - begun_us
    cluster.change(follower, write(b"alone"))
    assert took_us <= cluster.world.loop.now_us - begun_us - took_us + 5 * MILLISECOND_US


@scenario(Settings(servers=5, weather=near))
def test_servers_whose_batches_were_in_one_round_share_the_next(cluster: Cluster) -> None:
    leader = cluster.wait_for_leader()
    ask_again_and_again(cluster, *cluster.present)
    traffic = cluster.count()
    ask_again_and_again(cluster, *cluster.present)
    rounds = {
        message.prev_log_index
        for source, _, message in traffic.sent
        if source == leader and isinstance(message, AppendEntries) and message.entries
    }
    assert len(rounds) <= TIMES * 1.5


@scenario(Settings(servers=5, weather=near))
def test_reads_of_all_servers_go_with_the_rounds_of_changes(cluster: Cluster) -> None:
    """Each server has clients of which one in five asks for a change, so some have none to ask for in a round."""
    cluster.wait_for_leader()
    dice = cluster.dice
    left = dict.fromkeys(range(5 * CLIENTS_EACH), TIMES)

    def ask(client: int) -> None:
        left[client] -= 1
        want = write(b"%d" % client) if dice.random() < 0.2 else read(b"%d" % client)
        cluster.ask(client % 5 + 1, want, done=lambda _: again(client))

    def again(client: int) -> None:
        if left[client]:
            ask(client)
        else:
            del left[client]

    traffic = cluster.count()
    for client in list(left):
        ask(client)
    cluster.wait(lambda: not left, 10 * SECOND_US, "all have been answered")
    assert sum(traffic.messages.values()) <= 66 * TIMES, "without sharing it is 84 on average"
