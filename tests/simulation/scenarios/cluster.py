"""A simulated cluster that does what a script says: no fault and no request but those that a scenario asks for.

Theory of operation
    :class:`Cluster` wraps a :class:`~fileserver.simulation.world.World`: the product's own servers on simulated
    network, disks and clocks, all of it from one seed. The scenario lets time pass (`run_for`, `wait`), cuts and mends
    links, crashes, restarts and pauses servers, changes the weather, asks requests at a server, and looks at what
    servers believe. The world checks the properties of Raft at each step and each reply against the oracle, so a script
    says only what is particular to it.

    `finish` heals everything, has a change acknowledged within ten simulated seconds, waits until all servers are equal
    and compares their files with the model's, one by one.

Invariants
    The same seed and the same script give the same run: all that a script draws, it draws from `Cluster.dice`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from random import Random
from typing import TypeAlias

import attrs

from fileserver.commands import WRITE, encode_batch
from fileserver.simulation.clients import Load
from fileserver.simulation.nemesis import Nemesis
from fileserver.simulation.network import LinkWeather
from fileserver.simulation.options import RunOptions
from fileserver.simulation.oracle import Request
from fileserver.simulation.server import SimulatedServer
from fileserver.simulation.watcher import Watcher
from fileserver.simulation.world import World
from fileserver.store import Store
from fileserver.torture.shapes import Link
from raftnode import codec
from raftnode.replica import Results
from raftnode.simulated_disk import Survival
from statemachine.messages import RequestVote
from statemachine.raft import Raft
from statemachine.roles import Options
from tests.simulation.scenarios.requests import Ask, Asker, Reply, Want, nothing, write

MILLISECOND_US = 1_000
SECOND_US = 1_000_000
PATIENCE_US = 30 * SECOND_US
LEADER_WITHIN_US = 10 * SECOND_US
REPLY_WITHIN_US = 10 * SECOND_US
LOOKS_EVERY_US = 5 * MILLISECOND_US
"""How often a condition is looked at that is waited for."""

RAFT = Options(heartbeat_us=100_000, election_timeout_us_min=400_000, election_timeout_us_max=800_000)
NO_LOAD = Load(
    clients=0, think_us=1, patience_us=1, files=1, weights=(1, 1, 1, 1, 1, 1, 1), expires=0.0, pipelined=0.0, big=0.0
)

LetsPass: TypeAlias = Callable[[int, int, codec.PeerMessage], bool]
"""``lets_pass(sender, receiver, message)``"""


def reliable(dice: Random) -> LinkWeather:
    """Every message arrives, once, in order."""
    return LinkWeather(delay_us_max=dice.choice((500, 1_000, 5_000)))


def unreliable(_dice: Random) -> LinkWeather:
    """A tenth of the messages is lost, some come twice, and all of them in any order within 26 ms."""
    return LinkWeather(delay_us_max=26_000, loss=0.1, repeats=0.03, in_order=False)


def far_apart(_dice: Random) -> LinkWeather:
    """Messages take so long that much can happen between two of them."""
    return LinkWeather(delay_us_max=20_000)


def reordering(_dice: Random) -> LinkWeather:
    """As unreliable, and many messages are overtaken by what was sent up to two seconds later."""
    return LinkWeather(
        delay_us_max=26_000, loss=0.1, repeats=0.03, in_order=False, long_delays=0.3, long_delay_us_max=2_200_000
    )


Weather: TypeAlias = Callable[[Random], LinkWeather]


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """What a scenario's cluster is like."""

    servers: int = 3
    weather: Weather = reliable
    snapshot_log_bytes: int = 64 << 20
    raft: Options = RAFT
    request_timeout_us: int = 15 * SECOND_US
    load: Load = NO_LOAD
    """Clients that ask by themselves from the start on."""
    starts: bool = True
    """Whether the servers run when the script begins."""


@attrs.define(slots=True)
class Traffic:
    """What servers have sent to each other since `Cluster.count` was called."""

    messages: Counter[type] = attrs.field(factory=Counter)
    """By kind."""
    bytes_to: Counter[int] = attrs.field(factory=Counter)
    """By receiver."""
    sent: list[tuple[int, int, codec.PeerMessage]] = attrs.field(factory=list)
    """Sender, receiver, message."""


class ScriptedWorld(World):
    """A world whose messages can be counted, and let through one by one."""

    lets_pass: LetsPass | None = None
    traffic: Traffic | None = None

    def sends(self, sender: int, receiver: int, message: bytes, leaves_us: int) -> None:
        """See World."""
        if self.lets_pass is not None or self.traffic is not None:
            decoded = codec.decode(message).message
            if self.traffic is not None:
                self.traffic.messages[type(decoded)] += 1
                self.traffic.bytes_to[receiver] += len(message)
                self.traffic.sent.append((sender, receiver, decoded))
            if self.lets_pass is not None and not self.lets_pass(sender, receiver, decoded):
                return
        super().sends(sender, receiver, message, leaves_us)


class _Hands(Nemesis):
    """Does nothing by itself: a server that has crashed stays down until the script starts it, or all is healed."""

    def restart(self, server: SimulatedServer) -> None:
        if self._stopped:
            super().restart(server)


class Cluster:
    """See the module's docstring. Servers are named by their ids, 1 to n."""

    def __init__(self, seed: int, settings: Settings, watcher: Watcher | None = None) -> None:
        """Nothing runs yet."""
        self.seed = seed
        self.dice = dice = Random(f"scenario {seed}")
        options = RunOptions(
            servers=settings.servers,
            raft=settings.raft,
            snapshot_log_bytes=settings.snapshot_log_bytes,
            request_timeout_us=settings.request_timeout_us,
            weather=settings.weather(dice),
            faults=(),
            pause_between_faults_us=1,
            notices_crashes=dice.choice((0.0, 0.5, 1.0)),
            survivals=dice.choice(((Survival.NOTHING,), (Survival.RANDOM,), tuple(Survival))),
        )
        self.world = ScriptedWorld(seed, options, settings.load, watcher)
        self.world.nemesis = _Hands(self.world)
        self.loop = self.world.loop
        self.network = self.world.network
        self.ids = list(self.world.servers)
        self.majority = len(self.ids) // 2 + 1
        self._away: set[int] = set()
        self._askers: list[Asker] = []
        self._starts = settings.starts
        self._finished = False

    def begin(self) -> None:
        """Start servers and clients, unless the settings leave it to the script."""
        if self._starts:
            self.world.start()

    # Time

    def run_for(self, duration_us: int) -> None:
        """Let time pass."""
        self.loop.run_until(self.loop.now_us + duration_us)

    def wait(self, until: Callable[[], bool], within_us: int, what: str) -> None:
        """Let time pass until something holds, which is looked at every few milliseconds.

        Raises:
            AssertionError: it doesn't come about in that time.
        """
        limit_us = self.loop.now_us + within_us
        while not until():
            assert self.loop.now_us < limit_us, f"not within {within_us / SECOND_US:g} s: {what}"
            self.run_for(LOOKS_EVERY_US)

    # Links

    def disconnect(self, *servers: int) -> None:
        """Cut each of them off from everybody."""
        self._away.update(servers)
        self._cut_away()

    def connect(self, *servers: int) -> None:
        """Connect them again with all that aren't cut off."""
        self._away.difference_update(servers)
        self._cut_away()

    def _cut_away(self) -> None:
        self.cut_exactly(
            (one, other) for one in self.ids for other in self.ids if one != other and self._away & {one, other}
        )

    def split(self, *groups: Collection[int]) -> None:
        """Servers hear those of their own group only; one that is in none hears nobody."""
        together = {(one, other) for group in groups for one in group for other in group}
        self.cut_exactly((one, other) for one in self.ids for other in self.ids if (one, other) not in together)

    def cut_exactly(self, links: Iterable[Link]) -> None:
        """Cut these directed links, and mend all others."""
        self.world.cut_links(frozenset(links))

    def mend(self) -> None:
        """All links are well."""
        self._away.clear()
        self.cut_exactly(())

    def set_weather(self, weather: Weather) -> None:
        """How messages fare from now on."""
        self.network.weather = weather(self.dice)

    def only_candidate(self, server: int | None) -> None:
        """From now on nobody else's requests for votes arrive."""
        self.world.lets_pass = None if server is None else only_candidate(server)

    def send(self, sender: int, receiver: int, message: codec.PeerMessage) -> None:
        """Have a message sent that a server could send now."""
        clock_us = self.server(sender).node.clock.now_us()
        self.world.sends(sender, receiver, codec.encode(message, clock_us, 0), self.loop.now_us)

    def count(self) -> Traffic:
        """Begin to count what is sent."""
        self.world.traffic = Traffic()
        return self.world.traffic

    # Servers

    def server(self, server: int) -> SimulatedServer:
        """One of them, running or not."""
        return self.world.servers[server]

    @property
    def up(self) -> list[int]:
        """Those that run."""
        return [server for server in self.ids if self.server(server).up]

    @property
    def present(self) -> list[int]:
        """Those that run and aren't cut off by `disconnect`."""
        return [server for server in self.up if server not in self._away]

    def crash(self, *servers: int, power_cut: bool | None = None) -> None:
        """End some at once, by a power cut or by kill -9, as the dice say if it isn't said."""
        for server in servers:
            cut = self.dice.random() < 0.5 if power_cut is None else power_cut
            self.server(server).crash("crash of the script", power_cut=cut)

    def restart(self, *servers: int) -> None:
        """Start some again with what their disks have."""
        for server in servers:
            self.server(server).start()

    def pause(self, server: int, duration_us: int) -> None:
        """Stop one as SIGSTOP does; what comes meanwhile waits for it."""
        self.server(server).pause(duration_us)

    def raft(self, server: int) -> Raft:
        """What a running server believes."""
        assert self.server(server).up, f"server {server} is down"
        return self.server(server).node.raft

    def store(self, server: int) -> Store:
        """What a running server has applied."""
        assert self.server(server).up, f"server {server} is down"
        return self.server(server).store

    def applied_index(self, server: int) -> int:
        """How far a running server has applied the log."""
        return self.server(server).node.replica.applied_index

    def log_terms(self, server: int) -> list[int | None]:
        """The terms of a server's log from index 1 on; None where it is compacted."""
        log = self.raft(server).log
        return [log.term_at(index) for index in range(1, log.last_index + 1)]

    def others(self, *servers: int) -> list[int]:
        """All but these."""
        return [server for server in self.ids if server not in servers]

    # Leaders

    def leader(self, among: Collection[int] | None = None) -> int | None:
        """Who leads a majority that follows it, and has committed an entry of its term; None if nobody does."""
        for server in self.up if among is None else among:
            if self.server(server).is_leader and self._is_followed(server):
                return server
        return None

    def _is_followed(self, leader: int) -> bool:
        raft = self.raft(leader)
        followers = sum(
            other.up
            and other.node.raft.leader_id == leader
            and other.node.raft.current_term == raft.current_term
            and not self.network.cut & {(other.server_id, leader), (leader, other.server_id)}
            for other in self.world.servers.values()
        )
        return followers >= self.majority and raft.committed_in_term

    def wait_for_leader(self, among: Collection[int] | None = None, within_us: int = LEADER_WITHIN_US) -> int:
        """Let time pass until one leads, of those named or of those that are there."""
        wanted = self.present if among is None else among
        self.wait(lambda: self.leader(wanted) is not None, within_us, f"a leader among {sorted(wanted)}")
        leader = self.leader(wanted)
        assert leader is not None, "waited for"
        return leader

    def nobody_leads_for(self, duration_us: int) -> None:
        """Let time pass, in which no leader may have a majority behind it."""
        until_us = self.loop.now_us + duration_us
        while self.loop.now_us < until_us:
            self.run_for(50 * MILLISECOND_US)
            assert self.leader() is None, f"server {self.leader()} leads without a majority"

    def wait_until_equal(self, among: Collection[int] | None = None, within_us: int = 5 * SECOND_US) -> None:
        """Let time pass until these have the same log, all of it applied."""
        wanted = self.up if among is None else among
        self.wait(lambda: self._are_equal(wanted), within_us, f"servers {sorted(wanted)} equal")

    def _are_equal(self, servers: Collection[int]) -> bool:
        ends = {(self.raft(each).log.last_index, self.raft(each).log.last_term) for each in servers}
        return len(ends) == 1 and all(self.applied_index(each) == self.raft(each).log.last_index for each in servers)

    # Requests

    def ask(
        self,
        server: int,
        *wants: Want,
        patience_us: int = PATIENCE_US,
        pieces: int = 1,
        done: Callable[[Ask], None] = nothing,
    ) -> Ask:
        """Ask something at a server, by a client that has nothing else under way; doesn't wait."""
        asker = next((each for each in self._askers if each.server.server_id == server and each.is_free), None)
        if asker is None:
            asker = Asker(self.world, 1_000 + len(self._askers), self.server(server))
            self._askers.append(asker)
        return asker.ask(wants, patience_us, pieces, done)

    def finish_asks(self, *asks: Ask, within_us: int = REPLY_WITHIN_US) -> None:
        """Let time pass until these are answered, or lost."""
        limit_us = self.loop.now_us + within_us
        done = self.loop.run_while(lambda: not all(ask.is_done for ask in asks), limit_us)
        assert done, f"{sum(not ask.is_done for ask in asks)} not answered within {within_us / SECOND_US:g} s"

    def get(self, server: int, *wants: Want, within_us: int = REPLY_WITHIN_US, pieces: int = 1) -> list[Reply]:
        """Ask something and wait for the replies."""
        ask = self.ask(server, *wants, pieces=pieces)
        self.finish_asks(ask, within_us=within_us)
        assert not ask.lost, f"server {server} has gone"
        return ask.replies

    def change(self, server: int, want: Want | None = None, within_us: int = REPLY_WITHIN_US) -> int:
        """Have something changed; gives the version."""
        (reply,) = self.get(server, write(b"file") if want is None else want, within_us=within_us)
        assert reply.word == "OK", f"{want}: {reply.line!r}"
        return reply.version

    def propose(self, server: int, count: int, name: bytes = b"proposed") -> None:
        """Have a server submit writes by itself, each an entry of its own; those of clients would share entries."""
        running = self.server(server)
        node = running.node

        def submit() -> None:
            for _ in range(count):
                content = b"proposed %d;" % self.dice.getrandbits(62)
                known_index = self.world.oracle.known_index
                self.world.asks(Request(0, WRITE, name, 0, 0, content, self.loop.now_us, known_index), running)
                node.submit(encode_batch((WRITE, name, 0, 0, content)), _ignore, wake=False)
            node.act()

        running.soon(submit)

    # The end

    def finish(self) -> None:
        """Heal everything; all must be served, and all servers equal; see `World.heal_and_check`. Once is enough."""
        if self._finished:
            return
        self._finished = True
        self.world.lets_pass = None
        self.world.traffic = None
        self._away.clear()
        self.loop.after(MILLISECOND_US, self._write_until_acknowledged)
        self.world.clients += self._askers
        self.world.heal_and_check()

    def _write_until_acknowledged(self) -> None:
        def done(ask: Ask) -> None:
            if not ask.ok:
                self.loop.after(50 * MILLISECOND_US, self._write_until_acknowledged)

        closing = Asker(self.world, 999, self.server(self.dice.choice(self.ids)))
        content = b"the end %d" % self.loop.now_us
        closing.ask([write(b"the-end", content)], 3 * SECOND_US, done=done)


def only_candidate(server: int) -> LetsPass:
    """Lets pass requests for votes of that server only, and all else."""

    def lets_pass(sender: int, _receiver: int, message: codec.PeerMessage) -> bool:
        return sender == server or not isinstance(message, RequestVote)

    return lets_pass


def contents_of(replies: Sequence[Reply]) -> list[bytes]:
    """What reads have shown."""
    return [reply.content for reply in replies]


def _ignore(_results: Results) -> None:
    """Do nothing."""
