"""``bin/fs``: the client for people and scripts, a thin layer on :mod:`fileserver.client`.

What a script needs comes out plainly: a file's bytes as they are, a version as a number, a list as the protocol
gives it. Tables are for terminals.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from fileserver import client as library
from fileserver.cli.common import CONTEXT_SETTINGS, AddressList, FiniteRange, fail
from fileserver.client import Client
from fileserver.config import Address

DEFAULT_SERVERS = tuple(Address("127.0.0.1", port) for port in range(8080, 8085))
EXIT_STATUS: dict[type[library.ClientError], int] = {
    library.NoSuchFileError: 1,
    library.BadRequestError: 2,
    library.VersionError: 3,
    library.NotAppliedError: 4,
    library.OutcomeUnknownError: 5,
    library.ProtocolError: 5,
}


@contextmanager
def connected(context: click.Context) -> Iterator[Client]:
    """A client of the servers that the command line names; what goes wrong becomes one line and an exit status."""
    servers: tuple[Address, ...] = context.obj["servers"]
    try:
        with Client(servers, timeout_seconds=context.obj["timeout"]) as client:
            yield client
    except library.ClientError as error:
        fail(str(error), EXIT_STATUS[type(error)])
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@click.group(
    context_settings=CONTEXT_SETTINGS,
    epilog="Exit status: 0 done; 1 no such file; 2 wrong usage, or a request that was refused as malformed; 3 the "
    "file has another version; 4 no server carried it out, nothing was changed; 5 it isn't known whether it was done.",
)
@click.option(
    "--servers",
    type=AddressList(),
    envvar="QUINTET_SERVERS",
    default=DEFAULT_SERVERS,
    metavar="HOST:PORT,...",
    help="Servers to talk to, the first that works; by default (or QUINTET_SERVERS) those of bin/start_cluster.",
)
@click.option(
    "--timeout",
    type=FiniteRange(min=0.1),
    default=library.DEFAULT_TIMEOUT_SECONDS,
    show_default=True,
    help="Seconds.",
)
@click.pass_context
def main(context: click.Context, servers: tuple[Address, ...], timeout: float) -> None:
    """Read and change the files of a cluster."""
    if not servers:
        raise click.UsageError("--servers names no server")
    context.obj = {"servers": servers, "timeout": timeout}


EXPIRES = click.option(
    "--expires", type=click.IntRange(min=0), default=0, metavar="SECONDS", help="From now; 0, the default, is never."
)
CONTENT = click.argument("content", required=False)


def content_bytes(content: str | None) -> bytes:
    """The content given on the command line, or else all of standard input."""
    return sys.stdin.buffer.read() if content is None or content == "-" else os.fsencode(content)


@main.command()
@click.argument("name")
@click.pass_context
def read(context: click.Context, name: str) -> None:
    """Print a file's content, as it is."""
    with connected(context) as client:
        sys.stdout.buffer.write(client.read(os.fsencode(name)).content)
        sys.stdout.buffer.flush()


@main.command()
@click.argument("name")
@CONTENT
@EXPIRES
@click.pass_context
def write(context: click.Context, name: str, content: str | None, expires: int) -> None:
    """Write a file and print its version. Without CONTENT (or with -) it is read from standard input."""
    with connected(context) as client:
        print(client.write(os.fsencode(name), content_bytes(content), expires_in_seconds=expires))


@main.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=0))
@CONTENT
@EXPIRES
@click.pass_context
def cas(context: click.Context, name: str, version: int, content: str | None, expires: int) -> None:
    """Write a file if it has VERSION (0: if there is none), and print its new version."""
    with connected(context) as client:
        print(client.cas(os.fsencode(name), version, content_bytes(content), expires_in_seconds=expires))


@main.command()
@click.argument("name")
@CONTENT
@click.option(
    "--expires", type=click.IntRange(min=0), metavar="SECONDS", help="From now; 0 is never. Default: it stays as it is."
)
@click.pass_context
def append(context: click.Context, name: str, content: str | None, expires: int | None) -> None:
    """Add to the end of a file, which is created if need be, and print its version."""
    with connected(context) as client:
        print(client.append(os.fsencode(name), content_bytes(content), expires_in_seconds=expires))


@main.command()
@click.argument("name")
@click.argument("version", type=click.IntRange(min=0), required=False)
@click.pass_context
def delete(context: click.Context, name: str, version: int | None) -> None:
    """Delete a file, if it has VERSION where one is given."""
    with connected(context) as client:
        client.delete(os.fsencode(name), version)


@main.command()
@click.argument("name")
@click.argument("seconds", type=click.IntRange(min=0))
@click.pass_context
def touch(context: click.Context, name: str, seconds: int) -> None:
    """Have a file expire in SECONDS from now, or never if that is 0. Contents and version stay."""
    with connected(context) as client:
        print(client.touch(os.fsencode(name), seconds))


@main.command()
@click.argument("name")
@click.pass_context
def stat(context: click.Context, name: str) -> None:
    """Print a file's version, size in bytes, and seconds until it expires (0: never)."""
    with connected(context) as client:
        file = client.stat(os.fsencode(name))
        print(file.version, file.size_bytes, file.expires_in_seconds)


@main.command(name="list")
@click.argument("prefix", default="")
@click.pass_context
def list_files(context: click.Context, prefix: str) -> None:
    """List the files whose names begin with PREFIX: a table on a terminal, else a line each.

    Such a line is: name, version, size in bytes, seconds until it expires (0: never).
    """
    with connected(context) as client:
        files = client.list(os.fsencode(prefix))
        if not sys.stdout.isatty():
            lines = [b"%s %d %d %d\n" % attributes_of(file) for file in files]
            sys.stdout.buffer.write(b"".join(lines))
            sys.stdout.buffer.flush()
            return
    table = Table("name", *NUMBER_COLUMNS, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for file in files:
        expires = f"in {file.expires_in_seconds} s" if file.expires_in_seconds else "never"
        table.add_row(file.name.decode("utf-8", "replace"), str(file.version), f"{file.size_bytes:,}", expires)
    Console().print(table)


NUMBER_COLUMNS = ("version", "bytes", "expires")


def attributes_of(file: library.ListedFile) -> tuple[bytes, int, int, int]:
    """What a line of a list says, in its order."""
    return file.name, file.version, file.size_bytes, file.expires_in_seconds


@main.command()
@click.option("--json", "as_json", is_flag=True, help="The status of the first server that answers, as it gives it.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show what each server says of itself, or, with --json, all that one of them says."""
    if as_json:
        with connected(context) as client:
            print(json.dumps(client.status(), indent=1))
        return
    rows = [(address, status_of(address)) for address in context.obj["servers"]]
    # Where it goes to a file or a pipe, no width of a window is a reason to shorten it.
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(status_table(rows))
    if all(isinstance(row, str) for _, row in rows):
        sys.exit(EXIT_STATUS[library.NotAppliedError])


def status_of(address: Address) -> dict[str, Any] | str:
    """What that server says, or why it doesn't."""
    try:
        with Client([address], timeout_seconds=1.0) as client:
            return client.status()
    except library.ClientError as error:
        return str(error).removeprefix(f"{address}: ")


PIPE_WIDTH = 200
STATUS_COLUMNS = ("id", "role", "leader", "term", "commit_index", "applied_index", "version", "files", "bytes")


def status_table(rows: list[tuple[Address, dict[str, Any] | str]]) -> Table:
    """A row for each server."""
    table = Table("server", *(name.replace("_index", "") for name in STATUS_COLUMNS), box=None)
    table.columns[0].no_wrap = True
    for column in table.columns[3:]:
        column.justify = "right"
    for address, row in rows:
        if isinstance(row, str):
            table.add_row(str(address), "-", f"[red]{row}[/red]")
            continue
        cells = [row.get(name) for name in STATUS_COLUMNS]
        table.add_row(str(address), *("-" if cell is None else str(cell) for cell in cells))
    return table


if __name__ == "__main__":
    main(prog_name="bin/fs")
