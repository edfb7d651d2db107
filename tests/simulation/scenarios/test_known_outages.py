"""Broken networks that have stopped real systems for hours, or systems of papers for ever.

* Cloudflare, 2 November 2020: a switch that was half broken left two of three etcd servers unable to hear each other,
  while both heard the third. The one that didn't hear the leader campaigned again and again, and each time
  deposed it.
* OmniPaxos (Ng, Haridi, Carbone: EuroSys 2023), section 2: "quorum-loss" (the leader loses its majority, and one other
  server still hears everybody), "constrained election" (that server's log is behind) and "chained".
* etcd issue 20418 (found in 2025): a leader that was paused answered a read with what had been true before.
* A leader that is heard and hears nobody, or the other way round.
"""

from __future__ import annotations

from fileserver.torture.shapes import Shape, cut_links
from tests.simulation.scenarios.cluster import MILLISECOND_US, SECOND_US, Cluster, Settings
from tests.simulation.scenarios.requests import read, write
from tests.simulation.scenarios.seeds import scenario
from tests.simulation.scenarios.test_partial_partitions import SERVED_WITHIN_US, check_serves, renamed

FIVE = Settings(servers=5)


def set_up(cluster: Cluster) -> int:
    """A leader, and a change that all have; gives the leader."""
    leader = cluster.wait_for_leader()
    cluster.change(leader)
    cluster.wait_until_equal()
    return leader


@scenario()
def test_cloudflare_2020_a_half_broken_switch(cluster: Cluster) -> None:
    """The server that doesn't hear the leader deposes nobody, and the other two serve on, without one slow reply."""
    leader = set_up(cluster)
    term = cluster.raft(leader).current_term
    deaf, between = cluster.dice.sample(cluster.others(leader), 2)
    cluster.cut_exactly([(leader, deaf), (deaf, leader)])
    for _ in range(8):
        cluster.run_for(500 * MILLISECOND_US)
        cluster.change(cluster.dice.choice((leader, between)), within_us=100 * MILLISECOND_US)
        assert cluster.leader() == leader
    assert {cluster.raft(server).current_term for server in cluster.ids} == {term}
    cluster.mend()
    cluster.change(deaf, within_us=SERVED_WITHIN_US)
    assert cluster.leader() == leader
    assert cluster.raft(leader).current_term == term


@scenario()
def test_cloudflare_2020_a_switch_that_comes_and_goes(cluster: Cluster) -> None:
    """So it is when the links come and go, at times about as long as election timeouts."""
    leader = set_up(cluster)
    term = cluster.raft(leader).current_term
    deaf, between = cluster.dice.sample(cluster.others(leader), 2)
    for number in range(6):
        cluster.cut_exactly([] if number % 2 else [(leader, deaf), (deaf, leader)])
        cluster.run_for(cluster.dice.randrange(300, 1_000) * MILLISECOND_US)
        cluster.change(cluster.dice.choice((leader, between)), within_us=100 * MILLISECOND_US)
    assert {cluster.raft(server).current_term for server in cluster.ids} == {term}


@scenario(FIVE)
def test_quorum_loss(cluster: Cluster) -> None:
    """Everybody hears one server only, which isn't the leader: that one takes over, though it heard the old leader."""
    leader = set_up(cluster)
    hub, *leaves = cluster.dice.sample(cluster.others(leader), 4)
    cluster.cut_exactly(renamed(cut_links(Shape.STAR, 5), [hub, leader, *leaves]))
    assert cluster.wait_for_leader(within_us=SERVED_WITHIN_US) == hub
    check_serves(cluster)


@scenario(FIVE)
def test_constrained_election(cluster: Cluster) -> None:
    """As quorum-loss, but the hub's log is behind: Raft can't elect it (and doesn't), and nothing is lost.

    What is acknowledged is on a majority; of that majority nobody hears one any more. When one more link is mended,
    there is a leader.
    """
    leader = set_up(cluster)
    hub, *leaves = cluster.dice.sample(cluster.others(leader), 4)
    cluster.disconnect(hub)
    version = cluster.change(leader)
    cluster.run_for(300 * MILLISECOND_US)
    cluster.connect(hub)
    star = cut_links(Shape.STAR, 5)
    # The old leader is away for as long as it takes, so that it can't bring the hub up to date.
    cluster.cut_exactly({*renamed(star, [hub, leader, *leaves]), (leader, hub), (hub, leader)})
    cluster.nobody_leads_for(3 * SECOND_US)
    assert cluster.store(hub).version < version
    one, other, _ = leaves
    cluster.cut_exactly(cluster.network.cut - {(one, other), (other, one)})
    elected = cluster.wait_for_leader(within_us=2 * SERVED_WITHIN_US)
    assert elected in (one, other), "each of them, the hub and the other are a majority"
    assert cluster.change(elected) == version + 1


@scenario()
def test_chained(cluster: Cluster) -> None:
    """Three servers in a chain, the leader at its end: the other end doesn't take turns with it."""
    leader = set_up(cluster)
    middle, end = cluster.dice.sample(cluster.others(leader), 2)
    cluster.cut_exactly([(leader, end), (end, leader)])
    terms = set()
    for _ in range(4):
        cluster.run_for(SECOND_US)
        cluster.change(middle)
        terms.add(cluster.raft(middle).current_term)
    assert len(terms) == 1


@scenario(FIVE)
def test_a_deaf_leader(cluster: Cluster) -> None:
    """A leader that hears nobody steps down, though all hear it: they elect another within a few seconds."""
    leader = set_up(cluster)
    cluster.cut_exactly((server, leader) for server in cluster.others(leader))
    ask = cluster.ask(leader, write(b"file"))
    assert cluster.wait_for_leader(within_us=SERVED_WITHIN_US) != leader
    check_serves(cluster)
    assert not ask.is_done
    assert not cluster.server(leader).is_leader


@scenario(FIVE)
def test_a_mute_leader(cluster: Cluster) -> None:
    """A leader that nobody hears is replaced, and follows the next one that it hears."""
    leader = set_up(cluster)
    cluster.cut_exactly((leader, server) for server in cluster.others(leader))
    ask = cluster.ask(leader, write(b"file"))
    second = cluster.wait_for_leader(cluster.others(leader), within_us=SERVED_WITHIN_US)
    check_serves(cluster)
    assert not ask.is_done
    assert cluster.raft(leader).leader_id == second
    cluster.mend()
    cluster.finish_asks(ask)
    assert ask.ok


@scenario(FIVE)
def test_a_cut_off_server_brings_no_new_term_back(cluster: Cluster) -> None:
    """A server that was alone for long has asked in vain for votes: its return disturbs nobody."""
    leader = set_up(cluster)
    term = cluster.raft(leader).current_term
    alone = cluster.dice.choice(cluster.others(leader))
    cluster.disconnect(alone)
    cluster.run_for(4 * SECOND_US)
    cluster.change(leader)
    cluster.connect(alone)
    cluster.change(alone)
    assert {cluster.raft(server).current_term for server in cluster.ids} == {term}
    assert cluster.leader() == leader


@scenario(FIVE)
def test_a_paused_leader_shows_nothing_old(cluster: Cluster) -> None:
    """What it is asked while it stands still it answers with what its successor has changed meanwhile."""
    leader = set_up(cluster)
    cluster.pause(leader, 3 * SECOND_US)
    second = cluster.wait_for_leader(cluster.others(leader), within_us=SERVED_WITHIN_US)
    version = cluster.change(second)
    shown = cluster.ask(leader, read(b"file"))
    changed = cluster.ask(leader, write(b"other"))
    cluster.run_for(SECOND_US // 10)
    assert not shown.is_done
    cluster.finish_asks(shown, changed)
    assert shown.reply.version == version
    assert changed.reply.version == version + 1
    assert cluster.leader() == second
