"""Faults of processes: killed, paused, restarted, run with a wrong clock or a slow disk."""

from __future__ import annotations

import datetime
import re
import secrets
import signal
from collections.abc import Awaitable, Callable, Collection

import trio

from fileserver.torture.nemesis import EVIDENCE_SECONDS, DidNotHappen, World
from fileserver.torture.plan import Fault

CLOCK_ERROR_SECONDS = 2.0
"""How far what a server believes may lie from where its clock was moved to: the time that it takes to look."""
LOOK_SECONDS = 0.02
_TIMESTAMP = re.compile(r"timestamp=(\S+)")


async def kill(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """SIGKILL, and a new start when the fault's time is over."""
    pids = [world.servers.process_id(server) for server in servers]
    statuses = await world.servers.kill(servers)
    wrong = [status for status in statuses if status != -signal.SIGKILL]
    await trio.sleep(fault.duration_us / 1e6)
    for server in servers:
        world.servers.launch(server)
    if wrong:
        raise DidNotHappen(f"servers {_names(servers)} ended with {statuses}")
    for server in servers:
        await world.until_back(server)
    return f"servers {_names(servers)}: processes {', '.join(map(str, pids))} killed and gone, back again"


async def pause(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """SIGSTOP, and SIGCONT when the fault's time is over."""
    for server in servers:
        world.servers.pause(server)
    try:
        await _until_state(world, servers, is_stopped=True)
        await trio.sleep(fault.duration_us / 1e6)
        is_still = all(world.servers.process_state(server) == "T" for server in servers)
    finally:
        for server in servers:
            world.servers.resume(server)
    if not is_still:
        raise DidNotHappen("a paused process went on by itself")
    await _until_state(world, servers, is_stopped=False)
    return f"servers {_names(servers)}: in state T for {fault.duration_us / 1e6:.1f} s"


async def _until_state(world: World, servers: tuple[int, ...], *, is_stopped: bool) -> None:
    async def is_so(server: int) -> bool:
        return (world.servers.process_state(server) == "T") is is_stopped

    await _until_all(servers, is_so, "having stopped" if is_stopped else "going on")


async def restart(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """SIGTERM, so that a leader hands over, and a new start after a moment; one server after the other."""
    leader = await world.servers.leader()
    said = []
    for server in servers:
        began_at = trio.current_time()
        status = await world.servers.stop(server)
        said.append(f"server {server} stopped in {trio.current_time() - began_at:.1f} s")
        if server == leader:
            said.append(f"it led; now server {await world.servers.leader() or '?'} does")
        await trio.sleep(min(fault.duration_us / 1e6, 1.0))
        world.servers.launch(server)
        if status != 0:
            raise DidNotHappen(f"server {server} ended with {status} instead of stopping")
        await world.until_back(server)
    return ", ".join(said)


async def clock(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """Move the wall clocks of running servers, and back when the fault's time is over."""
    offset_seconds = fault.amount_us / 1e6
    for server in servers:
        world.servers.controls(server).set_clock(fault.amount_us)
    ends_at = trio.current_time() + fault.duration_us / 1e6
    try:
        await _until_all(servers, lambda server: _has_shifted(world, server, offset_seconds), "a wrong clock")
        await trio.sleep_until(ends_at)
    finally:
        for server in servers:
            world.servers.controls(server).set_clock(0)
    return f"servers {_names(servers)}: their logs are dated {offset_seconds:+.0f} s"


async def _has_shifted(world: World, server: int, offset_seconds: float) -> bool:
    """Provoke a line in a server's log, by nonsense on its peer port, and see how it is dated."""
    size = world.servers.log_size(server)
    address = world.network.addresses(server).peer
    with trio.move_on_after(1):
        try:
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                await stream.send_all(b"\xff" + secrets.token_bytes(3) + b"\x00\x00" + bytes(32))
                await stream.receive_some(1)
        except (OSError, trio.BrokenResourceError):
            pass  # being thrown out is what we want
    now = datetime.datetime.now(datetime.UTC)
    dates = _TIMESTAMP.findall(world.servers.log(server, size))
    if not dates:
        return False
    shift = (datetime.datetime.fromisoformat(dates[-1]) - now).total_seconds()
    return abs(shift - offset_seconds) < CLOCK_ERROR_SECONDS


async def slow_flush(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """Make each flush take longer until the fault's time is over."""
    before = {server: world.servers.controls(server).slowed_count() for server in servers}
    for server in servers:
        world.servers.controls(server).set_flush_delay(fault.amount_us)
    ends_at = trio.current_time() + fault.duration_us / 1e6

    async def was_slowed(server: int) -> bool:
        return world.servers.controls(server).slowed_count() > before[server]

    try:
        await _until_all(servers, was_slowed, "a slow flush")
        await trio.sleep_until(ends_at)
    finally:
        for server in servers:
            world.servers.controls(server).set_flush_delay(0)
    counts = [world.servers.controls(server).slowed_count() - before[server] for server in servers]
    return f"servers {_names(servers)}: {sum(counts)} flushes took {fault.amount_us / 1000:.0f} ms more"


async def _until_all(servers: Collection[int], look: Callable[[int], Awaitable[bool]], what: str) -> None:
    """Look at each server again and again until each shows the thing."""
    left = list(servers)
    with trio.move_on_after(EVIDENCE_SECONDS):
        while left:
            left = [server for server in left if not await look(server)]
            if left:
                await trio.sleep(LOOK_SECONDS)
        return
    raise DidNotHappen(f"server {_names(left)} shows no sign of {what}")


def _names(servers: Collection[int]) -> str:
    return ", ".join(map(str, servers))
