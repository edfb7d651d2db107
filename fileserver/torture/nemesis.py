"""Carries a plan out: each fault at its time, with proof that it was there, and healed again.

Theory of operation: every fault is a task that does its thing, looks for evidence that it really happened, lets its
time pass and heals it. Faults of one group can't have one server at the same time (a paused server can't be
restarted); who comes later waits, in order. Groups know nothing of each other, so a server that is cut off is killed,
with its clock wrong and its disk slow.

Invariant: when `Nemesis.run` returns, everything is healed and every server was started again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager

import attrs
import trio

from fileserver.torture.disks import SmallDisks
from fileserver.torture.networks import BreakableNetwork
from fileserver.torture.plan import Fault, FaultKind, Plan
from fileserver.torture.servers import NotRunning, Servers

EVIDENCE_SECONDS = 30.0
"""A fault for which there is no evidence by then didn't happen. It is long, as others may be in its way."""
BACK_SECONDS = 60.0
"""A server that was started has to answer by then."""


class DidNotHappen(Exception):
    """A fault that was planned wasn't there, or its healing failed. The text says how that shows."""


@attrs.frozen(slots=True)
class Happening:
    """What became of one fault of the plan."""

    fault: Fault
    began_us: int
    """Since the beginning of the run."""
    ended_us: int
    evidence: str
    """How it showed; for one that didn't happen, what was missing."""
    is_real: bool

    def __str__(self) -> str:
        """One line for people."""
        times = f"{self.began_us / 1e6:.1f} to {self.ended_us / 1e6:.1f} s"
        return f"{self.fault}; {times}: {'' if self.is_real else 'DID NOT HAPPEN: '}{self.evidence}"


class Occupancy:
    """Who has which servers; a group of faults shares one. First come, first served."""

    def __init__(self, servers: Collection[int]) -> None:
        self._free = set(servers)
        self._queue: deque[trio.Event] = deque()

    async def take(self, wanted: Callable[[], Awaitable[tuple[int, ...]]], count: int) -> tuple[int, ...]:
        """Wait for so many free servers, the first ones in the order that ``wanted`` gives then; they are ours."""
        turn = trio.Event()
        self._queue.append(turn)
        try:
            while True:
                if self._queue[0] is turn and len(self._free) >= count:
                    order = await wanted()
                    # Whoever is before us in the queue has gone, and nobody passes us: the free ones only get more.
                    taken = tuple(server for server in order if server in self._free)[:count]
                    self._free.difference_update(taken)
                    return taken
                await turn.wait()
                turn = self._renewed(turn)
        finally:
            self._queue.remove(turn)
            self._wake()

    def _renewed(self, turn: trio.Event) -> trio.Event:
        renewed = trio.Event()
        self._queue[self._queue.index(turn)] = renewed
        return renewed

    def _wake(self) -> None:
        if self._queue:
            self._queue[0].set()

    def give_back(self, servers: Collection[int]) -> None:
        """They are free again."""
        self._free.update(servers)
        self._wake()


@attrs.define(slots=True, eq=False)
class World:
    """All that faults work on."""

    servers: Servers
    network: BreakableNetwork
    disks: SmallDisks | None
    started_at: float
    """In Trio's time."""
    under_way: dict[int, Fault] = attrs.Factory(dict)
    """The faults that are there now, by their numbers."""
    happenings: list[Happening] = attrs.Factory(list)

    def now_us(self) -> int:
        """Since the beginning of the run."""
        return round((trio.current_time() - self.started_at) * 1e6)

    async def until_back(self, server: int) -> None:
        """Wait until a server that was started answers.

        Raises:
            DidNotHappen: it doesn't.
        """
        with trio.move_on_after(BACK_SECONDS):
            while await self.servers.status(server) is None:
                if not self.servers.is_running(server):
                    raise DidNotHappen(f"server {server} ended instead of coming back")
                await trio.sleep(0.1)
            return
        raise DidNotHappen(f"server {server} doesn't answer {BACK_SECONDS:.0f} s after its start")


Act = Callable[[World, Fault, tuple[int, ...]], Awaitable[str]]
"""Does a fault to those servers, heals it and gives the evidence. Raises DidNotHappen."""

_LIFE = "life"
_GROUPS = {
    FaultKind.KILL: _LIFE,
    FaultKind.PAUSE: _LIFE,
    FaultKind.RESTART: _LIFE,
    FaultKind.CORRUPTION: _LIFE,
    FaultKind.DISK_FULL: _LIFE,
    FaultKind.CLOCK: "clock",
    FaultKind.SLOW_FLUSH: "flush",
}
"""Faults of one group exclude each other on one server; those without a group exclude nothing."""


class Nemesis:
    """Carries out one plan."""

    def __init__(self, world: World, plan: Plan, acts: dict[FaultKind, Act]) -> None:
        self._world = world
        self._plan = plan
        self._acts = acts
        self._occupancies = {group: Occupancy(plan.servers) for group in set(_GROUPS.values())}

    async def run(self) -> None:
        """Begin every fault at its time, and return when all are healed."""
        async with trio.open_nursery() as nursery:
            for fault in self._plan.faults:
                await trio.sleep_until(self._world.started_at + fault.at_us / 1e6)
                nursery.start_soon(self._carry_out, fault)

    async def _carry_out(self, fault: Fault) -> None:
        world = self._world
        is_real = False
        began_us = world.now_us()
        try:
            servers = await self._servers_for(fault)
            began_us = world.now_us()
            with self._noted(fault), self._occupied(fault, servers):
                evidence = await self._acts[fault.kind](world, fault, servers)
            is_real = True
        except (DidNotHappen, NotRunning) as why:
            evidence = str(why)
        world.happenings.append(Happening(fault, began_us, world.now_us(), evidence, is_real))

    async def _servers_for(self, fault: Fault) -> tuple[int, ...]:
        """The servers that a fault is done to, in its order; they are ours if its kind is exclusive."""

        async def order() -> tuple[int, ...]:
            return fault.targets(await self._world.servers.leader() if fault.leader_first else None)

        group = _GROUPS.get(fault.kind)
        if group is None:
            return await order()
        return await self._occupancies[group].take(order, fault.count)

    @contextmanager
    def _noted(self, fault: Fault) -> Iterator[None]:
        self._world.under_way[fault.number] = fault
        try:
            yield
        finally:
            del self._world.under_way[fault.number]

    @contextmanager
    def _occupied(self, fault: Fault, servers: tuple[int, ...]) -> Iterator[None]:
        try:
            yield
        finally:
            group = _GROUPS.get(fault.kind)
            if group is not None:
                self._occupancies[group].give_back(servers)
