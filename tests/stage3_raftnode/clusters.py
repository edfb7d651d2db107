"""Whole clusters of nodes in one process: on Trio's clock, with a network in memory and simulated disks.

Everything that a real server has is there but processes and sockets; "a moment" in these tests is Trio's. Tests
wait for conditions, never for time, unless time is what they are about.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import attrs
import trio
from trio._core import _run

from raftnode.filesystem import FileSystem
from raftnode.hello import PROTOCOL_VERSION, Hello
from raftnode.links import Address
from raftnode.memory_network import MemoryNetwork
from raftnode.node import Node
from raftnode.node_values import NodeOptions, Observer
from raftnode.simulated_disk import SimulatedCrash, SimulatedDisk
from raftnode.storage import Storage, StorageIdentity
from raftnode.submissions import Lane, Submission
from raftnode.transport import Transport
from raftnode.trio_runtime import TrioRuntime, monotonic_us, run_node
from statemachine.configuration import Configuration
from statemachine.roles import Options
from tests.stage3_raftnode.machines import ListMachine

LOOK_AGAIN_SECONDS = 0.01
PATIENCE_SECONDS = 120.0
"""Of Trio's time: what hasn't come about by then never will."""
DIRECTORY = Path("/data")
LATENCY_US = (100, 300)
"""How long a message takes where a test has no other wish."""

T = TypeVar("T")


async def run_inline(function: Callable[..., T], *arguments: object) -> T:
    """In place of a worker thread, which a mock clock wouldn't wait for."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@attrs.define(slots=True, eq=False, repr=False)
class Pending:
    """A submitted batch, as its submitter sees it."""

    payload: bytes
    server: Server
    boot: int
    """In which run of the server it was submitted."""
    begun: int
    """When it was submitted, in events of the whole cluster."""
    ended: int | None = None
    """When its result came."""
    results: int | None = None
    submission: Submission = attrs.field(init=False)

    @property
    def is_lost(self) -> bool:
        """The server's run is over: nobody waits for the result any more."""
        return not self.server.running or self.server.boots != self.boot


@attrs.frozen(slots=True)
class Read:
    """A finished read: what the list was."""

    server_id: int
    begun: int
    ended: int
    items: tuple[bytes, ...]


@attrs.define(slots=True, eq=False, repr=False)
class Server:
    """One server: a disk that lasts, and node, machine and transport of the present run, if it runs."""

    server_id: int
    cluster: Cluster
    disk: SimulatedDisk
    run_blocking: Callable[..., Awaitable[Any]] = run_inline
    now_us: Callable[[], int] = monotonic_us
    filesystem: FileSystem = attrs.field(init=False)
    boots: int = 0
    running: bool = False
    storage: Storage = attrs.field(init=False)
    node: Node = attrs.field(init=False)
    machine: ListMachine = attrs.field(init=False)
    transport: Transport = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(init=False)
    stopped: trio.Event = attrs.field(init=False)
    ended_by: BaseException | None = None
    """What ended the last run, if it wasn't the test."""
    said: list[tuple[str, dict[str, object]]] = attrs.Factory(list)
    """What the node told its observer to log, in all runs."""
    leaders: list[tuple[int | None, int]] = attrs.Factory(list)
    """Leader and term, whenever that changed, in all runs."""

    def __attrs_post_init__(self) -> None:
        self.filesystem = self.disk

    @property
    def host(self) -> str:
        """Its name in the network."""
        return str(self.server_id)

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return DIRECTORY / self.host

    @property
    def is_leader(self) -> bool:
        return self.running and self.node.raft.is_leader

    @property
    def items(self) -> list[bytes]:
        """The list, as far as this server has applied it."""
        return self.machine.items

    def has_said(self, event: str) -> bool:
        return any(said == event for said, _ in self.said)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs a new node on what the disk has, until it is cancelled or breaks."""
        cluster = self.cluster
        self.boots += 1
        generator = Random(f"{cluster.seed} {self.server_id} {self.boots}")
        identity = StorageIdentity("demo", self.server_id)
        self.storage, recovered = Storage.open(self.directory, identity, self.filesystem)
        self.machine = ListMachine()
        options = NodeOptions(
            server_id=self.server_id,
            configuration=Configuration(frozenset(cluster.servers)),
            raft=cluster.raft,
            snapshot_log_bytes=cluster.snapshot_log_bytes,
            in_place_bytes_max=cluster.in_place_bytes_max,
        )
        observer = Observer(applied=cluster.something_happened, leader_changed=self._leader_changed, log=self._say)
        runtime = TrioRuntime(self.run_blocking)
        runtime.now_us = self.now_us
        self.node = Node(options, self.storage, recovered, self.machine, generator, observer, runtime)
        self.transport = Transport(
            identity=Hello(PROTOCOL_VERSION, "demo", self.server_id),
            listen=cluster.addresses[self.server_id],
            peers={other: at for other, at in cluster.addresses.items() if other != self.server_id},
            deliver=self.node.put_into_inbox,
            delivered=self.node.act,
            on_connect=self.node.peer_connected,
            on_disconnect=self.node.peer_disconnected,
            network=cluster.network.host(self.host),
            random=generator,
        )
        self.stopped = trio.Event()
        self.ended_by = None
        try:
            with trio.CancelScope() as self.scope:
                self.running = True
                await run_node(self.node, self.transport, task_status=task_status)
        except* (SimulatedCrash, Exception) as error:
            if self.scope.cancel_called and error.split(SimulatedCrash)[1] is not None:
                raise
            self.ended_by = error
        finally:
            self.running = False
            self.stopped.set()
            cluster.something_happened()

    def _leader_changed(self) -> None:
        self.leaders.append((self.node.raft.leader_id, self.node.raft.current_term))
        self.cluster.something_happened()

    def _say(self, event: str, **details: object) -> None:
        self.said.append((event, details))
        self.cluster.something_happened()

    async def cancel(self) -> None:
        """Ends the node's tasks, without closing the storage."""
        self.scope.cancel()
        await self.stopped.wait()

    async def kill(self) -> None:
        """As SIGKILL does: what was written stays, flushed or not."""
        await self.cancel()
        self.disk.process_killed()

    async def cut_power(self) -> None:
        """What wasn't flushed is lost, or half lost."""
        await self.cancel()
        self.disk.power_cut(self.cluster.dice)

    async def stop(self, hand_over_seconds: float = 1.0) -> None:
        """A clean stop."""
        await self.node.hand_over(hand_over_seconds)
        await self.cancel()
        self.storage.close()

    async def start(self, *, after_failure: bool = False) -> None:
        """Starts it, for the first time or again; whether the last run broke is to be expected."""
        if self.ended_by is not None and not after_failure:
            raise self.ended_by
        await self.cluster.nursery.start(self.run)

    def submit(self, payload: bytes, lane: Lane = Lane.SMALL) -> Pending:
        """Submits a batch."""
        cluster = self.cluster
        pending = Pending(payload, self, self.boots, cluster.next_event())

        def done(results: int) -> None:
            assert pending.ended is None, "told twice"
            pending.results = results
            pending.ended = cluster.next_event()
            cluster.something_happened()

        pending.submission = self.node.submit(payload, done, lane)
        cluster.history.append(pending)
        return pending

    async def append(self, *payloads: bytes) -> list[int]:
        """Submits batches, all at once, and waits for their results."""
        pending = [self.submit(payload) for payload in payloads]
        await self.cluster.until(lambda: all(each.ended is not None for each in pending))
        return [each.results for each in pending if each.results is not None]

    def begin_read(self) -> list[Read]:
        """Reads the list; the answer will be in what is returned."""
        answer: list[Read] = []
        begun = self.cluster.next_event()

        def passed() -> None:
            read = Read(self.server_id, begun, self.cluster.next_event(), tuple(self.items))
            answer.append(read)
            self.cluster.reads.append(read)
            self.cluster.something_happened()

        self.node.read_barrier(passed)
        return answer

    async def read(self) -> tuple[bytes, ...]:
        """Reads the list, and waits for the answer."""
        answer = self.begin_read()
        await self.cluster.until(lambda: bool(answer))
        return answer[0].items


@attrs.define(slots=True, eq=False, repr=False)
class Cluster:
    """Some servers and what happens to them."""

    nursery: trio.Nursery
    size: int = 5
    seed: int = 0
    snapshot_log_bytes: int = 64 << 20
    in_place_bytes_max: int = 1 << 20
    raft: Options = attrs.Factory(Options)
    network: MemoryNetwork = attrs.field(init=False)
    dice: Random = attrs.field(init=False)
    addresses: dict[int, Address] = attrs.field(init=False)
    servers: dict[int, Server] = attrs.field(init=False)
    history: list[Pending] = attrs.Factory(list)
    reads: list[Read] = attrs.Factory(list)
    _happened: trio.lowlevel.ParkingLot = attrs.Factory(trio.lowlevel.ParkingLot)
    _events: int = 0
    _born_us: int = attrs.Factory(monotonic_us)

    def __attrs_post_init__(self) -> None:
        self.network = MemoryNetwork(Random(self.seed))
        self.network.set_delay(*LATENCY_US)
        self.dice = Random(f"dice {self.seed}")
        self.addresses = {server_id: Address(str(server_id), 9000) for server_id in range(1, self.size + 1)}
        self.servers = {
            server_id: Server(server_id, self, SimulatedDisk(1000 * self.seed + server_id))
            for server_id in self.addresses
        }

    # What happens

    def next_event(self) -> int:
        """A number for what happens now: everything of a cluster happens in one thread, so there is an order."""
        self._events += 1
        return self._events

    def something_happened(self) -> None:
        self._happened.unpark_all()

    async def until(self, condition: Callable[[], T | None]) -> T:
        """Until the condition gives something true: that."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not (met := condition()):
                # Most of what changes is told; the rest (a flag in a message) shows within a moment of the mock clock.
                with trio.move_on_after(LOOK_AGAIN_SECONDS):
                    await self._happened.park()
        return met

    # The servers

    @property
    def running(self) -> list[Server]:
        return [server for server in self.servers.values() if server.running]

    @property
    def leader(self) -> Server | None:
        """The running leader of the latest term, if it knows that it is."""
        leaders = [server for server in self.running if server.is_leader]
        return max(leaders, key=lambda server: server.node.raft.current_term, default=None)

    async def start(self, server_ids: Iterable[int] | None = None) -> None:
        """Starts these servers, or all."""
        for server_id in server_ids if server_ids is not None else self.servers:
            await self.servers[server_id].start()

    async def wait_leader(self, among: Iterable[Server] | None = None) -> Server:
        """Until one of these servers, or of all that run, leads, and all of them follow it; gives that one."""
        servers = list(among) if among is not None else self.running

        def agreed() -> Server | None:
            followed = {(server.node.raft.leader_id, server.node.raft.current_term) for server in servers}
            (leader_id, _), *others = followed
            leader = self.servers[leader_id] if leader_id is not None and not others else None
            return leader if leader is not None and leader.is_leader and leader in servers else None

        return await self.until(agreed)

    def others(self, *but: Server) -> list[Server]:
        """All that run but these."""
        return [server for server in self.running if server not in but]

    def partition(self, *groups: Iterable[Server]) -> None:
        """Lets servers hear only those in their own group."""
        self.network.partition(*({server.host for server in group} for group in groups))

    def cut_off(self, server: Server) -> None:
        """Lets a server hear nobody, and nobody hear it."""
        self.partition([server], [other for other in self.servers.values() if other is not server])

    def break_links(self, *servers: Server) -> None:
        """Breaks the connections of these servers, or all there are; what was under way on them is lost."""
        for server in servers or self.servers.values():
            for other in self.servers.values():
                if other is not server:
                    self.network.reset(server.host, other.host)

    def heal(self, *, broken: bool = False) -> None:
        """Ends all partitions; connections may have broken meanwhile, or what was held on them arrives late."""
        self.network.heal_all()
        if broken:
            self.break_links()

    async def all_answered(self, *at: Server) -> None:
        """Until all that was submitted at these servers, or at any, in their present runs, has its results."""
        servers = at or tuple(self.servers.values())
        await self.until(
            lambda: all(
                pending.ended is not None or pending.is_lost for pending in self.history if pending.server in servers
            )
        )

    # What must hold

    async def settle(self, *also: bytes) -> None:
        """Until all that run have applied the same, with these items in it; then checks all that must hold."""
        await self.until(lambda: self._is_even(also))
        self.check()

    def _is_even(self, wanted: Iterable[bytes]) -> bool:
        running = self.running
        leader = self.leader
        if leader is None:
            return False
        index = leader.node.raft.log.last_index
        even = all(server.node.replica.applied_index == index for server in running)
        return even and set(wanted) <= set(leader.items)

    def check(self) -> None:
        """The lists agree as far as they go; acknowledged batches are there once, others at most once; reads are fresh.

        Acknowledged batches and finished reads must have an order that goes with time (linearizability). In a list
        that only grows that is easy to see: nothing that was there when something ended may be missing in what
        began later.
        """
        assert not any(server.ended_by for server in self.running)
        age_us = monotonic_us() - self._born_us
        assert all(server.node.clock.now_us() <= age_us for server in self.running), "a cluster clock is early"
        longest = max((server.items for server in self.running), key=len)
        for server in self.running:
            assert server.items == longest[: len(server.items)]
        by_index: dict[int, Server] = {}
        for server in self.running:
            same = by_index.setdefault(server.node.replica.applied_index, server)
            assert same.machine.state == server.machine.state
            assert same.node.replica.clock_us == server.node.replica.clock_us
            assert same.node.replica.sessions == server.node.replica.sessions
        self._check_submissions(longest)
        self._check_reads(longest)

    def _check_submissions(self, items: list[bytes]) -> None:
        assert len(set(items)) == len(items), "something was applied twice"
        assert set(items) <= {_item(pending.payload) for pending in self.history}
        for pending in self.history:
            if pending.ended is not None and not pending.payload.startswith(b"in "):
                assert pending.results is not None
                assert items[pending.results - 1] == pending.payload

    def _check_reads(self, items: list[bytes]) -> None:
        lengths = [(read.begun, read.ended, len(read.items)) for read in self.reads]
        for read in self.reads:
            assert list(read.items) == items[: len(read.items)]
        appends = [
            (pending.begun, pending.ended, pending.results)
            for pending in self.history
            if pending.ended is not None and pending.results is not None and not pending.payload.startswith(b"in ")
        ]
        ended = sorted((end, length) for _, end, length in lengths + appends)
        begun = sorted(
            (begin, length, is_read) for ops, is_read in ((lengths, True), (appends, False)) for begin, _, length in ops
        )
        floor = 0
        position = 0
        for begin, length, is_read in begun:
            while position < len(ended) and ended[position][0] < begin:
                floor = max(floor, ended[position][1])
                position += 1
            assert length >= floor if is_read else length > floor, "something that had ended is missing"


@asynccontextmanager
async def open_cluster(size: int = 5, *, start: bool = True, **options: Any) -> AsyncIterator[Cluster]:
    """A cluster, by default with all servers started and a leader that all follow; its tasks end with the block."""
    # Trio shuffles tasks that could run; by the same dice in every run of the test.
    _run._r.seed(options.get("seed", 0))
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery, size, **options)
        if start:
            await cluster.start()
            await cluster.wait_leader()
        yield cluster
        nursery.cancel_scope.cancel()


def _item(payload: bytes) -> bytes:
    return payload.split(b" ", 2)[2] if payload.startswith(b"in ") else payload


def numbered(count: int, name: bytes = b"item", first: int = 1) -> list[bytes]:
    """Payloads that tell themselves apart."""
    return [b"%b-%d" % (name, number) for number in range(first, first + count)]
