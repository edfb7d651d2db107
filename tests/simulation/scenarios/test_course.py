"""The cases of the course that this project began as (CS733 at IIT Bombay, as in abhisoniks/cs733), written anew.

There they were tests of one server's protocol, and later of five; here all run on five simulated servers.
"""

from __future__ import annotations

import attrs
import pytest

from tests.simulation.scenarios.cluster import MILLISECOND_US, SECOND_US, Cluster, Settings, contents_of
from tests.simulation.scenarios.requests import Ask, Want, append, cas, delete, read, stat, touch, write
from tests.simulation.scenarios.seeds import scenario

FIVE = Settings(servers=5)
BACKS_OFF_US = 1_600 * MILLISECOND_US
"""The longest that a client waits after its cas was refused."""


@scenario(FIVE)
def test_basic_sequence(cluster: Cluster) -> None:
    """Read, write, read, cas with right and wrong versions, delete: each through any server."""
    cluster.wait_for_leader()

    def ask(want: Want) -> bytes:
        (reply,) = cluster.get(cluster.dice.choice(cluster.ids), want)
        return reply.line + (b" " + reply.content if reply.content else b"")

    assert ask(read(b"cs733")) == b"ERR_FILE_NOT_FOUND"
    assert ask(delete(b"cs733")) == b"ERR_FILE_NOT_FOUND"
    assert ask(cas(b"cs733", 7)) == b"ERR_FILE_NOT_FOUND"
    assert ask(write(b"cs733", b"Cloud fun")) == b"OK 1"
    assert ask(read(b"cs733")) == b"CONTENTS 1 9 0 Cloud fun"
    assert ask(write(b"cs733", b"Cloud fun 2")) == b"OK 2"
    assert ask(cas(b"cs733", 1, b"too late")) == b"ERR_VERSION 2"
    assert ask(cas(b"cs733", 2, b"Cloud fun 3")) == b"OK 3"
    assert ask(read(b"cs733")) == b"CONTENTS 3 11 0 Cloud fun 3"
    assert ask(append(b"cs733", b"!")) == b"OK 4"
    assert ask(stat(b"cs733")) == b"STAT 4 12 0"
    assert ask(delete(b"cs733", 3)) == b"ERR_VERSION 4"
    assert ask(delete(b"cs733")) == b"OK"
    assert ask(read(b"cs733")) == b"ERR_FILE_NOT_FOUND"
    assert ask(cas(b"cs733", 0, b"made by cas")) == b"OK 6"


@scenario(FIVE)
def test_binary_contents(cluster: Cluster) -> None:
    """A content is any bytes: ends of lines, other requests, zeros."""
    cluster.wait_for_leader()
    contents = [
        bytes(range(256)),
        b"\r\nwrite b 1\r\nx\r\n",
        b"\0" * 100,
        b"\n",
        b"\r",
        cluster.dice.randbytes(2_000),
    ]
    writer, reader = cluster.dice.sample(cluster.ids, 2)
    cluster.get(writer, *(write(b"file-%d" % number, content) for number, content in enumerate(contents)))
    replies = cluster.get(reader, *(read(b"file-%d" % number) for number in range(len(contents))))
    assert contents_of(replies) == contents


@scenario(FIVE)
def test_chunks(cluster: Cluster) -> None:
    """Requests come in many pieces, cut anywhere, down to single bytes; other clients are served meanwhile."""
    cluster.wait_for_leader()
    server = cluster.dice.choice(cluster.ids)
    content = b"cut\r\nanywhere" * 3
    slow = cluster.ask(server, write(b"chunks", content), read(b"chunks"), pieces=200)
    quick = cluster.ask(server, write(b"quick"), pieces=cluster.dice.randint(1, 5))
    cluster.finish_asks(quick)
    assert not slow.is_done
    cluster.finish_asks(slow)
    assert slow.ok
    assert slow.replies[1].content == content


@scenario(FIVE)
def test_batch(cluster: Cluster) -> None:
    """Many requests in one piece are answered in order, each seeing what those before it did."""
    cluster.wait_for_leader()
    count = 20
    wants = [want for number in range(count) for want in (append(b"batch", b"%d;" % number), read(b"batch"))]
    replies = cluster.get(cluster.dice.choice(cluster.ids), *wants)
    assert [reply.word for reply in replies] == ["OK", "CONTENTS"] * count
    for number in range(count):
        assert replies[2 * number].version == replies[2 * number + 1].version == number + 1
        assert replies[2 * number + 1].content == b"".join(b"%d;" % each for each in range(number + 1))


@scenario(FIVE)
def test_timers(cluster: Cluster) -> None:
    """Files expire when they should; a later write, a touch or a delete changes that; each expiry has a version."""
    cluster.wait_for_leader()
    one, other = cluster.dice.sample(cluster.ids, 2)
    cluster.get(one, write(b"short", b"soon", exptime=1), write(b"kept", exptime=1), write(b"touched", exptime=1))
    cluster.get(one, write(b"gone", exptime=1), write(b"never"))
    began_us = cluster.loop.now_us
    cluster.get(other, write(b"kept"), touch(b"touched", 3), delete(b"gone"))
    assert cluster.get(other, stat(b"short"))[0].line == b"STAT 1 4 1"
    cluster.run_for(began_us + SECOND_US * 9 // 10 - cluster.loop.now_us)
    assert cluster.get(other, stat(b"short"))[0].ok, "not early"
    cluster.run_for(1_200 * MILLISECOND_US)
    names = (b"short", b"kept", b"touched", b"gone", b"never")
    words = [reply.word for reply in cluster.get(one, *map(stat, names))]
    assert words == ["ERR_FILE_NOT_FOUND", "STAT", "STAT", "ERR_FILE_NOT_FOUND", "STAT"]
    cluster.run_for(2 * SECOND_US)
    words = [reply.word for reply in cluster.get(one, *map(stat, names))]
    assert words == ["ERR_FILE_NOT_FOUND", "STAT", "ERR_FILE_NOT_FOUND", "ERR_FILE_NOT_FOUND", "STAT"]
    assert cluster.change(other) == 10, "five writes, a sixth, a delete, and two expiries before it"


@pytest.mark.slow
@scenario(FIVE)
def test_500_clients_write_10_times_each(cluster: Cluster) -> None:
    """500 clients of all servers write one file, 10 times each, in one stream each: 5,000 versions without a gap."""
    cluster.wait_for_leader()
    asks = [cluster.ask(cluster.ids[number % 5], *[write(b"crowd")] * 10) for number in range(500)]
    cluster.finish_asks(*asks)
    versions = [[reply.version for reply in ask.replies] for ask in asks]
    assert all(mine == sorted(mine) for mine in versions), "the requests of one client are carried out in order"
    assert sorted(version for mine in versions for version in mine) == list(range(1, 5_001))
    (last,) = cluster.get(cluster.dice.choice(cluster.ids), read(b"crowd"))
    assert last.version == 5_000
    assert last.content in {ask.contents[-1] for ask in asks}


@attrs.define(slots=True, eq=False)
class Swapper:
    """A client that swaps ten times with success, from the version that it was told last.

    When somebody else was quicker, it tries once more after a pause, to be told the version, and at once swaps all that
    is left of its ten in a row, each from the version that the one before it should lead to.
    """

    cluster: Cluster
    server: int
    version: int
    won: list[int] = attrs.field(factory=list)
    refused: int = 0

    def swap(self, count: int = 1) -> None:
        """Try so many in a row."""
        swaps = (cas(b"contended", self.version + ahead) for ahead in range(count))
        self.cluster.ask(self.server, *swaps, done=self.swapped)

    def swapped(self, ask: Ask) -> None:
        """Go on with the version that the last reply tells."""
        for reply in ask.replies:
            assert reply.word in {"OK", "ERR_VERSION"}
            self.version = reply.version
            if reply.ok:
                self.won.append(reply.version)
            else:
                self.refused += 1
        left = 10 - len(self.won)
        if left and (ask.ok or ask.count == 1):
            self.cluster.loop.after(0, lambda: self.swap(left))
        elif left:
            self.cluster.loop.after(self.cluster.dice.randrange(BACKS_OFF_US), self.swap)


@pytest.mark.slow
@scenario()
def test_100_clients_cas_until_each_has_succeeded_10_times(cluster: Cluster) -> None:
    """Every success has a version of its own; of what was refused nothing was carried out."""
    cluster.wait_for_leader()
    start = cluster.change(cluster.ids[0], write(b"contended"))
    swappers = [Swapper(cluster, cluster.ids[number % 3], start) for number in range(100)]
    for swapper in swappers:
        swapper.swap()
    cluster.wait(lambda: all(len(swapper.won) == 10 for swapper in swappers), 60 * SECOND_US, "all have succeeded")
    won = sorted(version for swapper in swappers for version in swapper.won)
    assert won == list(range(start + 1, start + 1_001))
    assert sum(swapper.refused for swapper in swappers) >= 99, "they did compete"


@scenario(FIVE)
def test_the_leader_is_killed_and_the_file_is_still_there(cluster: Cluster) -> None:
    """Through every server that is left, and with the next leader killed as well; the killed ones have it, too."""
    version = cluster.change(cluster.wait_for_leader(), write(b"still-there", b"yes"))
    killed = []
    for _ in range(2):
        killed.append(cluster.wait_for_leader())
        cluster.crash(killed[-1], power_cut=False)
        for server in cluster.up:
            (reply,) = cluster.get(server, read(b"still-there"))
            assert (reply.version, reply.content) == (version, b"yes")
    assert cluster.change(cluster.up[0], append(b"still-there", b"!")) > version
    cluster.restart(*killed)
    for server in killed:
        assert cluster.get(server, read(b"still-there"))[0].content == b"yes!"
