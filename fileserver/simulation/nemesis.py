"""What goes wrong in a run, and when: drawn from the seed, one fault after the other, each healed after a while.

Faults may overlap. Whatever is done here can happen to real servers that keep the promises that Raft asks of disks:
what was flushed stays, but for rot, which strikes a minority's old records and snapshots only (see :meth:`_rot`).
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from fileserver.simulation.options import FaultKind
from fileserver.torture.shapes import Links, Shape, stages
from raftnode.simulated_disk import Call

if TYPE_CHECKING:
    from fileserver.simulation.server import SimulatedServer
    from fileserver.simulation.world import World

SECOND_US = 1_000_000
LONGEST_OUTAGE_US = 8 * SECOND_US
LONGEST_PAUSE_US = 60 * SECOND_US
LONGEST_JUMP_US = 300 * SECOND_US
CLOCK_DRIFT_PPM = 100_000
SLOWEST_FLUSH_US = 5 * SECOND_US
ROOM_LEFT_BYTES = 2_000


class Nemesis:
    """See the module's docstring."""

    def __init__(self, world: World) -> None:
        """Nothing is wrong yet."""
        self._world = world
        self._dice = Random(f"nemesis {world.seed}")
        self._stopped = False
        self.struck: Counter[str] = Counter()
        """Faults that there were, by kind."""
        self._strike_by: dict[FaultKind, Callable[[], str | None]] = {
            FaultKind.KILL: self._kill,
            FaultKind.POWER_CUT: self._power_cut,
            FaultKind.CRASH_IN_CALL: self._crash_in_call,
            FaultKind.KILL_ALL: self._kill_all,
            FaultKind.ROLLING_RESTART: self._rolling_restart,
            FaultKind.PARTITION: self._partition,
            FaultKind.ONE_WAY: self._one_way,
            FaultKind.PAUSE: self._pause,
            FaultKind.CLOCK_RATE: self._clock_rate,
            FaultKind.CLOCK_JUMP: self._clock_jump,
            FaultKind.FULL_DISK: self._full_disk,
            FaultKind.DISK_ERROR: self._disk_error,
            FaultKind.SLOW_DISK: self._slow_disk,
            FaultKind.ROT: self._rot,
            FaultKind.HAND_OVER: self._hand_over,
        }

    @property
    def faults(self) -> int:
        """How many there were."""
        return self.struck.total()

    def begin(self) -> None:
        """Strike after a while, and again and again."""
        if not self._world.options.faults:
            return
        pause_us = self._dice.randrange(self._world.options.pause_between_faults_us) + 1
        self._world.loop.after(pause_us, self._strike)

    def _strike(self) -> None:
        if self._stopped:
            return
        kind = self._dice.choice(self._world.options.faults)
        what = self._strike_by[kind]()
        if what is not None:
            self.struck[kind.value] += 1
            self._world.tell("fault", kind.value, what)
        self.begin()

    def heal(self) -> None:
        """No more faults: everything is as it should be, but for servers that are gone for good."""
        self._stopped = True
        world = self._world
        world.cut_links(frozenset())
        world.calm_weather()
        for server in world.servers.values():
            server.disk.space_bytes = None
            server.disk.heal()
            server.disk.crash_at_call = None
            server.disk.flush_us_min, server.disk.flush_us_max = 100, 1_000
            server.resume()
            self._start(server)

    # Who, and for how long

    def _some(self) -> SimulatedServer | None:
        """A running server; the leader more often than the others."""
        up = [server for server in self._world.servers.values() if server.up]
        leaders = [server for server in up if server.is_leader]
        if leaders and self._dice.random() < 0.4:
            return self._dice.choice(leaders)
        return self._dice.choice(up) if up else None

    def _while_us(self, longest_us: int = LONGEST_OUTAGE_US) -> int:
        """More often short than long."""
        return int(longest_us * self._dice.random() ** 3) + 1_000

    def _start_later(self, server: SimulatedServer) -> None:
        self._world.loop.after(self._while_us(), lambda: self._start(server))

    def _start(self, server: SimulatedServer) -> None:
        if not server.up and server.retired is None:
            server.start()

    def restart(self, server: SimulatedServer) -> None:
        """A server has ended by itself: somebody starts it again."""
        if not self._stopped:
            self._start_later(server)
        else:
            self._world.loop.after(SECOND_US, lambda: self._start(server))

    # Ends of servers

    def _kill(self) -> str | None:
        server = self._some()
        if server is None:
            return None
        server.crash("killed", power_cut=False)
        return f"server {server.server_id}"

    def _power_cut(self) -> str | None:
        server = self._some()
        if server is None:
            return None
        server.crash("power cut", power_cut=True)
        return f"server {server.server_id}"

    def _crash_in_call(self) -> str | None:
        server = self._some()
        if server is None:
            return None
        server.disk.crash_at_call = server.disk.call_count + self._dice.randint(1, 12)
        return f"server {server.server_id}, at call {server.disk.crash_at_call}"

    def _kill_all(self) -> str | None:
        power_cut = self._dice.random() < 0.5
        for server in self._world.servers.values():
            server.crash("all end", power_cut=power_cut)
        return "power cut" if power_cut else "killed"

    def _rolling_restart(self) -> str | None:
        when_us = 0
        for server in self._world.servers.values():
            self._world.loop.after(when_us, lambda server=server: self._stop_cleanly(server))  # type: ignore[misc]
            when_us += self._while_us(2 * SECOND_US)
        return f"over {when_us / SECOND_US:.1f} s"

    def _stop_cleanly(self, server: SimulatedServer) -> None:
        if server.up and not self._stopped:
            server.stop()

    # The network

    def _partition(self) -> str | None:
        return self._cut_by(self._dice.choice([shape for shape in Shape if "one-way" not in shape.value]))

    def _one_way(self) -> str | None:
        return self._cut_by(self._dice.choice([shape for shape in Shape if "one-way" in shape.value]))

    def _cut_by(self, shape: Shape) -> str | None:
        servers = list(self._world.servers)
        if len(servers) < 3:
            return None
        self._dice.shuffle(servers)
        leader = next((server.server_id for server in self._world.servers.values() if server.is_leader), None)
        if leader is not None and self._dice.random() < 0.5:
            servers.remove(leader)
            servers.insert(0, leader)
        total_us = self._while_us() * 2
        parts = stages(shape, len(servers), self._dice)
        for number, part in enumerate((*parts, frozenset[tuple[int, int]]())):
            links = frozenset((servers[source], servers[to]) for source, to in part)
            self._world.loop.after(number * total_us // len(parts), lambda links=links: self._cut_exactly(links))  # type: ignore[misc]
        return f"{shape.value} of {servers} for {total_us / SECOND_US:.1f} s"

    def _cut_exactly(self, links: Links) -> None:
        """A later partition takes the place of an earlier one."""
        if not self._stopped:
            self._world.cut_links(links)

    def _hand_over(self) -> str | None:
        leader = next((server for server in self._world.servers.values() if server.is_leader), None)
        if leader is None:
            return None
        leader.soon(lambda: leader.runtime.start(lambda: leader.node.hand_over(1.0)))
        return f"server {leader.server_id}"

    # Time

    def _pause(self) -> str | None:
        server = self._some()
        if server is None:
            return None
        duration_us = self._while_us(LONGEST_PAUSE_US)
        server.pause(duration_us)
        return f"server {server.server_id} for {duration_us / SECOND_US:.1f} s"

    def _clock_rate(self) -> str | None:
        server = self._dice.choice(list(self._world.servers.values()))
        rate_ppm = SECOND_US + self._dice.randint(-CLOCK_DRIFT_PPM, CLOCK_DRIFT_PPM)
        self._world.set_clock_rate(server, rate_ppm)
        return f"server {server.server_id}: {rate_ppm / 10_000:.1f} %"

    def _clock_jump(self) -> str | None:
        server = self._dice.choice(list(self._world.servers.values()))
        ahead_us = self._while_us(LONGEST_JUMP_US)
        self._world.jump_clock(server, ahead_us)
        return f"server {server.server_id}: {ahead_us / SECOND_US:.1f} s ahead"

    # Disks

    def _full_disk(self) -> str | None:
        server = self._some()
        if server is None:
            return None
        disk = server.disk
        disk.space_bytes = disk.used_bytes() + self._dice.randrange(ROOM_LEFT_BYTES)

        def empty() -> None:
            disk.space_bytes = None

        self._world.loop.after(self._while_us(), empty)
        return f"server {server.server_id}"

    def _disk_error(self) -> str | None:
        server = self._some()
        if server is None:
            return None
        call = self._dice.choice((Call.WRITE, Call.FLUSH, Call.FLUSH_DIRECTORY, Call.RENAME))
        server.disk.fail(call, errno.EIO, skip=self._dice.randrange(4))
        return f"server {server.server_id}: {call.name.lower()}"

    def _slow_disk(self) -> str | None:
        server = self._some()
        if server is None:
            return None
        disk = server.disk
        disk.flush_us_max = 1_000 + self._while_us(SLOWEST_FLUSH_US)
        disk.flush_us_min = disk.flush_us_max // 2

        def recover() -> None:
            disk.flush_us_min, disk.flush_us_max = 100, 1_000

        self._world.loop.after(self._while_us(), recover)
        return f"server {server.server_id}: up to {disk.flush_us_max / 1_000:.0f} ms"

    def _rot(self) -> str | None:
        """A bit flips in an old record or a snapshot; the servers that this may cost are a minority.

        Not in the last records: whether a damaged last record was acknowledged or cut short by a power cut can't be
        told from the disk alone, and it is taken for the latter.
        """
        world = self._world
        victims = [server for server in world.servers.values() if world.may_rot(server)]
        if not victims:
            return None
        server = self._dice.choice(victims)
        place = world.place_to_rot(server, self._dice)
        if place is None:
            return None
        path, offset = place
        server.disk.damage(path, offset, 1 << self._dice.randrange(8))
        return f"server {server.server_id}: {path.name} at {offset}"
