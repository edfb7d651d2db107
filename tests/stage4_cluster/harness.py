"""Clusters of real server processes on real ports, for tests that kill them.

Theory of operation: each server is a child of the test process, started as ``bin/start_cluster`` starts it. What a test
waits for is an event that a server itself tells of (its ``status``, a reply, the end of its process); where there is
nothing to wait on, `eventually` asks again every few milliseconds. Deadlines are generous, since the
machine may be busy, and only ever reached by a failing test.

Invariants: only processes that were started here are ever sent a signal, by their handle and never by a number from a
file. At the end of a test every server that the test didn't end itself is still running, and no log has a traceback.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import trio

from tests.stage4_cluster import ports
from tests.stage4_cluster.line_client import LineClient, connected

ROOT: Final = Path(__file__).resolve().parent.parent.parent
READY_SECONDS: Final = 60.0
END_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.02
QUICK_ELECTIONS: Final = {"election_timeout_ms": [150, 300], "heartbeat_ms": 30}
"""For tests that have elections on the way to something else."""

Value = TypeVar("Value")
Status = dict[str, Any]


async def eventually(
    what: str, look: Callable[[], Awaitable[Value | None]], seconds: float = READY_SECONDS, poll: float = POLL_SECONDS
) -> Value:
    """Ask again and again until the answer is neither None nor False."""
    with trio.move_on_after(seconds):
        while True:
            value = await look()
            if value is not None and value is not False:
                return value
            await trio.sleep(poll)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def program_environment() -> dict[str, str]:
    """The environment in which a program of this checkout runs, whichever Python runs the tests."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def program_command(name: str, *arguments: str | Path | int) -> list[str]:
    """The command line of one of the programs in bin/, without the part that makes its environment."""
    return [sys.executable, "-P", "-m", f"fileserver.cli.{name}", *map(str, arguments)]


def run_program(name: str, *arguments: str | Path | int) -> subprocess.CompletedProcess[str]:
    """Run a program that is expected to end by itself."""
    return subprocess.run(
        program_command(name, *arguments),
        env=program_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=END_SECONDS,
    )


def configuration(first_port: int, nodes: int, **settings: Any) -> dict[str, Any]:
    """A cluster.json, laid out as ``bin/start_cluster`` does it."""
    return {
        "cluster": "under-test",
        "servers": [
            {
                "id": number + 1,
                "client": f"127.0.0.1:{first_port + number}",
                "http": f"127.0.0.1:{first_port + 100 + number}",
                "peer": f"127.0.0.1:{first_port + 1000 + number}",
            }
            for number in range(nodes)
        ],
        **settings,
    }


class Cluster:
    """The servers of one cluster, each running or not."""

    def __init__(self, directory: Path, nodes: int = 5, **settings: Any) -> None:
        self._ports = ports.reserve()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._paused: set[int] = set()
        self.directory: Final = directory
        self.ids: Final = tuple(range(1, nodes + 1))
        self.config_file = directory / "cluster.json"
        """May be replaced before the servers run."""
        self.prefix: tuple[str, ...] = ()
        """Words to put before a server's command line, such as prlimit's."""
        directory.mkdir(exist_ok=True)
        self.config_file.write_text(json.dumps(configuration(self._ports.first, nodes, **settings)))

    # Where things are

    def port(self, server_id: int) -> int:
        """The client port of a server."""
        return self._ports.first + server_id - 1

    def place(self, server_id: int) -> Path:
        """A server's directory."""
        return self.directory / f"server-{server_id}"

    def segments(self, server_id: int) -> list[Path]:
        """The files of a server's log, the oldest first."""
        return sorted(self.place(server_id).glob("log-*.seg"))

    def log(self, server_id: int) -> str:
        """What a server has logged."""
        path = self.place(server_id) / "server.log"
        return path.read_text() if path.exists() else ""

    def memory_bytes(self, server_id: int) -> int:
        """Main memory that a server has at the moment."""
        pages = Path(f"/proc/{self._processes[server_id].pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    # Processes

    @property
    def running(self) -> tuple[int, ...]:
        """The servers that have been started and not been ended by a test; paused ones are among them."""
        return tuple(sorted(self._processes))

    def launch(self, *server_ids: int) -> None:
        """Start servers, without waiting for anything."""
        for server_id in server_ids:
            assert server_id not in self._processes, f"server {server_id} runs"
            self.place(server_id).mkdir(mode=0o700, exist_ok=True)
            with (self.place(server_id) / "output").open("ab") as output:
                self._processes[server_id] = subprocess.Popen(
                    self.command(server_id),
                    env=program_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )

    def command(self, server_id: int) -> list[str]:
        """The command line that runs a server."""
        arguments = ("--config", self.config_file, "--id", server_id, "--dir", self.directory)
        return [*self.prefix, *program_command("fileserver", *arguments)]

    async def start(self, *server_ids: int) -> int:
        """Start servers (all by default) and wait until all that run have one leader; gives its id."""
        self.launch(*(server_ids or self.ids))
        return await self.leader()

    def kill(self, *server_ids: int) -> None:
        """End servers by SIGKILL, all in one instant; returns when the processes are gone."""
        for server_id in server_ids:
            self._processes[server_id].kill()
        for server_id in server_ids:
            self._processes.pop(server_id).wait(END_SECONDS)
        self._paused.difference_update(server_ids)

    def pause(self, server_id: int) -> None:
        """Stop a server's process by SIGSTOP, which it can't notice."""
        self._processes[server_id].send_signal(signal.SIGSTOP)
        self._paused.add(server_id)

    def resume(self, server_id: int) -> None:
        """Let a paused process go on."""
        self._processes[server_id].send_signal(signal.SIGCONT)
        self._paused.discard(server_id)

    def ask_to_stop(self, server_id: int) -> None:
        """Send SIGTERM; `exit_status` waits for what becomes of it."""
        self._processes[server_id].terminate()

    async def exit_status(self, server_id: int) -> int:
        """Wait for the end of a process."""
        process = self._processes[server_id]

        async def look() -> int | None:
            return process.poll()

        # None means that it runs, 0 is an answer.
        status = await eventually(f"server {server_id} ends", lambda: _boxed(look), END_SECONDS)
        del self._processes[server_id]
        return status[0]

    async def stop(self, *server_ids: int) -> None:
        """End servers cleanly."""
        for server_id in server_ids:
            self.ask_to_stop(server_id)
        for server_id in server_ids:
            assert await self.exit_status(server_id) == 0, self.log(server_id)[-2000:]

    async def mend(self) -> int:
        """Bring back every server that a test left down; gives the leader's id."""
        for server_id in tuple(self._paused):
            self.resume(server_id)
        down = [server_id for server_id in self.ids if server_id not in self._processes]
        self.launch(*down)
        return await self.leader()

    # What servers say

    async def status(self, server_id: int) -> Status | None:
        """What a server says of itself; None if it doesn't answer."""
        with trio.move_on_after(2):
            try:
                async with connected(self.port(server_id)) as client:
                    return await client.status()
            except OSError:
                return None
            except AssertionError:
                return None
        return None

    async def statuses(self, server_ids: Iterable[int] | None = None) -> dict[int, Status] | None:
        """What servers (by default those that run) say of themselves; None if one of them doesn't answer."""
        found: dict[int, Status] = {}

        async def ask(server_id: int) -> None:
            status = await self.status(server_id)
            if status is not None:
                found[server_id] = status

        wanted = tuple(self.running if server_ids is None else server_ids)
        async with trio.open_nursery() as nursery:
            for server_id in wanted:
                if server_id not in self._paused:
                    nursery.start_soon(ask, server_id)
        awaited = set(wanted) - self._paused
        return found if set(found) == awaited else None

    async def leader(self) -> int:
        """Wait until all servers that run name the same leader, which is one of them; gives its id."""

        async def look() -> int | None:
            self.check_alive()
            statuses = await self.statuses()
            if not statuses:
                return None
            named = {(status["leader"], status["term"]) for status in statuses.values()}
            if len(named) > 1:
                return None
            ((leader, _),) = named
            return leader if leader in statuses and statuses[leader]["role"] == "leader" else None

        return await eventually(f"servers {self.running} have a leader", look)

    async def follower(self) -> int:
        """A server that runs and doesn't lead."""
        leader = await self.leader()
        return next(server_id for server_id in self.running if server_id != leader)

    async def same_everywhere(self, seconds: float = READY_SECONDS) -> Status:
        """Wait until all servers that run have applied the same entries; their states must then be the same.

        Gives the status of one of them.
        """

        async def look() -> Status | None:
            self.check_alive()
            statuses = list((await self.statuses() or {}).values())
            if not statuses or len({status["applied_index"] for status in statuses}) > 1:
                return None
            first = statuses[0]
            for status in statuses[1:]:
                for key in ("state_hash", "version", "files", "bytes"):
                    assert status[key] == first[key], f"{key} of servers {first['id']} and {status['id']}"
            return first

        return await eventually(f"servers {self.running} have applied the same", look, seconds)

    def check_alive(self) -> None:
        """Raises AssertionError if a server has ended that no test has ended."""
        for server_id, process in self._processes.items():
            status = process.poll()
            said = self._output(server_id)[-6000:] + self.log(server_id)[-2000:]
            assert status is None, f"server {server_id} ended with {status}: {said}"

    def check_logs(self) -> None:
        """Raises AssertionError if a server met something that it didn't expect."""
        for server_id in self.ids:
            for text in (self.log(server_id), self._output(server_id)):
                assert "Traceback" not in text, f"server {server_id}:\n{text[text.index('Traceback') - 500 :][:6000]}"

    def _output(self, server_id: int) -> str:
        path = self.place(server_id) / "output"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        """End what still runs, at once; the ports are free for others then."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(END_SECONDS)
        self._processes.clear()
        self._ports.release()


async def _boxed(look: Callable[[], Awaitable[Value | None]]) -> tuple[Value] | None:
    """Wrap an answer so that a false one is told from none."""
    value = await look()
    return None if value is None else (value,)


async def spread(clients: Iterable[LineClient], act: Callable[[LineClient], Awaitable[None]]) -> None:
    """Do the same with many clients at a time."""
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(act, client)
