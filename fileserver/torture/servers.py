"""The server processes that are tortured: started, killed, paused, asked.

Invariants: a signal goes only to a process that was started here and has not been waited for. A server that ended
without our doing is told of by `deaths`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from fileserver.config import Address
from fileserver.processes import module_command
from fileserver.torture.networks import BreakableNetwork
from fileserver.torture.preload import Controls
from fileserver.torture.wire import Nonsense, ReplyBuffer

ASK_SECONDS = 2.0
POLL_SECONDS = 0.05
END_POLL_SECONDS = 0.005
STOP_SECONDS = 30.0
Status = dict[str, Any]


class NotInTime(Exception):
    """Something that has to come didn't. The text says what."""


class NotRunning(Exception):
    """A server that should run has ended."""


@attrs.frozen(slots=True)
class Death:
    """A server that ended by itself."""

    server: int
    status: int
    said: str
    """The end of its log and of what it printed."""

    def __str__(self) -> str:
        """For people."""
        return f"server {self.server} ended by itself with {self.status}: {self.said}"


@attrs.define(slots=True, eq=False)
class _Server:
    """What is known of one server."""

    directory: Path
    """Its data."""
    notes: Path
    """Its log and what it prints, on a disk that never is full."""
    controls: Controls
    process: subprocess.Popen[bytes] | None = None
    is_paused: bool = False
    is_expected_to_end: bool = False
    starts: int = 0


class Servers:
    """All servers of the cluster."""

    def __init__(
        self,
        ids: Iterable[int],
        directory: Path,
        network: BreakableNetwork,
        library: Path | None,
        settings: Mapping[str, object],
    ) -> None:
        """Write the configurations; nothing runs yet.

        Args:
            ids: the servers' ids.
            directory: of the whole run.
            network: in which they are to be.
            library: what their processes are started with, see `fileserver.torture.preload`.
            settings: more keys of cluster.json.
        """
        self.ids = tuple(ids)
        self.network = network
        self.directory = directory
        self._deaths: list[Death] = []
        self._servers: dict[int, _Server] = {}
        for server in self.ids:
            notes = directory / "notes" / f"server-{server}"
            place = disk_of(directory, server) / f"server-{server}"
            place.mkdir(parents=True, mode=0o700)
            notes.mkdir(parents=True)
            self._servers[server] = _Server(place, notes, Controls(library, notes / "page"))
            (notes / "cluster.json").write_text(json.dumps(self._configuration(server, settings), indent=1))

    def _configuration(self, server: int, settings: Mapping[str, object]) -> dict[str, object]:
        """The cluster.json of one server: the others are where the network lets it reach them."""
        rows = []
        for other in self.ids:
            addresses = self.network.addresses(other)
            peer = addresses.peer if other == server else self.network.peer_address((server, other))
            rows.append({"id": other, "client": str(addresses.client), "http": str(addresses.http), "peer": str(peer)})
        return {"cluster": "torture", "servers": rows, **settings}

    # Where things are

    def place(self, server: int) -> Path:
        """A server's data."""
        return self._servers[server].directory

    def client_address(self, server: int) -> Address:
        """Where a server's clients connect."""
        return self.network.addresses(server).client

    def controls(self, server: int) -> Controls:
        """What tells a server how slow its disk is."""
        return self._servers[server].controls

    def log(self, server: int, offset: int = 0) -> str:
        """What a server has logged from that byte on."""
        return _tail(self._servers[server].notes / "server.log", offset)

    def log_size(self, server: int) -> int:
        """How long a server's log is, in bytes."""
        path = self._servers[server].notes / "server.log"
        return path.stat().st_size if path.exists() else 0

    def printed(self, server: int) -> str:
        """What a server has said on its standard streams."""
        return _tail(self._servers[server].notes / "output", 0)

    # Processes

    def launch(self, server: int) -> None:
        """Start a server, without waiting for anything."""
        each = self._servers[server]
        assert each.process is None, f"server {server} runs"
        # The log is a link to a place outside, so that what a server says of its full disk can be read.
        link = each.directory / "server.log"
        if not link.is_symlink():
            link.symlink_to(each.notes / "server.log")
        command = [*module_command("fileserver.cli.fileserver"), "--config", str(each.notes / "cluster.json")]
        command += ["--id", str(server), "--dir", str(each.directory)]
        with (each.notes / "output").open("ab") as output, self.network.place_of(server):
            each.process = subprocess.Popen(
                command,
                env={**os.environ, **each.controls.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        each.is_expected_to_end = False
        each.is_paused = False
        each.starts += 1

    def is_running(self, server: int) -> bool:
        """Whether it was started and hasn't been ended since; a paused one runs."""
        return self._servers[server].process is not None

    def process_id(self, server: int) -> int:
        """Of a server that runs. Raises NotRunning."""
        return self._process(server).pid

    def _process(self, server: int) -> subprocess.Popen[bytes]:
        process = self._servers[server].process
        if process is None:
            raise NotRunning(f"server {server} doesn't run")
        return process

    def process_state(self, server: int) -> str:
        """One letter, as ``ps`` shows it: T is stopped. Empty if there is no such process."""
        try:
            text = Path(f"/proc/{self.process_id(server)}/stat").read_text()
        except OSError:
            return ""
        return text.rpartition(")")[2].split()[0]

    async def kill(self, servers: Sequence[int]) -> list[int]:
        """SIGKILL to all of them in one instant; gives the exit statuses once they are gone. Raises NotRunning."""
        processes = [self._process(server) for server in servers]
        for server, process in zip(servers, processes, strict=True):
            self._servers[server].is_expected_to_end = True
            process.kill()
        return [await self._reap(self._servers[server]) for server in servers]

    async def stop(self, server: int) -> int:
        """SIGTERM; gives the exit status. One that doesn't stop in time is killed. Raises NotRunning."""
        each = self._servers[server]
        process = self._process(server)
        each.is_expected_to_end = True
        process.terminate()
        return await self._reap(each, STOP_SECONDS)

    async def exit_status(self, server: int, seconds: float) -> int | None:
        """Wait for a server to end by itself, as it was meant to; None if it still runs when the time is over.

        Raises:
            NotRunning: it was known to have ended before.
        """
        status = await self._until_ended(self._process(server), seconds)
        if status is not None:
            self._servers[server].process = None
        return status

    async def _until_ended(self, process: subprocess.Popen[bytes], seconds: float) -> int | None:
        # Polled, since a thread that waits would hold up the end of the program.
        for _ in range(round(seconds / END_POLL_SECONDS)):
            if process.poll() is not None:
                break
            await trio.sleep(END_POLL_SECONDS)
        return process.poll()

    def expect_end(self, server: int, *, is_expected: bool = True) -> None:
        """Whether it is no death to be told of when this server ends by itself."""
        self._servers[server].is_expected_to_end = is_expected

    async def _reap(self, each: _Server, seconds: float = STOP_SECONDS) -> int:
        process = each.process
        assert process is not None
        status = await self._until_ended(process, seconds)
        if status is None:
            process.kill()
            status = process.wait()
        each.process = None
        each.is_paused = False
        return status

    def pause(self, server: int) -> None:
        """SIGSTOP. Raises NotRunning."""
        self._signal(server, signal.SIGSTOP)
        self._servers[server].is_paused = True

    def resume(self, server: int) -> None:
        """SIGCONT. Raises NotRunning."""
        self._signal(server, signal.SIGCONT)
        self._servers[server].is_paused = False

    def _signal(self, server: int, number: int) -> None:
        self._process(server).send_signal(number)

    def deaths(self) -> list[Death]:
        """The servers that have ended by themselves, each told of once. They count as not running from then on."""
        found = []
        for server, each in self._servers.items():
            if each.process is not None and not each.is_expected_to_end and each.process.poll() is not None:
                said = f"{self.log(server)[-2000:]}\n{self.printed(server)[-4000:]}".strip()
                found.append(Death(server, each.process.returncode, said))
                each.process = None
        return found

    def end_all(self) -> list[int]:
        """Kill what still runs, at once; gives the ids of those that ran."""
        left = {server: each for server, each in self._servers.items() if each.process is not None}
        for each in left.values():
            assert each.process is not None
            each.is_expected_to_end = True
            each.process.kill()
        for each in left.values():
            assert each.process is not None
            each.process.wait()
            each.process = None
        for each in self._servers.values():
            each.controls.close()
        return list(left)

    # What servers say

    async def status(self, server: int) -> Status | None:
        """What a server says of itself; None if it doesn't answer."""
        with trio.move_on_after(ASK_SECONDS):
            return await ask_status(self.client_address(server))
        return None

    async def statuses(self) -> dict[int, Status]:
        """What those servers say that answer."""
        found: dict[int, Status] = {}

        async def ask(server: int) -> None:
            status = await self.status(server)
            if status is not None:
                found[server] = status

        async with trio.open_nursery() as nursery:
            for server, each in self._servers.items():
                if each.process is not None and not each.is_paused:
                    nursery.start_soon(ask, server)
        return found

    async def leader(self) -> int | None:
        """Who leads in the newest term that anybody knows of, if anybody does."""
        statuses = (await self.statuses()).values()
        leaders = [status for status in statuses if status["role"] == "leader"]
        return max(leaders, key=lambda status: int(status["term"]))["id"] if leaders else None

    async def until_agreed(self, seconds: float) -> dict[int, Status]:
        """Wait until all servers name one leader and have applied the same; gives what they say.

        Raises:
            NotInTime: they don't.
        """
        statuses: dict[int, Status] = {}
        with trio.move_on_after(seconds):
            while True:
                statuses = await self.statuses()
                seen = {(status["leader"], status["term"], status["applied_index"]) for status in statuses.values()}
                if len(statuses) == len(self.ids) and len(seen) == 1 and statuses[self.ids[0]]["leader"] is not None:
                    return statuses
                await trio.sleep(POLL_SECONDS)
        says = {
            server: [status[key] for key in ("role", "term", "leader", "applied_index")]
            for server, status in statuses.items()
        }
        raise NotInTime(f"the servers don't agree within {seconds:.0f} s; role, term, leader, applied: {says}")


def disk_of(directory: Path, server: int) -> Path:
    """Where a server's disk is, which may be a file system of its own."""
    return directory / "disks" / str(server)


async def ask_status(address: Address) -> Status | None:
    """A server's status; None if it can't be had."""
    buffer = ReplyBuffer()
    try:
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(b"status\r\n")
            async for piece in stream:
                buffer.feed(bytes(piece))
                reply = buffer.next()
                if reply is not None:
                    status: Status = json.loads(reply.contents)
                    return status
    except (OSError, trio.BrokenResourceError, Nonsense, ValueError):
        pass
    return None


def _tail(path: Path, offset: int) -> str:
    """A text file from that byte on; empty if there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", "replace")
