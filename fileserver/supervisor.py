"""Runs a whole cluster on one machine: what ``bin/start_cluster`` does.

Theory of operation: one child process per server, each in a session of its own, so that a ^C at the terminal reaches
the supervisor alone and it decides how the servers end. A child writes its own log and its own process id; what it
says on its standard streams (a traceback, before its log is open) goes to the same log file.

Nothing is started before everything that can be checked has been: the directory, the stored configuration, and all
ports. A server that dies is reported and not started again: ``bin/fileserver`` does that, and so a test that
kills a server finds it dead.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from fileserver import pidfile, ports, stop_requests
from fileserver.config import Address, ClusterConfig, ServerConfig, load_config
from fileserver.processes import module_command

CONFIG_NAME = "cluster.json"
POLL_SECONDS = 0.05
PROBE_SECONDS = 2.0
SLOW_START_SECONDS = 20.0
STOP_SECONDS = 20.0
"""A server that takes longer than that to stop is killed."""
_STATUS_BYTES_MAX = 16 * 1024 * 1024

Report = Callable[[str], None]


class Unusable(Exception):
    """The cluster can't be started as asked. The text is one line."""


@attrs.frozen(slots=True)
class Wishes:
    """What the command line asks for, which has to agree with what the directory has, if it has anything."""

    nodes: int | None
    host: str | None
    port: int | None


def prepare(directory: Path, wishes: Wishes, make: Callable[[Wishes], ClusterConfig]) -> ClusterConfig:
    """Find or make the cluster's configuration in a directory, having checked that it can be started.

    Args:
        directory: is made if need be.
        wishes: None in it means whatever the directory says.
        make: makes the configuration where the directory has none.

    Raises:
        Unusable: the directory or an address can't be used, or the wishes are at odds with the stored configuration.
        ConfigError: the stored configuration or the wished one is unsound.
    """
    path = directory / CONFIG_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_stored = path.exists()
    except FileExistsError:
        raise Unusable(f"{directory}: is not a directory") from None
    except OSError as error:
        raise Unusable(f"{directory}: {error.strerror or error}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Unusable(f"{directory}: can't be written to")
    config = load_config(path) if is_stored else make(wishes)
    if is_stored:
        _check_agreement(path, config, wishes)
    for server in config.servers:
        try:
            pidfile.check_not_held(server_directory(directory, server) / "pid")
        except pidfile.AlreadyRunning as error:
            raise Unusable(f"server {server.server_id} of this cluster is running already: {error}") from error
        except OSError as error:
            raise Unusable(f"{error.filename}: {error.strerror or error}") from error
    try:
        ports.check_free(pair for server in config.servers for pair in ports.addresses_of(server))
    except ports.AddressUnusable as error:
        raise Unusable(str(error)) from error
    try:
        if not is_stored:
            _write_durably(path, config.to_json())
        for server in config.servers:
            server_directory(directory, server).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unusable(f"{error.filename or directory}: {error.strerror or error}") from error
    return config


def _check_agreement(path: Path, stored: ClusterConfig, wishes: Wishes) -> None:
    """Refuse to start another cluster than the one whose data is there."""
    if wishes.nodes is not None and wishes.nodes != len(stored.servers):
        raise Unusable(f"{path}: this cluster has {len(stored.servers)} servers, not {wishes.nodes}")
    first = stored.servers[0].client
    if wishes.port is not None and wishes.port != first.port:
        raise Unusable(f"{path}: this cluster's first port is {first.port}, not {wishes.port}")
    if wishes.host is not None and wishes.host != first.host:
        raise Unusable(f"{path}: this cluster's host is {first.host}, not {wishes.host}")


def _write_durably(path: Path, text: str) -> None:
    """Write a file so that after a crash it is there as a whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def server_directory(directory: Path, server: ServerConfig) -> Path:
    """Where a server of the cluster keeps its files."""
    return directory / f"server-{server.server_id}"


# ------------------------------------------------------------------------------------------- running


async def supervise(config: ClusterConfig, directory: Path, report: Report, over: Callable[[], None]) -> int:
    """Run all servers until SIGINT, SIGTERM or SIGHUP stops them, or until none is left.

    Args:
        config: as `prepare` returned it.
        directory: the cluster's.
        report: is given each line for people.
        over: is called once nothing is left to be stopped.

    Returns:
        The exit status: 0 after a clean stop that was asked for, 1 when no server was left, or one had to be killed.
    """
    cluster = _Cluster(config, directory, report)
    wanted = [*stop_requests.STOP_SIGNALS]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is ignored under nohup, and has to stay so
        wanted.append(signal.SIGHUP)
    with trio.open_signal_receiver(*wanted) as signals:
        try:
            async with trio.open_nursery() as nursery:
                for server in config.servers:
                    await cluster.start(server, nursery)
                nursery.start_soon(cluster.announce_when_ready)
                nursery.start_soon(cluster.until_none_is_left, nursery.cancel_scope)
                await anext(signals)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                is_clean = await cluster.stop(signals)
                over()
    return 0 if is_clean else 1


class _Cluster:
    """The processes of a cluster."""

    def __init__(self, config: ClusterConfig, directory: Path, report: Report) -> None:
        self._config = config
        self._directory = directory
        self._report = report
        self._processes: dict[int, trio.Process] = {}
        self._all_ended = trio.Event()
        self._is_stopping = False

    async def start(self, server: ServerConfig, nursery: trio.Nursery) -> None:
        """Start the process of one server."""
        place = server_directory(self._directory, server)
        config_file = self._directory / CONFIG_NAME
        command = [*module_command("fileserver.cli.fileserver"), "--config", str(config_file)]
        command += ["--id", str(server.server_id), "--dir", str(self._directory)]
        log_file = os.open(place / "server.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file, start_new_session=True
            )
        finally:
            os.close(log_file)
        self._processes[server.server_id] = process
        nursery.start_soon(self._watch, server, process)

    async def _watch(self, server: ServerConfig, process: trio.Process) -> None:
        """Say so when a server ends by itself."""
        status = await process.wait()
        log_file = server_directory(self._directory, server) / "server.log"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
        else:
            how = f"ended with exit status {status}: {_last_line(log_file)}" if status else "ended"
        self._report(
            f"server {server.server_id} {how}; to start it again: "
            f"bin/fileserver --config {self._directory / CONFIG_NAME} --id {server.server_id}"
        )
        if all(each.returncode is not None for each in self._processes.values()):
            self._all_ended.set()

    async def until_none_is_left(self, scope: trio.CancelScope) -> None:
        """Give up when there is nothing left to supervise."""
        await self._all_ended.wait()
        self._report("no server is left")
        scope.cancel()

    async def announce_when_ready(self) -> None:
        """Say ``cluster ready`` once every server names the same leader and all ports accept."""
        started_at = trio.current_time()
        slow_at = started_at + SLOW_START_SECONDS
        while True:
            statuses = await self._statuses()
            obstacle = obstacle_to_ready(statuses)
            if obstacle is None:
                obstacle = await self._closed_port()
            if obstacle is None:
                break
            if trio.current_time() >= slow_at:
                self._report(f"not ready after {trio.current_time() - started_at:.0f} s: {obstacle}")
                slow_at = math.inf
            await trio.sleep(POLL_SECONDS)
        first = self._config.servers[0]
        leader = statuses[first.server_id]["leader"]
        clients = " ".join(str(server.client) for server in self._config.servers)
        self._report(f"cluster ready after {trio.current_time() - started_at:.1f} s: {clients} (server {leader} leads)")

    async def _statuses(self) -> dict[int, dict[str, Any]]:
        """What each server says of itself; nothing from those that don't answer."""
        statuses: dict[int, dict[str, Any]] = {server.server_id: {} for server in self._config.servers}

        async def ask(server: ServerConfig) -> None:
            statuses[server.server_id] = await ask_status(server.client)

        async with trio.open_nursery() as nursery:
            for server in self._config.servers:
                nursery.start_soon(ask, server)
        return statuses

    async def _closed_port(self) -> str | None:
        """The first HTTP or peer port that doesn't accept."""
        for server in self._config.servers:
            for purpose, address in ports.addresses_of(server)[1:]:
                with trio.move_on_after(PROBE_SECONDS):
                    try:
                        stream = await trio.open_tcp_stream(address.host, address.port)
                    except OSError:
                        return f"the {purpose} doesn't accept"
                    await trio.aclose_forcefully(stream)
        return None

    async def stop(self, signals: AsyncIterator[int]) -> bool:
        """Ask every server to stop; kill those that take too long, or all when somebody asks again.

        Returns:
            Whether any server was there to be stopped, and all of them stopped cleanly.
        """
        left = {number: each for number, each in self._processes.items() if each.returncode is None}
        is_clean = bool(left)
        if left:
            self._report("stopping")
        for process in left.values():
            process.terminate()

        async def kill_at_signal() -> None:
            await stop_requests.same_wish(signals)
            async for _ in signals:
                for process in left.values():
                    process.kill()

        async def reap(server_id: int, process: trio.Process) -> None:
            with trio.move_on_after(STOP_SECONDS):
                await process.wait()
            if process.returncode is None:
                self._report(f"server {server_id} didn't stop within {STOP_SECONDS:.0f} s and is killed")
                process.kill()
            status = await process.wait()
            if status not in (0, -signal.SIGTERM):  # The latter is what becomes of one that hasn't begun to serve yet.
                nonlocal is_clean
                is_clean = False
                self._report(f"server {server_id} ended with status {status}")

        async with trio.open_nursery() as outer:
            outer.start_soon(kill_at_signal)
            async with trio.open_nursery() as inner:
                for number, process in left.items():
                    inner.start_soon(reap, number, process)
            outer.cancel_scope.cancel()
        return is_clean


def obstacle_to_ready(statuses: Mapping[int, Mapping[str, Any]]) -> str | None:
    """Why a cluster is not ready, by what its servers say of themselves; None when it is."""
    for server_id, status in statuses.items():
        if not status:
            return f"server {server_id} doesn't answer"
        if status.get("leader") is None:
            return f"server {server_id} knows no leader"
    if len({(status["leader"], status.get("term")) for status in statuses.values()}) > 1:
        return "the servers don't agree on a leader"
    return None


async def ask_status(address: Address) -> dict[str, Any]:
    """A server's status over its client port; an empty one if it gives none."""
    with trio.move_on_after(PROBE_SECONDS):
        try:
            async with await trio.open_tcp_stream(address.host, address.port) as stream:
                await stream.send_all(b"status\r\nquit\r\n")
                received = bytearray()
                async for chunk in stream:
                    received += chunk
                    if len(received) > _STATUS_BYTES_MAX:
                        return {}
        except (OSError, trio.BrokenResourceError):
            return {}
        head, _, rest = bytes(received).partition(b"\r\n")
        word, _, size = head.partition(b" ")
        if word == b"STATUS" and size.isdigit():
            try:
                status = json.loads(rest[: int(size)])
            except ValueError:
                return {}
            return status if isinstance(status, dict) else {}
    return {}


def _last_line(log_file: Path) -> str:
    """The last line of a log, which mostly says what happened."""
    try:
        with log_file.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return f"see {log_file}"
    return lines[-1] if lines else "its log is empty"
