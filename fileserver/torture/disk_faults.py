"""Faults of disks: full ones, and damaged files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import trio

from fileserver.torture.clients import connect
from fileserver.torture.nemesis import EVIDENCE_SECONDS, DidNotHappen, World
from fileserver.torture.plan import Fault, Target

REFUSAL_SECONDS = 30.0
_PRESSURE_BYTES = 128 * 1024
_PRESSURE_NAMES = 4
_SAYS_FULL = re.compile(r"disk is full|no room for a snapshot|No space left")
_SAYS_DAMAGED = re.compile(r"(\S+) is damaged at offset (\d+)")
_DAMAGED_BYTES = 8
_LOG_BYTES_MIN = 4096
"""A segment with less in it is left alone."""


async def disk_full(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """Fill the servers' disks, write until they notice, and make room again when the fault's time is over."""
    disks = world.disks
    assert disks is not None
    sizes = {server: world.servers.log_size(server) for server in servers}
    ends_at = trio.current_time() + fault.duration_us / 1e6

    def have_noticed() -> bool:
        for server in servers:
            disks.fill(server)  # what was freed meanwhile, such as an old segment, is taken too
        return all(_SAYS_FULL.search(world.servers.log(server, sizes[server])) for server in servers)

    try:
        for server in servers:
            disks.fill(server)
        free_bytes = max(disks.free_bytes(server) for server in servers)
        is_noticed = await press(world, have_noticed)
        await trio.sleep_until(ends_at)
    finally:
        for server in servers:
            disks.clear(server)
    if not is_noticed:
        raise DidNotHappen(f"no server of {servers} says that its disk is full ({free_bytes} bytes free)")
    names = ", ".join(map(str, servers))
    return f"servers {names}: {free_bytes} bytes free, and their logs say so"


async def press(world: World, is_enough: Callable[[], bool]) -> bool:
    """Write big files until it is enough, or nothing comes of it for too long; says whether it was enough."""
    content = os.urandom(_PRESSURE_BYTES)
    number = 0
    with trio.move_on_after(EVIDENCE_SECONDS):
        while not is_enough():
            number += 1
            server = world.servers.ids[number % len(world.servers.ids)]
            name = b"pressure/%d" % (number % _PRESSURE_NAMES)
            await _write(world, server, b"write %b %d\r\n%b\r\n" % (name, len(content), content))
        return True
    return False


async def _write(world: World, server: int, request: bytes) -> None:
    """Send one request and wait for its reply, whatever it is, for a moment."""
    stream = await connect(world.servers.client_address(server))
    if stream is None:
        await trio.sleep(0.05)
        return
    try:
        with trio.move_on_after(1.0):
            await stream.send_all(request)
            reply = await stream.receive_some(4096)
            if not reply.startswith(b"OK"):
                await trio.sleep(0.1)
    except trio.BrokenResourceError:
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def corruption(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """Kill servers, keep a copy of their files, flip bytes, and see them refuse; then put the copy back.

    A server that starts all the same must have lost nothing by it: it goes on with what it has, and the history judges.
    """
    if fault.target is Target.SNAPSHOT:
        await press(world, lambda: all(_snapshots(world.servers.place(server)) for server in servers))
    await world.servers.kill(servers)
    said = []
    problems = []
    for server in servers:
        place = world.servers.place(server)
        copy = world.servers.directory / f"copy-of-server-{server}"
        await trio.to_thread.run_sync(partial(shutil.copytree, place, copy, symlinks=True))
        try:
            path, offset = damage(place, fault.target, Random(fault.number))
            refusal = await _refusal(world, server, path)
        except DidNotHappen as why:
            problems.append(str(why))
        else:
            said.append(f"server {server}: {path.name} flipped at {offset}, {refusal or 'harmless'}")
        if not world.servers.is_running(server):
            for each in place.iterdir():
                each.unlink()
            for each in copy.iterdir():
                shutil.copy2(each, place / each.name, follow_symlinks=False)
            world.servers.launch(server)
        shutil.rmtree(copy)
    for server in servers:
        await world.until_back(server)
    if problems:
        raise DidNotHappen("; ".join(problems))
    return "; ".join(said)


async def _refusal(world: World, server: int, path: Path) -> str | None:
    """Start a server on damaged files; gives what it says in refusing, None if it serves.

    Raises:
        DidNotHappen: it didn't notice, or ended without saying which file is damaged where.
    """
    size = world.servers.log_size(server)
    printed = len(world.servers.printed(server))
    world.servers.launch(server)
    world.servers.expect_end(server)
    with trio.move_on_after(REFUSAL_SECONDS):
        while (status := await world.servers.exit_status(server, 0.2)) is None:
            if await world.servers.status(server) is not None:
                world.servers.expect_end(server, is_expected=False)
                if path.suffix == ".snap" and path.name not in world.servers.log(server, size):
                    raise DidNotHappen(f"server {server} serves with a damaged {path.name}, and doesn't mention it")
                return None
        text = world.servers.log(server, size) + world.servers.printed(server)[printed:]
        match = _SAYS_DAMAGED.search(text)
        if match is None or path.name not in match[1] or status == 0:
            raise DidNotHappen(f"server {server} ended with {status}, not naming {path.name}: {text[-500:]}")
        return f"refused at {match[2]}"
    raise DidNotHappen(f"server {server} neither serves nor refuses with a damaged {path.name}")


def damage(place: Path, target: Target | None, random: Random) -> tuple[Path, int]:
    """Flip bits about the middle of the log or of the newest snapshot; gives the file and the offset.

    Where and which is drawn: the same damage done twice to a file would heal it.

    Raises:
        DidNotHappen: there is no such file that is long enough.
    """
    path, end = _log_with_data(place) if target is Target.LOG else _newest_snapshot(place)
    offset = random.randrange(end // 4, 3 * end // 4)
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(_DAMAGED_BYTES)
        file.seek(offset)
        file.write(bytes(byte ^ random.randrange(1, 256) for byte in old))
    return path, offset


def _log_with_data(place: Path) -> tuple[Path, int]:
    """A segment, and where what it has ends; if there are two, the one before the last.

    Damage to the very last frame can't be told from a save that was cut short, and a server that forgets what it had
    acknowledged breaks the promise on which a majority stands. So there have to be whole frames behind the damage.
    """
    sized = [(path, len(path.read_bytes().rstrip(b"\0"))) for path in sorted(place.glob("log-*.seg"))]
    enough = [(path, size) for path, size in sized if size >= _LOG_BYTES_MIN]
    if not enough:
        raise DidNotHappen(f"{place} has no log that is long enough")
    return enough[-2:][0]


def _newest_snapshot(place: Path) -> tuple[Path, int]:
    snapshots = _snapshots(place)
    if not snapshots:
        raise DidNotHappen(f"{place} has no snapshot")
    return snapshots[-1], snapshots[-1].stat().st_size


def _snapshots(place: Path) -> list[Path]:
    return sorted(place.glob("snapshot-*.snap"))
