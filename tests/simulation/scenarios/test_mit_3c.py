"""MIT 6.5840, lab 3C (persistence, Figure 8, lossy networks), by intent; see `test_mit_names` for the list.

A crash is a power cut or a kill -9, as the dice say. What takes the course a thousand rounds on one run takes some
dozens of rounds on each seed here.
"""

from __future__ import annotations

from tests.simulation.scenarios.churn import SCARCE, ask_leaders, churn, clients, pause_a_moment
from tests.simulation.scenarios.cluster import (
    MILLISECOND_US,
    SECOND_US,
    Cluster,
    Settings,
    far_apart,
    reordering,
    unreliable,
)
from tests.simulation.scenarios.requests import append, read
from tests.simulation.scenarios.seeds import scenario

FIVE = Settings(servers=5)
FIVE_UNRELIABLE = Settings(servers=5, weather=unreliable)
FIGURE_8_ROUNDS = 30
CHURN_ROUNDS = 8


@scenario(mit="TestPersist13C")
def test_persist_1_3c(cluster: Cluster) -> None:
    """All restart; then the leader does, then a follower while the others go on: nothing is lost."""
    cluster.change(cluster.wait_for_leader(), append(b"kept", b"1"))
    cluster.crash(*cluster.ids)
    cluster.restart(*cluster.ids)
    cluster.change(cluster.wait_for_leader(), append(b"kept", b"2"))
    first = cluster.wait_for_leader()
    cluster.crash(first)
    cluster.restart(first)
    cluster.change(first, append(b"kept", b"3"))
    second = cluster.wait_for_leader()
    cluster.crash(second)
    third = cluster.wait_for_leader()
    cluster.change(third, append(b"kept", b"4"))
    cluster.restart(second)
    cluster.wait_until_equal()
    follower = cluster.dice.choice(cluster.others(cluster.wait_for_leader()))
    cluster.crash(follower)
    cluster.change(cluster.up[0], append(b"kept", b"5"))
    cluster.restart(follower)
    assert cluster.get(follower, read(b"kept"))[0].content == b"12345"


@scenario(FIVE, mit="TestPersist23C")
def test_persist_2_3c(cluster: Cluster) -> None:
    """Rotating majorities of crashed servers, five rounds."""
    content = b""
    for number in range(5):
        leader = cluster.wait_for_leader()
        cluster.change(leader, append(b"kept", b"%da" % number))
        start = cluster.ids.index(leader)
        ring = cluster.ids[start:] + cluster.ids[:start]
        cluster.crash(*ring[1:3])
        cluster.change(cluster.wait_for_leader(), append(b"kept", b"%db" % number))
        cluster.crash(ring[0], *ring[3:])
        cluster.restart(*ring[1:3])
        cluster.run_for(SECOND_US // 5)
        cluster.restart(ring[3])
        cluster.change(cluster.wait_for_leader(), append(b"kept", b"%dc" % number))
        cluster.restart(ring[4], ring[0])
        content += b"%da%db%dc" % (number, number, number)
    assert cluster.get(cluster.dice.choice(cluster.ids), read(b"kept"))[0].content == content


@scenario(mit="TestPersist33C")
def test_persist_3_3c(cluster: Cluster) -> None:
    """The leader and one follower crash; the leader comes back together with the follower that was cut off."""
    leader = cluster.wait_for_leader()
    cluster.change(leader, append(b"kept", b"1"))
    one, other = cluster.dice.sample(cluster.others(leader), 2)
    cluster.disconnect(other)
    cluster.change(leader, append(b"kept", b"2"))
    cluster.crash(leader, one)
    cluster.connect(other)
    cluster.restart(leader)
    cluster.change(cluster.wait_for_leader(), append(b"kept", b"3"))
    cluster.restart(one)
    cluster.change(one, append(b"kept", b"4"))
    assert cluster.get(other, read(b"kept"))[0].content == b"1234"


@scenario(Settings(servers=5, raft=SCARCE, weather=far_apart), mit="TestFigure83C")
def test_figure_8_3c(cluster: Cluster) -> None:
    """Leaders crash before they get much done, so that entries of several terms are left on a few servers."""
    for _ in range(FIGURE_8_ROUNDS):
        leader = ask_leaders(cluster)
        pause_a_moment(cluster)
        if leader is not None and leader in cluster.up:
            cluster.crash(leader)
        if len(cluster.up) < cluster.majority:
            cluster.restart(cluster.dice.choice(cluster.others(*cluster.up)))
    cluster.restart(*cluster.others(*cluster.up))
    cluster.change(cluster.wait_for_leader())


@scenario(FIVE_UNRELIABLE, mit="TestUnreliableAgree3C")
def test_unreliable_agree_3c(cluster: Cluster) -> None:
    """Rounds of five concurrent changes on a lossy network, all of which are made, each once."""
    cluster.wait_for_leader()
    asks = []
    for _ in range(8):
        asks += [cluster.ask(server, append(b"agreed")) for server in cluster.ids]
        cluster.run_for(50 * MILLISECOND_US)
    cluster.finish_asks(*asks)
    assert sorted(ask.reply.version for ask in asks) == list(range(1, len(asks) + 1))


@scenario(Settings(servers=5, raft=SCARCE, weather=unreliable), mit="TestFigure8Unreliable3C")
def test_figure_8_unreliable_3c(cluster: Cluster) -> None:
    """As Figure 8, with leaders that are cut off, losses, and from a fifth of the rounds on messages that come late."""
    for number in range(FIGURE_8_ROUNDS):
        if number == FIGURE_8_ROUNDS // 5:
            cluster.set_weather(reordering)
        leader = ask_leaders(cluster)
        pause_a_moment(cluster)
        if leader is not None and cluster.dice.random() < 0.5:
            cluster.disconnect(leader)
        if len(cluster.present) < cluster.majority:
            cluster.connect(cluster.dice.choice(cluster.others(*cluster.present)))
    cluster.connect(*cluster.ids)
    cluster.set_weather(unreliable)
    cluster.wait_for_leader()


@scenario(Settings(servers=5, load=clients(3)), mit="TestReliableChurn3C")
def test_reliable_churn_3c(cluster: Cluster) -> None:
    """Three clients while servers crash, restart, and are cut off: every acknowledged change is in the log."""
    churn(cluster, CHURN_ROUNDS)


@scenario(Settings(servers=5, load=clients(3), weather=unreliable), mit="TestUnreliableChurn3C")
def test_unreliable_churn_3c(cluster: Cluster) -> None:
    """The same on a lossy network."""
    churn(cluster, CHURN_ROUNDS)
