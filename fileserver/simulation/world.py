"""A simulated cluster, its clients, and everything that judges it: one run from one seed.

A run has two phases. In the first, faults strike; nothing may be wrong at any moment, though little may get done. Then
everything heals, and within ten simulated seconds clients are served again; when they stop, all servers come to the
same state, which has every acknowledged change in it.

Everything that happens is added to a rolling hash (:attr:`World.digest`): two runs that differ anywhere differ there.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import attrs

from fileserver.config import Address, ClusterConfig, ServerConfig
from fileserver.simulation.clients import Load, SimulatedClient
from fileserver.simulation.clocks import TRUE_RATE_PPM
from fileserver.simulation.ledger import Ledger
from fileserver.simulation.loop import Loop
from fileserver.simulation.nemesis import Nemesis
from fileserver.simulation.network import SimulatedNetwork
from fileserver.simulation.options import RunOptions
from fileserver.simulation.oracle import Oracle, Request, Violation
from fileserver.simulation.server import SimulatedServer, WatchedNode
from fileserver.simulation.settings import draw_from
from fileserver.simulation.watcher import Watcher
from fileserver.torture.shapes import Links
from statemachine.invariants import InvariantChecker

REPLY_LATENCY_US = 200
THINK_US_AFTERWARDS = 1_000_000
SERVED_AGAIN_US = 10_000_000
"""How long after all is healed clients may wait to be served."""
SETTLED_US = 60_000_000
"""How long the servers then may take to be equal, the time of all expiries included."""


@attrs.frozen(slots=True)
class Record:
    """A client's request with its reply, as a history is made of; times in true microseconds."""

    request: Request
    returned_us: int | None = None
    """None when no reply came."""
    line: bytes = b""
    content: bytes = b""


class World:
    """See the module's docstring."""

    def __init__(
        self,
        seed: int,
        options: RunOptions | None = None,
        load: Load | None = None,
        watcher: Watcher | None = None,
        node_class: type[WatchedNode] = WatchedNode,
    ) -> None:
        """Everything that isn't given is drawn from the seed."""
        dice = Random(f"world {seed}")
        self.seed = seed
        # Drawn in any case, so that giving what would be drawn changes nothing.
        drawn = draw_from(dice)
        self.options = options or drawn.options
        self.load = load or drawn.load
        self.think_us = self.load.think_us
        self.loop = Loop()
        self.digest = 0
        self.node_class = node_class
        self.checker = InvariantChecker()
        self.ledger = Ledger()
        self.unknown = 0
        """Requests of unknown outcome."""
        self.history: list[Record] = []
        self.events: Counter[str] = Counter()
        self.elections = 0
        """Won ones."""
        self._watcher = watcher or Watcher()
        self._dice = dice
        self._clock_bound_us = 0
        self._clock_bound_at_us = 0
        self.oracle = Oracle(self._fastest_clock_us)
        self.config = _config(self.options)
        weather = attrs.evolve(self.options.weather)
        self.network = SimulatedNetwork(self.loop, Random(f"network {seed}"), weather, self._deliver, self._watcher)
        self.servers: dict[int, SimulatedServer] = {}
        for server_id in range(1, self.options.servers + 1):
            self.servers[server_id] = SimulatedServer(self, server_id)
        self.clients = [SimulatedClient(self, number) for number in range(1, self.load.clients + 1)]
        self.nemesis = Nemesis(self)

    # A run

    def run(self, duration_us: int) -> None:
        """Both phases; ``duration_us`` is how long the first one lasts.

        Raises:
            Violation, InvariantViolation: a promise was broken.
        """
        self.start()
        self.nemesis.begin()
        self.loop.run_until(duration_us)
        self.heal_and_check()

    def drop(self) -> None:
        """The run is over: its tasks end where they stand."""
        for server in self.servers.values():
            server.drop()

    def start(self) -> None:
        """Start servers and clients."""
        for server in self.servers.values():
            server.start()
        for client in self.clients:
            client.think()

    def heal_and_check(self) -> None:
        """The second phase."""
        self.tell("phase", "healed", "")
        self.nemesis.heal()
        self.think_us = min(self.think_us, THINK_US_AFTERWARDS)
        served = self.oracle.served
        healed_us = self.loop.now_us
        if not self.loop.run_while(lambda: self.oracle.served == served, healed_us + SERVED_AGAIN_US):
            raise Violation(f"nobody was served within {SERVED_AGAIN_US / 1e6:g} s after all was healed")
        for client in self.clients:
            client.stopped = True
        if not self.loop.run_while(lambda: not self._is_settled(), self.loop.now_us + SETTLED_US):
            raise Violation(f"the servers were not equal within {SETTLED_US / 1e6:g} s: {self._describe()}")
        for server in self.servers.values():
            if server.up:
                self.oracle.check_store(server.server_id, server.node.replica.applied_index, server.store)

    def _is_settled(self) -> bool:
        """Whether nobody asks any more, and all servers that can run have applied all there is."""
        running = [server for server in self.servers.values() if server.retired is None]
        leader = next((server for server in running if server.is_leader), None)
        if leader is None or any(not client.is_idle for client in self.clients):
            return False
        last_index = leader.node.raft.log.last_index
        return (
            all(
                server.up and server.node.replica.applied_index == last_index and not len(server.node.submissions)
                for server in running
            )
            and leader.store.next_deadline_us() is None
        )

    def _describe(self) -> str:
        return "; ".join(
            f"server {server.server_id}: "
            + (
                f"{server.node.raft.role.value} of term {server.node.raft.current_term}, applied "
                f"{server.node.replica.applied_index}, commit {server.node.raft.commit_index}, "
                f"last {server.node.raft.log.last_index}, {len(server.node.submissions)} submissions"
                if server.up
                else f"down ({server.retired})"
            )
            for server in self.servers.values()
        )

    # The network and the weather

    def sends(self, sender: int, receiver: int, message: bytes, leaves_us: int) -> None:
        """A server sends a message to another."""
        self.note("sends", sender, message)
        self.network.send(sender, receiver, message, leaves_us)

    def _deliver(self, sender: int, receiver: int, message: bytes) -> bool:
        server = self.servers[receiver]
        if server.up:
            server.receive(sender, message)
        return server.up

    def cut_links(self, links: Links) -> None:
        """These links, and no others, carry nothing from now on."""
        self.network.cut_exactly(links)
        self._watcher.cut(self.loop.now_us, links)

    def replies(self, client: Callable[[bytes], None], data: bytes, waits_us: int) -> None:
        """A server sends a reply to a client, once it has done what it waits for."""
        self.loop.after(REPLY_LATENCY_US + waits_us, partial(client, data))

    def calm_weather(self) -> None:
        """Messages arrive, quickly."""
        self.network.calm()

    # Clocks: how far the fastest can have come

    def _fastest_clock_us(self) -> int:
        self._bring_clock_bound_here()
        return self._clock_bound_us

    def _bring_clock_bound_here(self) -> None:
        # A server may be within a turn that takes some time, and its clock as far ahead of the loop's.
        ahead_us = max(server.clock.charged_us for server in self.servers.values()) if self.servers else 0
        now_us = self.loop.now_us + ahead_us
        rate_ppm = max((server.clock.rate_ppm for server in self.servers.values()), default=TRUE_RATE_PPM)
        elapsed_us = max(now_us - self._clock_bound_at_us, 0)
        self._clock_bound_us += -(-elapsed_us * rate_ppm // TRUE_RATE_PPM) + (elapsed_us > 0)
        self._clock_bound_at_us = max(now_us, self._clock_bound_at_us)

    def set_clock_rate(self, server: SimulatedServer, rate_ppm: int) -> None:
        """Have a server's clock go faster or slower."""
        self._bring_clock_bound_here()
        server.clock.set_rate(rate_ppm)

    def jump_clock(self, server: SimulatedServer, ahead_us: int) -> None:
        """Have a server's clock skip some time."""
        self._bring_clock_bound_here()
        self._clock_bound_us += ahead_us
        server.clock.jump(ahead_us)

    # Rot

    def may_rot(self, server: SimulatedServer) -> bool:
        """Whether the cluster can do without that server for good."""
        doomed = sum(
            other.retired is not None or other.has_rot for other in self.servers.values() if other is not server
        )
        return server.up and server.retired is None and doomed < (len(self.servers) - 1) // 2

    def place_to_rot(self, server: SimulatedServer, dice: Random) -> tuple[Path, int] | None:
        """A byte of an old record, or of a snapshot."""
        found = server.old_bytes()
        if not found:
            return None
        path, size = dice.choice(found)
        server.has_rot = True
        return path, dice.randrange(size)

    # What servers tell

    def started(self, server: SimulatedServer) -> None:
        """A server has started."""
        self.tell("start", f"server {server.server_id}", f"run {server.boots}")
        self._watcher.started(self.loop.now_us, server.server_id)
        self.checker.started(server.node.raft)
        self.ledger.started(server.node.raft, may_forget=server.has_rot)
        for other in self.servers.values():
            if other is not server and other.up:
                other.soon(partial(other.node.peer_connected, server.server_id))

    def crashed(self, server: SimulatedServer, why: str) -> None:
        """A server has ended, by whatever."""
        self.tell("end", f"server {server.server_id}", why)
        self._watcher.ended(self.loop.now_us, server.server_id, why)
        for other in self.servers.values():
            if other is not server and other.up and self._dice.random() < self.options.notices_crashes:
                other.soon(partial(other.node.peer_disconnected, server.server_id))
        self.nemesis.restart(server)

    def could_not_start(self, server: SimulatedServer, why: str) -> None:
        """A server found its disk full, or failing."""
        self.tell("no start", f"server {server.server_id}", why)
        self.nemesis.restart(server)

    def found_damage(self, server: SimulatedServer, why: str) -> None:
        """A server found its disk damaged, and doesn't start, or go on."""
        self.tell("refusal", f"server {server.server_id}", why)
        if not server.has_rot:
            raise Violation(f"server {server.server_id} takes a crash for damage: {why}")

    def paused(self, server: SimulatedServer) -> None:
        """A server stands still until it is ready."""
        self._watcher.paused(self.loop.now_us, server.server_id, server.ready_us)

    def follows_another(self, server: SimulatedServer) -> None:
        """A server has another leader, or another term."""
        raft = server.node.raft
        self.elections += raft.is_leader
        self._watcher.follows(self.loop.now_us, server.server_id, raft.role, raft.current_term, raft.leader_id)
        self.tell(
            "leader", f"server {server.server_id}", f"{raft.role.value} of term {raft.current_term}: {raft.leader_id}"
        )

    def said(self, server: SimulatedServer, event: str, details: dict[str, object]) -> None:
        """A server has something for its log."""
        self.tell("log", f"server {server.server_id}", f"{event} {details}" if details else event)

    # Notes

    def tell(self, kind: str, who: str, what: str) -> None:
        """Something has happened that people may want to read of."""
        self.events[kind] += 1
        self.note(kind, 0, f"{who} {what}".encode())
        self._watcher.told(self.loop.now_us, kind, who, what)

    def note(self, kind: str, number: int, data: bytes) -> None:
        """Add something to the rolling hash."""
        self.digest = zlib.crc32(data, zlib.crc32(b"%d %d" % (self.loop.now_us, number), self.digest))

    def asks(self, request: Request, server: SimulatedServer) -> None:
        """A client sends a request."""
        self.oracle.asks(request)
        self._watcher.asked(self.loop.now_us, server.server_id, request)

    def record(self, request: Request, line: bytes, content: bytes) -> None:
        """A client has its reply."""
        self.history.append(Record(request, self.loop.now_us, line, content))
        self._watcher.answered(self.loop.now_us, request, line)

    def never_answered(self, request: Request) -> None:
        """A client waits for a reply no more."""
        self.unknown += 1
        self.history.append(Record(request))
        self._watcher.unanswered(self.loop.now_us, request)


def _config(options: RunOptions) -> ClusterConfig:
    servers = tuple(
        ServerConfig(number, *(Address("127.0.0.1", port + number) for port in (8000, 8100, 9000)))
        for number in range(1, options.servers + 1)
    )
    return ClusterConfig(cluster="simulated", servers=servers, request_timeout_us=options.request_timeout_us)
