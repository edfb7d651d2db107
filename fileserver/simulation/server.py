"""One simulated server: a disk and a clock that last, and in each of its runs everything that a real server has.

Whatever a server does, it does in :meth:`SimulatedServer.soon`, ``at`` or in answer to a message, and never while it is
paused, or while a flush that it waits for in place takes its time: then what comes is kept and done afterwards, as
the kernel keeps what arrives for a process that doesn't run. What was begun in an earlier run is never gone on with.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from fileserver.commands import Payload, Result
from fileserver.connection import Connection, Gathering
from fileserver.machine import StoreMachine
from fileserver.reading import StoreReader
from fileserver.replicated import ReplicatedBackend
from fileserver.simulation.clocks import SkewedClock
from fileserver.simulation.disks import TimedDisk
from fileserver.simulation.loop import Action
from fileserver.simulation.tasks import SimulatedRuntime
from fileserver.store import Store
from raftnode.node import Node
from raftnode.node_values import NodeOptions, Observer
from raftnode.simulated_disk import SimulatedCrash
from raftnode.storage import (
    Corrupt,
    DiskFailed,
    DiskFull,
    LogCorrupt,
    SnapshotCorrupt,
    Storage,
    StorageError,
    StorageIdentity,
)
from statemachine.configuration import Configuration
from statemachine.ready import Outgoing

if TYPE_CHECKING:
    from fileserver.simulation.world import World

DIRECTORY = Path("/data")


class WatchedNode(Node):
    """A node whose every turn and message is looked at before anything comes of it."""

    world: World

    def turn(self) -> None:
        """See Node."""
        super().turn()
        self._look()

    def _apply_committed(self) -> bool:
        # What is applied may be dropped from memory at once, and can't be looked at any more.
        self._look()
        return super()._apply_committed()

    def _look(self) -> None:
        self.world.checker.stepped(self.raft)
        self.world.ledger.stepped(self.raft)

    def _send(self, messages: list[Outgoing]) -> None:
        for outgoing in messages:
            self.world.checker.sent(self.raft.server_id, outgoing.to, outgoing.message)
            self.world.ledger.sent(self.raft.server_id, outgoing.to, outgoing.message)
        super()._send(messages)


class WatchedMachine:
    """A store as a machine (:class:`fileserver.machine.StoreMachine`) whose every entry the oracle is told of."""

    def __init__(self, server: SimulatedServer, store: Store) -> None:
        """``server`` is whose store it is."""
        self._machine = StoreMachine(store)
        self._server = server
        self._oracle = server.world.oracle
        self.next_deadline_us = self._machine.next_deadline_us
        self.pack_results = self._machine.pack_results
        self.unpack_results = self._machine.unpack_results
        self.snapshot = self._machine.snapshot
        self.begin_restore = self._machine.begin_restore

    def apply(self, clock_us: int, session: int, payload: Payload) -> list[Result]:
        """See Machine."""
        results = self._machine.apply(clock_us, session, payload)
        server = self._server
        index = server.node.replica.applied_index + 1
        self._oracle.applied(index, clock_us, session, bytes(payload), results)
        self._oracle.state_is(server.server_id, index, self._machine.store)
        return results

    def advance(self, clock_us: int) -> None:
        """See Machine."""
        self._machine.advance(clock_us)
        server = self._server
        index = server.node.replica.applied_index + 1
        self._oracle.time_came(index, clock_us)
        self._oracle.state_is(server.server_id, index, self._machine.store)

    def end_session(self, session: int) -> None:
        """See Machine."""
        self._machine.end_session(session)
        self._oracle.session_ended(self._server.node.replica.applied_index + 1, session)


class SimulatedServer:
    """See the module's docstring. Fulfils :class:`fileserver.simulation.tasks.Host`."""

    storage: Storage
    node: WatchedNode
    store: Store
    backend: ReplicatedBackend
    runtime: SimulatedRuntime

    def __init__(self, world: World, server_id: int) -> None:
        """Not running yet, with an empty disk."""
        self.world = world
        self.server_id = server_id
        self.disk = TimedDisk(world.seed * 100 + server_id)
        self.dice = Random(f"server {world.seed} {server_id}")
        self.clock = SkewedClock(world.loop, start_us=self.dice.randrange(1_000_000_000))
        self.boots = 0
        self.up = False
        self.retired: str | None = None
        """Why it will never start again."""
        self.has_rot = False
        """Whether its disk was damaged, so that it may refuse to start."""
        self.ready_us = 0
        """Until when it is paused, or waits for its disk."""
        self._disk_done_us = 0
        """Until when it waits for its disk."""
        self._backlog: list[Action] = []
        self._touched: list[Connection] = []
        self._clients: dict[Connection, Callable[[bytes], None]] = {}
        self._arrivals: list[tuple[Connection, bytes]] = []
        """What has come from clients since the last pass."""
        self._act_is_due = False
        self._gathering: Gathering

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return DIRECTORY / str(self.server_id)

    @property
    def is_leader(self) -> bool:
        """Whether it runs and believes that it leads."""
        return self.up and self.node.raft.is_leader

    # Doing things in time

    def soon(self, action: Action) -> None:
        """See Host."""
        self.at(0, action)

    def at(self, true_us: int, action: Action) -> None:
        """See Host."""
        boots = self.boots
        self.world.loop.at(true_us, lambda: self._perform(boots, action))

    def blocking_call(self, function: Callable[[], object], done: Callable[[object], None]) -> None:
        """See Host: the call is made before or after its time has passed, as it comes."""
        early = self.dice.random() < 0.5
        wait_us = 0 if early else self.dice.randrange(1, 2 * self.disk.flush_us_max)

        def call() -> None:
            self.disk.spent_us = 0
            try:
                result = function()
            except (StorageError, OSError, ValueError) as error:
                result = error
            spent_us, self.disk.spent_us = self.disk.spent_us, 0
            self.at(self.world.loop.now_us + (spent_us if early else 0), lambda: done(result))

        self.at(self.world.loop.now_us + wait_us, call)

    def _perform(self, boots: int, action: Action) -> None:
        if boots != self.boots or not self.up:
            return
        if self._backlog or self.world.loop.now_us < self.ready_us:
            if not self._backlog:
                self._catch_up_later()
            self._backlog.append(action)
            return
        self._do(action)

    def _catch_up_later(self) -> None:
        boots = self.boots
        self.world.loop.at(self.ready_us, lambda: self._catch_up(boots))

    def _catch_up(self, boots: int) -> None:
        """Do what was kept."""
        backlog = self._backlog
        done = 0
        while boots == self.boots and self.up and done < len(backlog):
            if self.world.loop.now_us < self.ready_us:
                del backlog[:done]
                self._catch_up_later()
                return
            self._do(backlog[done])
            done += 1
        if boots == self.boots:
            backlog.clear()

    def _do(self, action: Action) -> None:
        """Do something, and end as a process does when it can't go on."""
        try:
            action()
        except SimulatedCrash:
            self.crash("in the middle of a call", power_cut=True)
        except DiskFailed as error:
            self.crash(f"disk failed: {error}", power_cut=False)
        except LogCorrupt as error:
            self.world.found_damage(self, str(error))
            self.crash(f"log damaged: {error}", power_cut=False)
        else:
            # What the disk took in place, the server waits for before it does anything else.
            spent_us = self.disk.spent_us
            if spent_us:
                self.disk.spent_us = 0
                self._disk_done_us = self.world.loop.now_us + spent_us
                self.ready_us = max(self.ready_us, self._disk_done_us)

    def pause(self, duration_us: int) -> None:
        """Stop it as SIGSTOP does."""
        self.ready_us = max(self.ready_us, self.world.loop.now_us + duration_us)
        self.world.paused(self)

    def resume(self) -> None:
        """Go on, paused or not; the disk takes as long as it takes."""
        ready_us = max(self._disk_done_us, self.world.loop.now_us)
        if self.ready_us > ready_us:
            self.ready_us = ready_us
            self.world.paused(self)
            self._catch_up_later()

    # Its life

    def start(self) -> None:
        """Start from what the disk has; not if that is damaged, or the disk full."""
        assert not self.up, "it runs already"
        self.boots += 1
        self.ready_us = self._disk_done_us = self.world.loop.now_us
        self._backlog.clear()
        self._arrivals.clear()
        self._act_is_due = False
        try:
            self._recover()
        except SimulatedCrash:
            self._let_go(power_cut=True)
        except (DiskFull, DiskFailed) as error:
            self._let_go(power_cut=False)
            self.world.could_not_start(self, str(error))
        except Corrupt as error:
            self._let_go(power_cut=False)
            self.retired = str(error)
            self.world.found_damage(self, str(error))
        else:
            self.disk.spent_us = 0
            self.up = True
            for task in (*self.node.tasks(), self.backend.watch):
                self.runtime.start(task)
            self.world.started(self)

    def _recover(self) -> None:
        world = self.world
        self.runtime = SimulatedRuntime(self)
        identity = StorageIdentity(world.config.cluster, self.server_id)
        distrusted: list[Path] = []
        while True:
            self.storage, recovered = Storage.open(
                self.directory, identity, self.disk, distrusted, world.options.segment_bytes
            )
            self.store = Store()
            machine = WatchedMachine(self, self.store)
            try:
                self.node = world.node_class(
                    NodeOptions(
                        server_id=self.server_id,
                        configuration=Configuration(frozenset(world.servers)),
                        raft=world.options.raft,
                        snapshot_log_bytes=world.options.snapshot_log_bytes,
                        in_place_bytes_max=world.options.in_place_bytes_max,
                        round_patience_us_max=world.options.round_patience_us_max,
                    ),
                    self.storage,
                    recovered,
                    machine,
                    Random(f"node {world.seed} {self.server_id} {self.boots}"),
                    Observer(),
                    self.runtime,
                )
                break
            except SnapshotCorrupt as error:
                self.storage.close()
                if error.path in distrusted:
                    raise
                distrusted.append(error.path)
        self.node.world = world
        self.node.attach(self)
        self.backend = ReplicatedBackend(world.config, self.server_id, self.node, self.store, self.runtime)
        self.backend.start_soon = self.runtime.start
        self.backend.flush_replies = self._flush
        self.backend.gathered_bytes_enough = world.options.gathered_bytes_enough
        self.node.observer = Observer(
            due_us=self.backend.due_us,
            has_gathered=self.backend.has_gathered,
            proposes=self.backend.submit_gathered,
            applied=self.backend.after_apply,
            leader_changed=lambda: world.follows_another(self),
            log=lambda event, **details: world.said(self, event, details),
        )
        reader = StoreReader(self.backend, self._flush, lambda: self.soon(self._make_lists))
        self._touched.clear()
        self._clients.clear()
        self._gathering = Gathering(self.backend, reader, self._flush)
        self._reader = reader

    def crash(self, why: str, *, power_cut: bool) -> None:
        """End at once: as kill -9 does, or as a power cut does, which also takes what wasn't flushed."""
        if self.up:
            self._let_go(power_cut=power_cut)
            self.world.crashed(self, why)

    def _let_go(self, *, power_cut: bool) -> None:
        self.up = False
        self.boots += 1
        self.disk.crash()
        self.runtime.drop()
        self.disk.spent_us = 0
        if power_cut:
            self.disk.power_cut(self.dice, self.dice.choice(self.world.options.survivals))
        else:
            self.disk.process_killed()
        for lost in [*self._clients.values()]:
            lost(b"")
        self._clients.clear()

    def drop(self) -> None:
        """The run is over; nobody is told."""
        if self.up:
            self.up = False
            self.disk.crash()
            self.runtime.drop()

    def stop(self) -> None:
        """A clean stop, after the leadership was handed over, or was not in time."""
        self._do(self.storage.close)
        self.crash("clean stop", power_cut=False)

    def old_bytes(self) -> list[tuple[Path, int]]:
        """Files that rot may strike, with how much of each is older than the last saves."""
        found: list[tuple[Path, int]] = []
        last_segment = None
        for name in sorted(self.disk.names(self.directory)):
            path = self.directory / name
            if name.endswith(".snap"):
                found.append((path, len(self.disk.content(path))))
            elif name.endswith(".seg"):
                if last_segment is not None:
                    found.append((last_segment, len(self.disk.content(last_segment))))
                last_segment = path
        return found

    # For the node: the transport

    def send(self, to: int, message: bytes, *, urgent: bool = False) -> bool:
        """See Sender."""
        self.world.sends(self.server_id, to, message, self.world.loop.now_us + self.disk.spent_us)
        return True

    def receive(self, sender: int, message: bytes) -> None:
        """A message has come; all that have come by the time that the server looks are one turn."""
        self._perform(self.boots, lambda: self._take(sender, message))

    def _take(self, sender: int, message: bytes) -> None:
        self.node.put_into_inbox(sender, [message])
        if not self._act_is_due:
            self._act_is_due = True
            self.soon(self._act)

    def _act(self) -> None:
        self._act_is_due = False
        self.node.act()

    # For clients

    def connect(self, client: Callable[[bytes], None]) -> Connection:
        """A client connects; it is called with every reply, and with nothing when the connection is lost."""
        connection = Connection(self._touched, self.world.config.max_file_bytes)
        self._clients[connection] = client
        return connection

    def disconnect(self, connection: Connection) -> None:
        """The client has gone."""
        connection.lose()
        self._clients.pop(connection, None)

    def receive_from_client(self, connection: Connection, data: bytes) -> None:
        """Bytes have come from a client; all that have come by the next pass over the connections are taken in it."""
        self._arrivals.append((connection, data))
        if len(self._arrivals) == 1:
            pass_us = self.world.options.pass_us
            if pass_us:
                self.at(self.world.loop.now_us + pass_us, self._pass)
            else:
                self._pass()

    def _pass(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        gathering = self._gathering
        gathering.start()
        for connection, data in arrivals:
            if not connection.lost and not connection.receive_whole(data, gathering):
                connection.receive(data)
                if connection.gather(gathering):
                    self.soon(partial(self._resume, connection))
        gathering.submit()
        self._flush()

    def _resume(self, connection: Connection) -> None:
        if connection.lost:
            return
        self._gathering.start()
        if connection.gather(self._gathering):
            self.soon(lambda: self._resume(connection))
        self._gathering.submit()
        self._flush()

    def _flush(self) -> None:
        touched = self._touched[:]
        self._touched.clear()
        for connection in touched:
            self._reply(connection)

    def _reply(self, connection: Connection) -> None:
        client = self._clients.get(connection)
        if connection.lost or client is None:
            return
        data = b"".join(connection.output)
        connection.sent(len(data))
        self.world.replies(client, data, self.disk.spent_us)
        if connection.blocked:
            self.soon(lambda: self._resume(connection))

    def _make_lists(self) -> None:
        if self._reader.lists.turn():
            self.soon(self._make_lists)
        self._flush()
