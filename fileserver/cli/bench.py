"""``bin/bench``: measure a cluster, and show how it went: a line while it runs, then a table, JSON, a picture."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from fileserver.bench import generator, plot
from fileserver.bench.cpu import ProcessGone
from fileserver.bench.load import READ_PERCENT_MIXED, Load
from fileserver.bench.local import NotReady, local_servers, temporary_directory
from fileserver.bench.outcome import Outcome
from fileserver.bench.sampling import CannotSample
from fileserver.cli.bench_output import ProgressLine, check_writable, describe, messages, show, to_json
from fileserver.cli.bench_profile import profile
from fileserver.cli.bench_steps import steps
from fileserver.cli.bench_suite import suite
from fileserver.cli.common import CONTEXT_SETTINGS, AddressList, FiniteRange, fail
from fileserver.config import Address

PROGRAM = "bin/bench"
EXIT_BAD = 1
DEFAULT_NODES = 5
_OTHERS = {"suite": suite, "steps": steps, "profile": profile}
_READ_PERCENTS = {"write": 0, "read": 100, "mixed": READ_PERCENT_MIXED}


def main(arguments: Sequence[str] | None = None, prog_name: str | None = None) -> None:
    """Measure one load; or by a word in front many of them, what they consist of, or where the servers' time goes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = prog_name or Path(sys.argv[0]).name
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # It is ignored under nohup, and has to stay so.
        signal.signal(signal.SIGHUP, _end)
    with readable_errors():
        if arguments and arguments[0] in _OTHERS:
            _OTHERS[arguments[0]].main(list(arguments[1:]), prog_name=f"{name} {arguments[0]}")
        else:
            measure_one.main(list(arguments), prog_name=name)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    """End as at ^C, so that a cluster of our own is ended too."""
    raise KeyboardInterrupt


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the program in one line for what can go wrong outside of it."""
    try:
        yield
    except (NotReady, ProcessGone, CannotSample) as error:
        fail(str(error), EXIT_BAD)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        fail(f"{name}{error.strerror or error}", EXIT_BAD)


@click.command(context_settings=CONTEXT_SETTINGS)
@click.argument("kind", type=click.Choice(list(_READ_PERCENTS)), required=False)
@click.option(
    "--read-percent",
    type=click.IntRange(0, 100),
    help=f"How many requests of a mixed load are reads.  [default: {READ_PERCENT_MIXED}]",
)
@click.option("--clients", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Connections.")
@click.option(
    "--pipeline",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Requests in flight of each client; with --rate, the most that may be.",
)
@click.option(
    "--rate",
    type=FiniteRange(min=0, min_open=True, max=10_000_000),
    metavar="PER_SECOND",
    help="Open loop: so many requests become due in a second, whatever the replies do. Latencies count from then.",
)
@click.option("--size", type=click.IntRange(0, 1 << 26), default=256, show_default=True, help="Bytes of a content.")
@click.option("--files", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True, help="Different names.")
@click.option(
    "--warm",
    type=FiniteRange(min=0),
    default=1.0,
    show_default=True,
    help="Seconds under load before measuring; only their errors count.",
)
@click.option("--secs", type=FiniteRange(min=0.1), default=10.0, show_default=True, help="How long to measure.")
@click.option(
    "--servers",
    type=AddressList(),
    metavar="HOST:PORT,...",
    help="Servers to spread the clients over. Without it a cluster is started on this machine for the time.",
)
@click.option("--nodes", type=click.IntRange(1, 100), help=f"Servers of that cluster.  [default: {DEFAULT_NODES}]")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where that cluster keeps its data, which stays there; default: a temporary directory, which goes. It makes a "
    "difference on which disk.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object rather than a table.")
@click.option("--json-file", type=click.Path(path_type=Path, dir_okay=False), help="Write that object to a file.")
@click.option(
    "--plot",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.svg",
    help="Draw throughput and latency over time.",
)
def measure_one(
    kind: str | None,
    read_percent: int | None,
    clients: int,
    pipeline: int,
    rate: float | None,
    size: int,
    files: int,
    warm: float,
    secs: float,
    servers: tuple[Address, ...] | None,
    nodes: int | None,
    directory: Path | None,
    as_json: bool,
    json_file: Path | None,
    picture: Path | None,
) -> None:
    """Measure how fast a cluster serves: KIND is write (the default), read, or mixed.

    Closed loop, without --rate: each client sends its next request when a reply has come, over one connection, so this
    shows what that many clients get when none of them waits. A latency is the time from sending a request to having
    its whole reply.

    Open loop, with --rate: requests become due at fixed times, and the next client that is free sends them; --clients
    times --pipeline of them can be under way. A latency is the time from when a request was due, its wait for a free
    client included, as in wrk2: so a server that stalls is charged for all that it kept waiting (no coordinated
    omission). If the rate isn't reached, that is said.

    The files of a load with reads are written first, as bench/0, bench/1 and so on. Exit status 1 if there were errors.

    "suite" in place of KIND measures many loads in a row, "steps" what they consist of, "profile" where the servers'
    time goes: see bin/bench suite --help and so on.
    """
    kind = kind or ("write" if read_percent is None else "mixed")
    if read_percent is not None and kind != "mixed":
        raise click.UsageError(f"--read-percent is for mixed loads, and this one is {kind}")
    if servers is not None and not servers:
        raise click.UsageError("--servers names no server")
    if servers and (nodes is not None or directory is not None):
        raise click.UsageError("--nodes and --dir are for a cluster of its own, and --servers names another one")
    check_writable(json_file, picture)
    load = Load(
        servers=servers or (),
        read_percent=_READ_PERCENTS[kind] if read_percent is None else read_percent,
        clients=clients,
        in_flight=pipeline,
        rate=rate,
        size_bytes=size,
        files=files,
        warm_seconds=warm,
        seconds=secs,
    )
    if servers:
        outcome = measure(load, ())
    else:
        load, outcome = measure_own_cluster(load, nodes or DEFAULT_NODES, directory)
    document = json.dumps(to_json(kind, load, outcome), indent=1)
    if as_json:
        print(document)
    else:
        show(kind, load, outcome)
    if json_file is not None:
        json_file.write_text(document + "\n", encoding="utf-8")
    if picture is not None:
        picture.write_text(plot.draw(outcome.points(), f"bench {kind}", describe(load)), encoding="utf-8")
    sys.exit(EXIT_BAD if outcome.errors or not outcome.operations else 0)


def measure_own_cluster(load: Load, nodes: int, directory: Path | None) -> tuple[Load, Outcome]:
    """Measure a cluster that is there for the time; gives the load with its addresses."""
    with temporary_directory() as temporary:
        messages.print(f"starting {nodes} servers ...", style="dim")
        with local_servers(nodes, directory or temporary / "data") as cluster:
            load = load.at(cluster.addresses)
            return load, measure(load, cluster.pids)


def measure(load: Load, pids: Sequence[int]) -> Outcome:
    """Fill the files if they are to be read, then load the cluster, with a line for those who watch."""
    if load.read_percent:
        messages.print(f"writing {load.files:,} files ...", style="dim")
        with ProgressLine(messages) as line:
            filled = generator.fill(load, line.update)
        if filled.errors:
            what, count = filled.errors.most_common(1)[0]
            fail(f"the files to be read couldn't be written: {count:,} x {what}", EXIT_BAD)
    with ProgressLine(messages, load.seconds) as line:
        return generator.run(load, line.update, pids)


if __name__ == "__main__":
    main(prog_name=PROGRAM)
