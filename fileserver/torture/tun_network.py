"""A network for each server, a router between them, and faults on the way from one server to another.

Theory of operation: this process stands in a network of its own, the hub. Each server has a network whose only
way out is a pair of virtual interfaces to the hub; the kernel forwards between them, and clients in the hub reach every
server. While something is wrong with a link, from a to b, a routing rule sends its packets to a TUN device
instead, that is, to this process: it drops, or holds and later hands back, each packet, and counts it. The server
sees what it would of a bad wire: packets that don't come, or come late; no error tells it why. A packet handed
back comes from the TUN device, so the rule, which asks where a packet came from, doesn't see it again.

So a fault is real when its packets were counted here, whatever else is going on. The probes, datagrams from one
server's network to the other's, see to it that there are some.

Needs the rights of `namespaces`, ``ip`` and /dev/net/tun. What it makes ends with the process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from heapq import heappop, heappush
from pathlib import Path
from random import Random

import trio

from fileserver.config import Address
from fileserver.torture import namespaces
from fileserver.torture.impairments import Impairment, Impairments
from fileserver.torture.namespaces import run_tool
from fileserver.torture.networks import Addresses, Traffic
from fileserver.torture.shapes import Link

DEVICE = Path("/dev/net/tun")
_CLIENT_PORT, _HTTP_PORT, _PEER_PORT, _PROBE_PORT = 8080, 8180, 9080, 7
_TABLE = 77
_SET_INTERFACE = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_PACKET_BYTES_MAX = 65536
_PACKETS_AT_A_TIME = 256
_TOKEN_BYTES = 16
_IPV4 = 4


def host_of(server: int) -> str:
    """A server's address."""
    return f"10.77.{server}.2"


def link_of(packet: bytes) -> Link | None:
    """Which link an IPv4 packet is on; None if it is something else."""
    if len(packet) < 20 or packet[0] >> 4 != _IPV4 or packet[12:14] != b"\x0a\x4d" or packet[16:18] != b"\x0a\x4d":
        return None
    return packet[14], packet[18]


def can_be_used() -> bool:
    """Whether this process, which has to be apart, can have a TUN device."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError:
        return False
    return namespaces.is_apart()


class TunNetwork:
    """See the module's docstring and :class:`fileserver.torture.networks.BreakableNetwork`."""

    kind = "network namespaces"

    def __init__(self, servers: Iterable[int], random: Random) -> None:
        """Make the networks. Raises OSError where that isn't allowed."""
        self._random = random
        self._impairments = Impairments()
        self._diverted: frozenset[Link] = frozenset()
        self._traffic: defaultdict[Link, Traffic] = defaultdict(Traffic)
        self._held: list[tuple[float, int, bytes]] = []
        """Packets to hand back: when, a number that keeps the order, what."""
        self._held_count = 0
        self._news = trio.Event()
        self._open = ExitStack()
        self._probes: dict[int, socket.socket] = {}
        self._awaited: dict[bytes, trio.Event] = {}
        """Probes under way."""
        self._spaces: dict[int, int] = {}
        try:
            self._tun = self._make_hub()
            for server in servers:
                self._spaces[server] = self._make_space(server)
                self._probes[server] = self._open_probe(server)
        except BaseException:
            self.close()
            raise

    def _make_hub(self) -> int:
        tun = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._open.callback(os.close, tun)
        fcntl.ioctl(tun, _SET_INTERFACE, struct.pack("16sH22x", b"faults", _TUN_WITHOUT_HEADER))
        settings = Path("/proc/sys/net/ipv4")
        (settings / "ip_forward").write_text("1")
        for name in ("all", "default", "faults"):
            (settings / "conf" / name / "rp_filter").write_text("0")
            (settings / "conf" / name / "send_redirects").write_text("0")
        run_tool("ip", "link", "set", "faults", "txqueuelen", "10000", "up")
        run_tool("ip", "route", "add", "default", "dev", "faults", "table", str(_TABLE))
        return tun

    def _make_space(self, server: int) -> int:
        hub = namespaces.this_network()
        space = namespaces.new_network()
        self._open.callback(os.close, space)
        name = f"server{server}"
        with namespaces.inside(space):
            run_tool(
                *("ip", "link", "add", "out", "type", "veth", "peer", "name", name),
                *("netns", f"/proc/{os.getpid()}/fd/{hub}"),
            )
            run_tool("ip", "link", "set", "lo", "up")
            run_tool("ip", "addr", "add", f"{host_of(server)}/24", "dev", "out")
            run_tool("ip", "link", "set", "out", "up")
            run_tool("ip", "route", "add", "default", "via", f"10.77.{server}.1")
        run_tool("ip", "addr", "add", f"10.77.{server}.1/24", "dev", name)
        run_tool("ip", "link", "set", name, "up")
        os.close(hub)
        return space

    def _open_probe(self, server: int) -> socket.socket:
        with namespaces.inside(self._spaces[server]):
            probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._open.callback(probe.close)
        probe.setblocking(False)
        probe.bind((host_of(server), _PROBE_PORT))
        return probe

    def addresses(self, server: int) -> Addresses:
        """See BreakableNetwork."""
        host = host_of(server)
        return Addresses(Address(host, _CLIENT_PORT), Address(host, _HTTP_PORT), Address(host, _PEER_PORT))

    def peer_address(self, link: Link) -> Address:
        """See BreakableNetwork."""
        return self.addresses(link[1]).peer

    def place_of(self, server: int) -> AbstractContextManager[None]:
        """See BreakableNetwork."""
        return namespaces.inside(self._spaces[server])

    def impose(self, fault: int, links: Mapping[Link, Impairment]) -> None:
        """See BreakableNetwork."""
        self._impairments.impose(fault, links)
        self._divert()

    def lift(self, fault: int) -> None:
        """See BreakableNetwork."""
        self._impairments.lift(fault)
        self._divert()

    def _divert(self) -> None:
        """Have exactly the impaired links' packets come to us, by one call of ``ip``."""
        wanted = frozenset(self._impairments.now)
        lines = [
            f"rule {verb} iif server{source} to {host_of(to)} lookup {_TABLE}"
            for verb, links in (("add", wanted - self._diverted), ("del", self._diverted - wanted))
            for source, to in sorted(links)
        ]
        self._diverted = wanted
        if lines:
            run_tool("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def traffic(self, link: Link) -> Traffic:
        """See BreakableNetwork."""
        return self._traffic[link]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See BreakableNetwork."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            nursery.start_soon(self._hand_back)
            for probe in self._probes.values():
                nursery.start_soon(self._receive_probes, probe)
            task_status.started()

    async def _receive(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._tun)
            try:
                for _ in range(_PACKETS_AT_A_TIME):
                    self._take(os.read(self._tun, _PACKET_BYTES_MAX))
            except BlockingIOError:
                pass

    def _take(self, packet: bytes) -> None:
        link = link_of(packet)
        if link is None:
            return
        impairment = self._impairments.of(link)
        traffic = self._traffic[link]
        if impairment.cut or (impairment.loss and self._random.random() < impairment.loss):
            traffic.dropped += 1
            return
        delay_us = impairment.delay_us + (self._random.randrange(impairment.jitter_us) if impairment.jitter_us else 0)
        traffic.delayed += delay_us > 0
        self._held_count += 1
        heappush(self._held, (trio.current_time() + delay_us / 1e6, self._held_count, packet))
        self._news.set()

    async def _hand_back(self) -> None:
        while True:
            self._news = trio.Event()
            if self._held and (wait := self._held[0][0] - trio.current_time()) > 0:
                with trio.move_on_after(wait):
                    await self._news.wait()
            elif not self._held:
                await self._news.wait()
            now = trio.current_time()
            while self._held and self._held[0][0] <= now:
                try:
                    os.write(self._tun, heappop(self._held)[2])
                except OSError:
                    pass  # the kernel has no room for it: lost, as packets are
            await trio.lowlevel.checkpoint()

    async def probe(self, link: Link, seconds: float) -> float | None:
        """See BreakableNetwork."""
        source, to = link
        token = os.urandom(_TOKEN_BYTES)
        arrival = self._awaited[token] = trio.Event()
        sent_at = trio.current_time()
        try:
            self._probes[source].sendto(token, (host_of(to), _PROBE_PORT))
            with trio.move_on_after(seconds):
                await arrival.wait()
                return trio.current_time() - sent_at
        except OSError:
            pass  # it didn't even leave
        finally:
            del self._awaited[token]
        return None

    async def _receive_probes(self, receiver: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(receiver)
            arrival = self._awaited.get(receiver.recv(_TOKEN_BYTES))
            if arrival is not None:  # else nobody waits for it any more
                arrival.set()

    def close(self) -> None:
        """See BreakableNetwork."""
        self._open.close()
