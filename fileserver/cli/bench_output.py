"""What ``bin/bench`` shows: a line that renews itself, a table, a JSON object."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.table import Table

from fileserver.bench.figures import PERCENTILES, Figures
from fileserver.bench.load import Load
from fileserver.bench.outcome import INTERVAL_US, Outcome, point_of

SHOW_EVERY_SECONDS = 0.5
PLAIN_EVERY_SECONDS = 5.0
RECENT_INTERVALS = 10
BUSY_MAX = 0.9
PLAIN_WIDTH = 160

messages = Console(stderr=True)


class ProgressLine:
    """Shows what the last second was like: in one line at a terminal, else in a line every few seconds.

    Written by hand, since what draws progress bars costs milliseconds each time, and would show in the latencies.
    """

    def __init__(self, console: Console, seconds: float = float("inf")) -> None:
        """Of a measurement that takes so long."""
        self._is_live = console.is_terminal
        self._stream = console.file if self._is_live else sys.stderr
        self._seconds = seconds
        self._every = SHOW_EVERY_SECONDS if self._is_live else PLAIN_EVERY_SECONDS
        self._next = 0.0 if self._is_live else PLAIN_EVERY_SECONDS

    def __enter__(self) -> ProgressLine:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave no trace at a terminal."""
        if self._is_live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def update(self, outcome: Outcome, seconds: float) -> None:
        """It has come to that, so many seconds after the measurement began."""
        if seconds < 0:
            if self._is_live:
                self._write(f"warming up, {-seconds:.1f} s")
        elif seconds >= self._next:
            self._next = seconds + self._every
            self._write(self._text(outcome, seconds))

    def _text(self, outcome: Outcome, seconds: float) -> str:
        if seconds > self._seconds:
            return f"waiting for the last replies, {seconds - self._seconds:.1f} s"
        recent = outcome.intervals[-RECENT_INTERVALS - 1 : -1]  # the last one has just begun
        of = f" of {self._seconds:g}" if self._seconds != float("inf") else ""
        if not recent:
            return f"{seconds:.1f}{of} s"
        now = point_of(0, recent, len(recent) * INTERVAL_US)
        return (
            f"{seconds:.1f}{of} s: {now.per_second:,.0f} op/s, p99 {now.p99_us / 1000:.2f} ms, "
            f"{outcome.errors.total():,} errors"
        )

    def _write(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}" if self._is_live else f"{text}\n")
        self._stream.flush()


def check_writable(*files: Path | None) -> None:
    """Find out before the measurement that its result couldn't be written. Raises OSError."""
    for file in files:
        if file is not None:
            with file.open("a", encoding="utf-8"):
                pass


def wide_console() -> Console:
    """Standard output, as wide as the tables where nobody says how wide it is."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def describe(load: Load) -> str:
    """A load in a line."""
    parts = [
        f"{load.clients} clients",
        f"{load.in_flight} in flight each",
        f"{load.read_percent} % reads",
        f"{load.size_bytes:,} bytes",
        f"{load.files:,} names",
        f"{load.rate:,g} requests due a second" if load.rate is not None else "closed loop",
        f"{len(load.servers)} server{'s' if len(load.servers) > 1 else ''}",
    ]
    return ", ".join(parts)


def to_json(kind: str, load: Load, outcome: Outcome) -> dict[str, object]:
    """All that was measured, and under what load."""
    server_us = outcome.server_us_per_operation()
    return {
        "kind": kind,
        "read_percent": load.read_percent,
        "clients": load.clients,
        "pipeline": load.in_flight,
        "rate": load.rate,
        "size_bytes": load.size_bytes,
        "files": load.files,
        "servers": [str(address) for address in load.servers],
        "warm_seconds": load.warm_seconds,
        "seconds": round(outcome.seconds, 3),
        "errors": dict(outcome.errors),
        "unsent": outcome.unsent,
        "longest_gap_us": outcome.longest_gap_us,
        "server_cpu_us_per_operation": None if server_us is None else round(server_us, 2),
        "generator_cpu_us_per_operation": round(outcome.generator_us_per_operation(), 2),
        "total": outcome.figures().to_json(),
        "results": {name: figures.to_json() for name, figures in outcome.figures_by_kind().items()},
        "series": [point.to_json() for point in outcome.points()],
    }


def show(kind: str, load: Load, outcome: Outcome) -> None:
    """Print a table: a row for each kind of operation, latencies in milliseconds; and what else there is to say."""
    console = wide_console()
    names = [f"p{percent:g} ms" for percent in PERCENTILES]
    table = Table("", "operations", "per second", *names, "max ms", title=f"{kind}: {describe(load)}", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = outcome.figures_by_kind()
    if len(rows) > 1:
        rows["all"] = outcome.figures()
    for name, figures in rows.items():
        table.add_row(name, *cells(figures))
    console.print(table)
    for line in remarks(load, outcome):
        console.print(line, highlight=False, markup=False)
    for what, count in outcome.errors.items():
        console.print(f"{count:,} x {what}", style="red", markup=False)


def cells(figures: Figures) -> list[str]:
    """A row of the table."""
    latencies = [f"{value / 1000:.2f}" for value in (*figures.percentiles_us.values(), figures.max_us)]
    return [f"{figures.operations:,}", f"{figures.per_second:,.0f}", *latencies]


def remarks(load: Load, outcome: Outcome) -> list[str]:
    """What has no place in the table."""
    lines = []
    server_us = outcome.server_us_per_operation()
    if server_us is not None:
        lines.append(f"processor time of the servers, all together: {server_us:.1f} us per operation")
    if not outcome.operations:
        return ["nothing was answered as it should be"]
    own_us = outcome.generator_us_per_operation()
    busy = outcome.generator_cpu_us / 1e6 / outcome.seconds
    lines.append(f"processor time of this program: {own_us:.1f} us per operation, {busy:.0%} of a core")
    if busy > BUSY_MAX:
        lines.append("this program may be what limits the throughput: more of it in parallel would tell")
    if load.rate is not None:
        reached = outcome.figures().per_second
        lines.append(f"rate: {load.rate:,g} a second were due, {reached:,.0f} a second were answered")
        if outcome.unsent:
            lines.append(
                f"NOT reached: {outcome.unsent:,} requests were due and couldn't be sent, as no client was free"
            )
    return lines
