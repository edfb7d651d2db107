"""Reads that come together with changes, and so need no barrier of their own (:mod:`fileserver.replicated`)."""

from __future__ import annotations

import attrs

from raftnode.codec import PeerMessage
from raftnode.proposals import Proposals
from statemachine.messages import ReadIndex
from tests.simulation.scenarios.cluster import MILLISECOND_US, SECOND_US, Cluster, Settings
from tests.simulation.scenarios.requests import Ask, read, write
from tests.simulation.scenarios.seeds import scenario


def set_up(cluster: Cluster) -> int:
    """A follower that takes its clients' requests together, a file "f", and batches that are quick on average."""
    cluster.world.options = attrs.evolve(cluster.world.options, pass_us=MILLISECOND_US)
    follower = cluster.dice.choice(cluster.others(cluster.wait_for_leader()))
    for _ in range(3):
        cluster.change(follower, write(b"f"))
    return follower


def ask_both(cluster: Cluster, follower: int) -> tuple[Ask, Ask]:
    """Two clients ask at the same time, one for a read and one for a change."""
    return cluster.ask(follower, read(b"f")), cluster.ask(follower, write(b"g"))


@scenario()
def test_a_read_that_comes_with_a_change_needs_no_barrier(cluster: Cluster) -> None:
    follower = set_up(cluster)
    traffic = cluster.count()
    asks = ask_both(cluster, follower)
    cluster.finish_asks(*asks)
    assert [ask.ok for ask in asks] == [True, True]
    assert traffic.messages[Proposals] == 1
    assert traffic.messages[ReadIndex] == 0
    assert cluster.get(follower, read(b"f"))[0].ok
    assert traffic.messages[ReadIndex] == 1, "alone it needs one"


@scenario()
def test_a_read_that_comes_too_late_for_a_batch_is_answered_with_it(cluster: Cluster) -> None:
    """It has a barrier of its own, which mostly is passed before the batch is applied."""
    follower = set_up(cluster)
    for _ in range(10):
        traffic = cluster.count()
        answered: list[Ask] = []
        writing = cluster.ask(follower, write(b"g"), done=answered.append)
        cluster.run_for(2 * MILLISECOND_US)
        is_late = traffic.messages[Proposals] == 1 and not answered
        reading = cluster.ask(follower, read(b"f"), done=answered.append)
        cluster.finish_asks(reading, writing)
        if is_late:
            assert traffic.messages[ReadIndex] == 1
            assert answered == [writing, reading]


@scenario()
def test_a_read_does_not_join_a_change_that_takes_long(cluster: Cluster) -> None:
    """The first reads that come later than a change may wait for it a moment, those after these don't."""
    follower = set_up(cluster)
    cluster.world.lets_pass = lambda sender, _, message: sender != follower or not isinstance(message, Proposals)
    writing = cluster.ask(follower, write(b"g"))
    cluster.run_for(5 * MILLISECOND_US)
    reading = cluster.ask(follower, read(b"f"))
    cluster.finish_asks(reading, within_us=SECOND_US)
    assert reading.ok
    reading = cluster.ask(follower, read(b"f"))
    cluster.finish_asks(reading, within_us=100 * MILLISECOND_US)
    assert reading.ok
    assert not writing.is_done
    cluster.world.lets_pass = None
    cluster.finish_asks(writing)
    assert writing.ok


@scenario()
def test_a_read_does_not_wait_for_a_change_that_takes_long(cluster: Cluster) -> None:
    """Changes don't get through for a while (as with a full disk, say): reads that came with them do."""
    follower = set_up(cluster)

    def no_proposals(sender: int, _receiver: int, message: PeerMessage) -> bool:
        return sender != follower or not isinstance(message, Proposals)

    cluster.world.lets_pass = no_proposals
    reading, writing = ask_both(cluster, follower)
    cluster.finish_asks(reading, within_us=SECOND_US)
    assert reading.ok
    assert not writing.is_done
    cluster.world.lets_pass = None
    cluster.finish_asks(writing)
    assert writing.ok


@scenario(Settings(request_timeout_us=2 * SECOND_US))
def test_a_read_and_the_change_that_it_came_with_are_given_up(cluster: Cluster) -> None:
    """Nobody is reached: of the change nobody can tell what becomes of it, and the read just wasn't carried out."""
    follower = set_up(cluster)
    cluster.disconnect(follower)
    reading, writing = ask_both(cluster, follower)
    cluster.finish_asks(reading, writing, within_us=4 * SECOND_US)
    assert reading.reply.line.startswith(b"ERR_INTERNAL not applied")
    assert writing.reply.line.startswith(b"ERR_INTERNAL outcome unknown")
