"""A whole cluster in one process, with virtual time: the production Raft, everything else simulated from one seed.

Events stand in a heap by their time; the network delays, loses, repeats and reorders messages as :class:`Weather`
says, links can be cut in either direction, and servers crash and lose what wasn't saved. After every step of every
server the invariants of Raft are checked (:class:`~statemachine.invariants.InvariantChecker`), and beside them what
the application sees: all servers apply the same entries in the same order, and a confirmed read is never older than
what was committed anywhere when it began.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable

import attrs

from statemachine.configuration import Configuration
from statemachine.events import (
    Event,
    LimitMemory,
    PeerConnected,
    PeerDisconnected,
    ReadBarrier,
    Receive,
    Submit,
    Timeout,
    TransferLeadership,
)
from statemachine.invariants import InvariantChecker
from statemachine.messages import Message, ServerId
from statemachine.ready import Outgoing, Ready
from statemachine.roles import Options
from tests.stage2_statemachine.simulated import Disk, Server

MS = 1_000
"""Microseconds."""


@attrs.frozen(kw_only=True)
class Weather:
    """How bad the network and the disks are; times in microseconds."""

    delay_us: tuple[int, int] = (1 * MS, 1 * MS)
    save_us: tuple[int, int] = (0, 0)
    turn_us: tuple[int, int] = (0, 0)
    """How long what arrives may wait for more, so that it is taken in one batch."""
    loss: float = 0.0
    repeats: float = 0.0
    in_order: bool = True
    """Whether messages of one link arrive in the order in which they were sent, as over a connection."""
    damaged_snapshots: float = 0.0
    crashes_noticed: float = 0.0
    """How often a server learns of another's crash by the end of their connection."""
    crashes_before_save: float = 0.0
    """How often a server crashes when it has sent what may go at once and is about to save something."""


Watcher = Callable[[str, ServerId, object], None]


def _ignore(_kind: str, _server: ServerId, _what: object) -> None:
    """Nobody watches."""


class Cluster:
    """See the module's docstring. Servers are numbered from 1; ``generator_of`` gives each boot of one its dice."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        options: Options | None = None,
        weather: Weather | None = None,
        seed: int = 0,
        disks: dict[ServerId, Disk] | None = None,
        generator_of: Callable[[ServerId, int], random.Random] | None = None,
        watch: Watcher = _ignore,
    ) -> None:
        """Start all servers at time 0."""
        self.configuration = configuration
        self.options = options or Options()
        self.weather = weather or Weather()
        self.generator = random.Random(seed)
        self.now_us = 0
        self.checker = InvariantChecker()
        self.watch = watch
        self.cut: set[tuple[ServerId, ServerId]] = set()
        self.disks = disks or {server: Disk() for server in sorted(configuration.members)}
        self.servers: dict[ServerId, Server] = {}
        self.boots = dict.fromkeys(self.disks, 0)
        self.history: list[bytes] = []
        """The entries that any server applied, which all others must apply as well."""
        self.highest_commit = 0
        self._generator_of = generator_of or (lambda server, boot: random.Random(f"{seed} {server} {boot}"))
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._arrivals: dict[tuple[ServerId, ServerId], int] = {}
        self._inboxes: dict[ServerId, list[Event]] = {server: [] for server in self.disks}
        for server in self.disks:
            self.start(server)

    # What a test does to a cluster

    def run(self, duration_us: int) -> None:
        """Let time pass."""
        until_us = self.now_us + duration_us
        while self._heap and self._heap[0][0] <= until_us:
            self.now_us, _, action = heapq.heappop(self._heap)
            action()
        self.now_us = until_us

    def run_until(self, holds: Callable[[], bool], limit_us: int = 10_000 * MS) -> None:
        """Let time pass until something holds.

        Raises:
            AssertionError: it doesn't within the limit.
        """
        limit_us += self.now_us
        while not holds():
            in_time = bool(self._heap) and self._heap[0][0] <= limit_us
            assert in_time, f"not within the limit: {self.describe()}"
            self.now_us, _, action = heapq.heappop(self._heap)
            action()

    def start(self, server_id: ServerId) -> None:
        """Start a server from its disk; the others notice by their connections."""
        self.boots[server_id] += 1
        generator = self._generator_of(server_id, self.boots[server_id])
        server = Server(server_id, self.configuration, self.options, generator, self.disks[server_id], self.now_us)
        self.servers[server_id] = server
        self._inboxes[server_id] = []
        self.checker.started(server.raft)
        self._check_applied(server)
        self._schedule_turn(server)
        for other in self.servers:
            if other != server_id:
                self.take(other, PeerConnected(server_id))

    def start_if_down(self, server_id: ServerId) -> None:
        """Start a server unless that was done already."""
        if server_id not in self.servers:
            self.start(server_id)

    def crash(self, server_id: ServerId) -> None:
        """Kill a server: of what it was saving, the disk has a prefix."""
        server = self.servers.pop(server_id)
        finished = self.generator.randint(0, len(server.saving)) if server.saving else 0
        for ready in server.saving[:finished]:
            server.disk.save(ready)
        for ready in server.saving[finished : finished + 1]:
            server.disk.save_prefix(ready, self.generator)
        for other in self.servers:
            if self.weather.crashes_noticed > 0 and self.generator.random() < self.weather.crashes_noticed:
                self.take(other, PeerDisconnected(server_id))

    def cut_link(self, sender: ServerId, to: ServerId) -> None:
        """From now on nothing passes in this direction."""
        self.cut.add((sender, to))

    def separate(self, groups: Iterable[Iterable[ServerId]]) -> None:
        """Let only servers that are in some group together hear each other."""
        together = {(a, b) for group in map(list, groups) for a in group for b in group}
        everyone = {(a, b) for a in self.disks for b in self.disks if a != b}
        self.heal()
        self.cut = everyone - together

    def heal(self) -> None:
        """Let everything pass again; connections are made anew."""
        mended, self.cut = self.cut, set()
        for sender, to in sorted(mended):
            if sender in self.servers:
                self.take(sender, PeerConnected(to))

    def take(self, server_id: ServerId, event: Event) -> None:
        """Give a server an event, in a batch with what else comes at the time; a server that is down loses it."""
        if server_id in self.servers:
            self._inboxes[server_id].append(event)
            self._schedule_turn(self.servers[server_id])

    def submit(self, server_id: ServerId, *entries: bytes, waiting: frozenset[ServerId] = frozenset()) -> None:
        """Submit entries to a server."""
        self.take(server_id, Submit(entries, waiting))

    def read(self, server_id: ServerId) -> None:
        """Begin a read at a server."""
        if server_id in self.servers:
            server = self.servers[server_id]
            server.barriers[server.next_barrier] = self.highest_commit
            self.take(server_id, ReadBarrier(server.next_barrier))
            server.next_barrier += 1

    def take_snapshot(self, server_id: ServerId, kept: int = 0) -> None:
        """Have a server snapshot its state and compact its log."""
        if server_id in self.servers and self.servers[server_id].loading is None:
            event = self.servers[server_id].take_snapshot(kept)
            if event is not None:
                self.take(server_id, event)

    def limit_memory(self, server_id: ServerId, bytes_max: int) -> None:
        """Have a server drop entries from memory that it has applied."""
        if server_id in self.servers:
            self.take(server_id, LimitMemory(bytes_max, self.servers[server_id].applied_index))

    def transfer(self, server_id: ServerId, target: ServerId | None = None) -> None:
        """Have a server hand over, if it leads."""
        self.take(server_id, TransferLeadership(target))

    @property
    def leader(self) -> Server | None:
        """The server that leads the latest term."""
        leaders = [server for server in self.servers.values() if server.raft.is_leader]
        return max(leaders, key=lambda server: server.raft.current_term, default=None)

    @property
    def settled(self) -> bool:
        """Whether a server leads, and all have applied the same log to its end."""
        leader = self.leader
        if leader is None:
            return False
        last_index = leader.raft.log.last_index
        return all(
            server.applied_index == last_index and server.raft.leader_id == leader.server_id
            for server in self.servers.values()
        )

    def describe(self) -> str:
        """All servers, for the message of a failed test."""
        lines = [f"at {self.now_us} us, cut {sorted(self.cut)}"]
        for server in self.servers.values():
            raft = server.raft
            lines.append(
                f"{server.server_id}: {raft.role.value} of {raft.leader_id} term {raft.current_term}"
                f" vote {raft.voted_for} log {raft.log.base_index}-{raft.log.last_index} {raft.log.runs()[-4:]}"
                f" commit {raft.commit_index}"
                f" applied {server.applied_index} persisted {raft.persisted_index} progress {raft.progress}"
            )
        return "\n".join(lines)

    # How a server's events are taken and its ready values carried out

    def _at(self, time_us: int, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (time_us, self._sequence, action))

    def _draw(self, between: tuple[int, int]) -> int:
        return between[0] if between[0] == between[1] else self.generator.randint(*between)

    def _is_up(self, server: Server) -> bool:
        return self.servers.get(server.server_id) is server

    def _schedule_turn(self, server: Server) -> None:
        if not server.turn_scheduled:
            server.turn_scheduled = True
            self._at(self.now_us + self._draw(self.weather.turn_us), lambda: self._turn(server))

    def _turn(self, server: Server) -> None:
        """Step through all that has come, then drain once."""
        server.turn_scheduled = False
        if not self._is_up(server):
            return
        inbox, self._inboxes[server.server_id] = self._inboxes[server.server_id], []
        for event in inbox:
            self._step(server, event)
        if self.now_us >= server.raft.deadline_us:
            self._step(server, Timeout())
            assert server.raft.deadline_us > self.now_us, "a deadline that doesn't move makes a busy loop"
        self._drain(server)
        if self._is_up(server) and server.raft.deadline_us != server.timer_us:
            server.timer_us = server.raft.deadline_us
            self._at(server.timer_us, lambda: self._timer(server))

    def _timer(self, server: Server) -> None:
        if self._is_up(server) and self.now_us >= server.raft.deadline_us:
            self._turn(server)

    def _step(self, server: Server, event: Event) -> None:
        self.watch("step", server.server_id, event)
        server.raft.step(event, self.now_us)
        self.checker.stepped(server.raft)
        self.highest_commit = max(self.highest_commit, server.raft.commit_index)
        self.watch("stepped", server.server_id, server.raft)

    def _drain(self, server: Server) -> None:
        has_output = server.raft.has_output
        ready = server.raft.ready()
        assert has_output or ready == Ready(commit_index=server.raft.commit_index), "a ready value that nobody asks for"
        self.checker.stepped(server.raft)
        self.watch("ready", server.server_id, ready)
        self._send_all(server, ready.messages)
        if ready.must_save and self.generator.random() < self.weather.crashes_before_save:
            self.crash(server.server_id)
            self._at(self.now_us + self._draw((1 * MS, 100 * MS)), lambda: self.start_if_down(server.server_id))
            return
        for wanted in ready.chunks_to_send:
            chunk = server.chunk(wanted.header, wanted.length)
            if chunk is None:
                self.take(server.server_id, PeerConnected(wanted.to))
            else:
                self._send(server.server_id, wanted.to, chunk)
        for asked in ready.entries_to_read:
            self.take(server.server_id, server.read_entries(asked, self.generator))
        if ready.must_save or ready.chunks_received or ready.messages_after_save:
            server.saving.append(ready)
            self._save(server)
        server.apply()
        self._check_applied(server)
        for confirmed in ready.barriers:
            committed = server.barriers.pop(confirmed.barrier)
            assert confirmed.read_index >= committed, "a read that doesn't see what was committed before it began"
            server.barriers_passed += 1
        for barrier in ready.barriers_failed:
            del server.barriers[barrier]

    def _save(self, server: Server) -> None:
        """Save what is to be saved, all of it together, unless the disk is at work."""
        if server.disk_busy or server.disk_held or not server.saving:
            return
        group = list(server.saving)
        server.disk_busy = True
        time_us = self._draw(self.weather.save_us) if any(r.must_save or r.chunks_received for r in group) else 0
        if time_us == 0:
            self._saved(server, group)
        else:
            self._at(self.now_us + time_us, lambda: self._saved(server, group))

    def _saved(self, server: Server, group: list[Ready]) -> None:
        if not self._is_up(server):
            return
        server.disk_busy = False
        del server.saving[: len(group)]
        for ready in group:
            server.disk.save(ready)
            self._send_all(server, ready.messages_after_save)
            for received in ready.chunks_received:
                if received.chunk.done:
                    server.loading = received.chunk
                    self._at(self.now_us + 5 * self._draw(self.weather.save_us), lambda: self._loaded(server))
            if ready.must_save:
                self.take(server.server_id, server.persisted(ready))
        self._save(server)

    def _loaded(self, server: Server) -> None:
        if self._is_up(server):
            damaged = self.generator.random() < self.weather.damaged_snapshots
            self.take(server.server_id, server.finish_loading(damaged=damaged))

    def hold_disk(self, server_id: ServerId) -> None:
        """From now on saves wait."""
        self.servers[server_id].disk_held = True

    def release_disk(self, server_id: ServerId, count: int | None = None) -> None:
        """Carry out the oldest saves that wait, or all of them and all that follow."""
        server = self.servers[server_id]
        if count is None:
            server.disk_held = False
            self._save(server)
        else:
            self._saved(server, server.saving[:count])

    # The network

    def _send_all(self, server: Server, messages: list[Outgoing]) -> None:
        for outgoing in messages:
            self._send(server.server_id, outgoing.to, outgoing.message)

    def _send(self, sender: ServerId, to: ServerId, message: Message) -> None:
        self.checker.sent(sender, to, message)
        weather = self.weather
        lost = (sender, to) in self.cut or to not in self.servers
        lost = lost or (weather.loss > 0 and self.generator.random() < weather.loss)
        self.watch("lost" if lost else "send", sender, (to, message))
        if lost:
            return
        self._deliver_later(sender, to, message)
        if weather.repeats > 0 and self.generator.random() < weather.repeats:
            self._deliver_later(sender, to, message)

    def _deliver_later(self, sender: ServerId, to: ServerId, message: Message) -> None:
        time_us = self.now_us + self._draw(self.weather.delay_us)
        if self.weather.in_order:
            time_us = self._arrivals[sender, to] = max(time_us, self._arrivals.get((sender, to), 0))
        self._at(time_us, lambda: self._deliver(sender, to, message))

    def _deliver(self, sender: ServerId, to: ServerId, message: Message) -> None:
        if (sender, to) not in self.cut:
            self.take(to, Receive(sender, message))

    def _check_applied(self, server: Server) -> None:
        """All servers apply the same: what each has is compared once, as it grows."""
        known = len(self.history)
        if server.applied_index > known:
            self.history.extend(server.applied[known:])
        checked = min(server.checked, server.applied_index)
        assert server.applied[checked:] == self.history[checked : server.applied_index], "another entry was applied"
        server.checked = server.applied_index
