"""``bin/bench``: measure a cluster, with a table, percentiles and a progress bar."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fileserver.bench import load as loads
from fileserver.bench.figures import PERCENTILES, Figures, figures_of
from fileserver.bench.load import Kind, Load, Outcome
from fileserver.bench.local import NotReady, local_servers
from fileserver.cli.common import CONTEXT_SETTINGS, AddressList, fail
from fileserver.config import Address

messages = Console(stderr=True)


@click.command(context_settings=CONTEXT_SETTINGS)
@click.argument("kind", type=click.Choice([kind.value for kind in Kind]), default=Kind.WRITE.value)
@click.option("--clients", type=click.IntRange(1, 100_000), default=64, show_default=True, help="Connections.")
@click.option(
    "--pipeline",
    type=click.IntRange(1, 10_000),
    default=1,
    show_default=True,
    help="Requests in flight of each client.",
)
@click.option("--size", type=click.IntRange(0, 1 << 26), default=256, show_default=True, help="Bytes of a content.")
@click.option("--files", type=click.IntRange(1, 10_000_000), default=10_000, show_default=True, help="Different names.")
@click.option("--secs", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="How long to measure.")
@click.option(
    "--servers",
    type=AddressList(),
    metavar="HOST:PORT,...",
    help="Servers to spread the clients over. Without it a cluster is started on this machine for the time.",
)
@click.option("--nodes", type=click.IntRange(1, 100), default=5, show_default=True, help="Servers of that cluster.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where that cluster keeps its data; default: a temporary directory. It makes a difference on which disk.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object rather than a table.")
def main(
    kind: str,
    clients: int,
    pipeline: int,
    size: int,
    files: int,
    secs: float,
    servers: tuple[Address, ...] | None,
    nodes: int,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Measure how fast a cluster serves: KIND is write (the default), read, or mixed (80 % reads).

    Each client sends its next request when a reply has come, over one connection, so this shows what that many
    clients get when none of them waits. A latency is the time from sending a request to having read its whole reply.
    """
    try:
        with cluster_to_measure(servers, nodes, directory) as addresses:
            load = Load(
                servers=addresses,
                kind=Kind(kind),
                clients=clients,
                in_flight=pipeline,
                size_bytes=size,
                files=files,
                seconds=secs,
            )
            outcome = measure(load)
    except NotReady as error:
        fail(str(error), 1)
    except OSError as error:
        fail(error.strerror or str(error), 1)
    rows = {name: figures_of(each, outcome.seconds) for name, each in outcome.latencies_us.items() if each}
    if as_json:
        print(json.dumps(to_json(load, outcome, rows), indent=1))
    else:
        show(load, outcome, rows)
    sys.exit(1 if outcome.errors else 0)


@contextmanager
def cluster_to_measure(
    servers: tuple[Address, ...] | None, nodes: int, directory: Path | None
) -> Iterator[tuple[Address, ...]]:
    """The servers given, or those of a cluster that is there for the time of a ``with`` block."""
    if servers:
        yield servers
        return
    with tempfile.TemporaryDirectory(prefix="quintet-bench-") as temporary:
        messages.print(f"starting {nodes} servers ...", style="dim")
        with local_servers(nodes, directory or Path(temporary) / "data") as addresses:
            yield addresses


def measure(load: Load) -> Outcome:
    """Fill the files if they are to be read, then load the cluster with a progress bar for those who watch."""
    if load.kind is not Kind.WRITE:
        messages.print(f"writing {load.files:,} files ...", style="dim")
        filled = loads.fill(load)
        if filled.errors:
            fail(f"the files couldn't be written: {dict(filled.errors)}", 1)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        task = bar.add_task(load.kind.value, total=load.seconds, rate="")

        def progress(seconds: float, operations: int) -> None:
            rate = f"{operations / seconds:,.0f}/s" if seconds > 0.5 else ""
            bar.update(task, completed=min(seconds, load.seconds), rate=rate)

        return loads.run(load, progress)


def to_json(load: Load, outcome: Outcome, rows: dict[str, Figures]) -> dict[str, object]:
    """All that was measured, and under what load."""
    return {
        "kind": load.kind.value,
        "clients": load.clients,
        "pipeline": load.in_flight,
        "size_bytes": load.size_bytes,
        "files": load.files,
        "servers": [str(address) for address in load.servers],
        "seconds": round(outcome.seconds, 3),
        "errors": dict(outcome.errors),
        "results": {name: row.to_json() for name, row in rows.items()},
    }


def show(load: Load, outcome: Outcome, rows: dict[str, Figures]) -> None:
    """Print a table: a row for each kind of operation, latencies in milliseconds."""
    title = f"{load.clients} clients, {load.in_flight} in flight each, {load.size_bytes} bytes, {outcome.seconds:.1f} s"
    names = [f"p{percent:g} ms" for percent in PERCENTILES]
    table = Table("", "operations", "per second", *names, "max ms", title=title, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        latencies = [f"{value / 1000:.2f}" for value in (*row.percentiles_us.values(), row.max_us)]
        table.add_row(name, f"{row.operations:,}", f"{row.per_second:,.0f}", *latencies)
    console = Console()
    console.print(table)
    for what, count in outcome.errors.items():
        console.print(f"{count:,} x {what}", style="red", markup=False)


if __name__ == "__main__":
    main(prog_name="bin/bench")
