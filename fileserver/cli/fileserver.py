"""``bin/fileserver``: one server in the foreground, of a cluster or alone.

Exit status: 0 after SIGINT or SIGTERM; 2 with one line when it can't be started as asked (options, configuration, an
address in use, a directory that is not this server's, a server that runs already); 1 with one line when its data
is damaged or its disk fails.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import structlog
import trio

from fileserver import logs, pidfile, ports, stop_requests
from fileserver.alone import serve_alone
from fileserver.cli.common import CONTEXT_SETTINGS, EXIT_UNUSABLE, fail
from fileserver.config import Address, ClusterConfig, ConfigError, load_config
from fileserver.server import serve
from raftnode.disk_health import DirectoryInUse, StorageError, WrongDirectory

EXIT_DAMAGED = 1
ALONE_AT = Address("127.0.0.1", 8080)
Serve = Callable[..., Awaitable[object]]
log = structlog.get_logger()


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="cluster.json, or a list of servers.")
@click.option("--id", "server_id", type=int, metavar="N", help="Which of its servers to run.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Its files go in DIR/server-N, or in DIR itself if that is called server-N. Default: where the config is.",
)
@click.option("--alone", is_flag=True, help="Serve one store in memory, without a cluster and without a disk.")
@click.option("--host", help=f"With --alone: the address to listen on.  [default: {ALONE_AT.host}]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"With --alone: the client port.  [default: {ALONE_AT.port}]"
)
def main(
    config_file: Path | None,
    server_id: int | None,
    directory: Path | None,
    alone: bool,
    host: str | None,
    port: int | None,
) -> None:
    """Run one file server in the foreground.

    Either a server of a cluster, by --config and --id, or, by --alone, one that needs no others. The first kind logs
    to server.log among its files, and to standard error if that is a terminal; the second to standard error, and it
    has no HTTP port.
    """
    if alone:
        if config_file is not None or server_id is not None or directory is not None:
            raise click.UsageError("--alone goes without --config, --id and --dir")
        run_alone(ALONE_AT.host if host is None else host, ALONE_AT.port if port is None else port)
    elif config_file is None or server_id is None:
        raise click.UsageError("--config and --id are needed (or --alone)")
    elif host is not None or port is not None:
        raise click.UsageError("--host and --port go with --alone; a cluster's addresses are in its configuration")
    else:
        try:
            config = load_config(config_file)
            check_has_server(config, server_id, config_file)
        except ConfigError as error:
            fail(str(error))
        run_member(config, server_id, server_directory(config_file, directory, server_id))


def check_has_server(config: ClusterConfig, server_id: int, config_file: Path) -> None:
    """Raise a ConfigError that names the file if the cluster has no such server."""
    try:
        config.server(server_id)
    except ConfigError as error:
        raise ConfigError(error.key, error.why, source=str(config_file)) from error


def server_directory(config_file: Path, directory: Path | None, server_id: int) -> Path:
    """Where the files of that server go."""
    name = f"server-{server_id}"
    if directory is not None and directory.absolute().name == name:
        return directory
    return (config_file.absolute().parent if directory is None else directory) / name


def run_alone(host: str, port: int) -> None:
    """Serve one store until told to stop."""
    with logs.configure(None, to_stderr=True, context={}):
        try:
            ports.check_free([("client port", Address(host, port))])
        except ports.AddressUnusable as error:
            fail(str(error))
        with stop_requests.until_over() as over:
            end_with(trio.run(until_stopped, over, serve_alone, host, port))


def run_member(config: ClusterConfig, server_id: int, directory: Path) -> None:
    """Serve as that server of the cluster until told to stop."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (
            pidfile.held(directory / "pid"),
            logs.configure(directory / "server.log", to_stderr=sys.stderr.isatty(), context={"server": server_id}),
            stop_requests.until_over() as over,
        ):
            ports.check_free(ports.addresses_of(config.server(server_id)))
            end_with(trio.run(until_stopped, over, serve, config, server_id, directory))
    except pidfile.AlreadyRunning as error:
        fail(f"server {server_id} is running already: {error}")
    except ports.AddressUnusable as error:
        fail(str(error))
    except OSError as error:
        fail(f"{directory}: {error.strerror or error}")


async def until_stopped(over: Callable[[], None], serve_it: Serve, *arguments: object) -> tuple[str, int] | None:
    """Serve until SIGINT or SIGTERM, then give the server the time that it takes to stop cleanly.

    Whoever asks again (:mod:`fileserver.stop_requests`) ends the process at once.

    Args:
        over: is called once nothing is left to be stopped.
        serve_it: what serves, as a task that reports when it does.
        arguments: its arguments.

    Returns:
        None after a clean stop; else why it could not serve, in one line, and the exit status for that.
    """
    outcome: tuple[str, int] | None = None
    try:
        async with trio.open_nursery() as watching:
            async with trio.open_nursery() as nursery:
                watching.start_soon(_cancel_at_signal, nursery.cancel_scope)
                await nursery.start(serve_it, *arguments)
                log.info("serving", pid=os.getpid())
            over()
            watching.cancel_scope.cancel()
    except* StorageError as group:
        error = _first(group)
        misused = isinstance(error, DirectoryInUse | WrongDirectory)
        outcome = (str(error), EXIT_UNUSABLE if misused else EXIT_DAMAGED)
    except* ConfigError as group:
        outcome = (str(_first(group)), EXIT_UNUSABLE)
    except* OSError as group:
        os_error = _first(group)
        where = f"{os_error.filename}: " if isinstance(os_error, OSError) and os_error.filename else ""
        outcome = (f"{where}{getattr(os_error, 'strerror', None) or os_error}", EXIT_UNUSABLE)
    if outcome is None:
        log.info("stopped")
    else:
        log.error("can't serve", why=outcome[0])
    return outcome


async def _cancel_at_signal(scope: trio.CancelScope) -> None:
    """Cancel the server at the first signal. What comes when that is over does again what it does by default."""
    with trio.open_signal_receiver(*stop_requests.STOP_SIGNALS) as signals:
        number = await anext(signals)
        log.info("stopping", signal=signal.Signals(number).name)
        scope.cancel()
        await stop_requests.same_wish(signals)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error that is no group itself: what people need to be told."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def end_with(outcome: tuple[str, int] | None) -> None:
    """End the process as `until_stopped` says."""
    if outcome is not None:
        fail(*outcome)


if __name__ == "__main__":
    main(prog_name="bin/fileserver")
