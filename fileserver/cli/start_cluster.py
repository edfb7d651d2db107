"""``bin/start_cluster``: a whole cluster on this machine, in the foreground."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import trio

from fileserver import stop_requests, supervisor
from fileserver.cli.common import CONTEXT_SETTINGS, fail
from fileserver.config import ClusterConfig, ConfigError, local_cluster

DEFAULT_NODES = 5
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--nodes", type=click.IntRange(1, 100), help=f"How many servers.  [default: {DEFAULT_NODES}]")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default="data",
    show_default=True,
    help="Where everything is kept.",
)
@click.option("--port", type=click.IntRange(1, 65535), help=f"Of the first server.  [default: {DEFAULT_PORT}]")
@click.option("--host", help=f"The address to listen on.  [default: {DEFAULT_HOST}]")
def main(nodes: int | None, directory: Path, port: int | None, host: str | None) -> None:
    """Start a cluster of file servers on this machine, one process each, and stay in the foreground.

    Server i, from 1, has the client port PORT+i-1, the HTTP port PORT+100+i-1 and the peer port PORT+1000+i-1. A line
    that begins "cluster ready" says that all of them serve. SIGINT (^C) or SIGTERM stops them cleanly; a second one,
    more than a second later, at once. If this program itself is killed by SIGKILL, they run on.

    The same --dir again brings the data back; what isn't given then is as it was. A server that dies is reported and
    not restarted: bin/fileserver does that. DIR/cluster.json is the configuration, DIR/server-i/server.log server i's
    log, and DIR/server-i/pid its process id.
    """
    try:
        config = supervisor.prepare(directory, supervisor.Wishes(nodes, host, port), new_cluster)
        with stop_requests.until_over() as over:
            status = trio.run(supervisor.supervise, config, directory, report, over)
    except (supervisor.Unusable, ConfigError) as error:
        fail(str(error))
    sys.exit(status)


def new_cluster(wishes: supervisor.Wishes) -> ClusterConfig:
    """The configuration of a cluster that has no data yet."""
    nodes = DEFAULT_NODES if wishes.nodes is None else wishes.nodes
    host = DEFAULT_HOST if wishes.host is None else wishes.host
    port = DEFAULT_PORT if wishes.port is None else wishes.port
    return local_cluster(nodes=nodes, host=host, port=port)


def report(line: str) -> None:
    """Say something to whoever watches, at once also when that is a pipe."""
    print(line, flush=True)


if __name__ == "__main__":
    main(prog_name="bin/start_cluster")
