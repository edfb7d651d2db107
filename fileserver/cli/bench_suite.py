"""``bin/bench suite``: many loads on a fresh cluster, how the cost grows, and the tables of docs/performance.md."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs
import click
from rich.table import Table

from fileserver.bench.cases import CASES, READ_64, WRITE_64, CaseResult
from fileserver.bench.ceilings import measure_ceilings
from fileserver.bench.growth import GROWTH, Wishes, fresh_cluster, measure_cases
from fileserver.bench.results import SuiteResults, TextTable
from fileserver.cli.bench_output import check_writable, messages, wide_console
from fileserver.cli.common import CONTEXT_SETTINGS, FiniteRange
from fileserver.pages import write_part

OTHER_COUNTS = (3, 7)
OTHER_COUNTS_NAME = "other-counts"
NAMES = (*(case.name for case in CASES), *GROWTH, OTHER_COUNTS_NAME)


class Names(click.ParamType[tuple[str, ...]]):
    """``write-64,memory,...`` on the command line."""

    name = "name,..."

    def __init__(self, known: Sequence[str]) -> None:
        """Those that there are."""
        self._known = known

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:  # called by click
        """The names, or a usage error."""
        if isinstance(value, tuple):
            return value
        words = tuple(word.strip() for word in str(value).split(",") if word.strip())
        unknown = [word for word in words if word not in self._known]
        if unknown or not words:
            self.fail(f"{unknown[0] if unknown else ''!r} is none of {', '.join(self._known)}", param, ctx)
        return words


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--secs", type=FiniteRange(min=0.1), default=3.0, show_default=True, help="How long each round of each takes."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Medians are of so many.")
@click.option(
    "--only", type=Names(NAMES), metavar="NAME,...", help=f"Which of {', '.join(NAMES)}.  [default: all of these]"
)
@click.option("--servers-count", type=click.IntRange(1, 99), default=5, show_default=True, help="Servers.")
@click.option("--write", "page", type=click.Path(path_type=Path, dir_okay=False), help="Put the tables into that page.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures there.")
def suite(
    secs: float,
    rounds: int,
    only: tuple[str, ...] | None,
    servers_count: int,
    page: Path | None,
    json_file: Path | None,
) -> None:
    """Measure many loads on a fresh cluster of this machine, and how the cost grows.

    First come loads of 256-byte contents under 10,000 names: of so many clients, connected to the leader unless the
    name says any-server; -pipelined has 16 requests in flight for each, mixed has 80 % reads. Then what is to cost
    little more: files, snapshots, idle connections, no load at all, memory, the leader's death; each against a limit.
    At last three and seven servers. Beside each load stands how near it comes to one server alone, without a disk.

    Everything is on this machine, the load generator included, so the figures are those of a machine shared by all
    servers. Exit status 1 if there were errors or a limit wasn't kept.
    """
    check_writable(page, json_file)
    wishes = Wishes(secs, rounds, servers_count, lambda line: messages.print(f"{line} ...", style="dim"))
    results = _measure(only or NAMES, wishes)
    for table in results.tables().values():
        wide_console().print(as_rich_table(table))
    if page is not None:
        _write(page, results, only, wishes)
    if json_file is not None:
        json_file.write_text(json.dumps(results.to_json(), indent=1) + "\n", encoding="utf-8")
    sys.exit(0 if results.is_good() else 1)


def _measure(names: tuple[str, ...], wishes: Wishes) -> SuiteResults:
    """Measure what is named. Raises NotReady, ProcessGone, OSError."""
    measured: tuple[CaseResult, ...] = ()
    ceilings: tuple[CaseResult, ...] = ()
    cases = tuple(case for case in CASES if case.name in names)
    if cases:
        with fresh_cluster(wishes.servers) as cluster:
            measured = tuple(measure_cases(cluster, cases, wishes))
        ceilings = tuple(measure_ceilings(wishes.seconds, wishes.tell, cases))
    growth = [result for name, measure in GROWTH.items() if name in names for result in measure(wishes)]
    others: list[CaseResult] = []
    for count in OTHER_COUNTS if OTHER_COUNTS_NAME in names else ():
        with fresh_cluster(count) as cluster:
            results = measure_cases(cluster, (WRITE_64, READ_64), wishes)
        others += [attrs.evolve(result, name=f"{result.name}, {count} servers") for result in results]
    return SuiteResults(wishes.servers, measured, tuple(growth), tuple(others), ceilings)


def as_rich_table(text_table: TextTable) -> Table:
    """The table as a terminal shows it; what isn't kept is red."""
    table = Table(title=text_table.title, box=None)
    for place, name in enumerate(text_table.header):
        table.add_column(name, justify="left" if place < text_table.left else "right")
    for row in text_table.rows:
        table.add_row(*row, style="red" if row[-1].startswith("NOT") else None)
    return table


def _write(page: Path, results: SuiteResults, only: tuple[str, ...] | None, wishes: Wishes) -> None:
    """Put the tables into a page, each with the command that made it."""
    command = f"bin/bench suite --secs {wishes.seconds:g} --rounds {wishes.rounds}"
    command += f" --servers-count {wishes.servers}" + (f" --only {','.join(only)}" if only else "")
    where = f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores"
    made = f"`{command}`, {datetime.now(tz=UTC):%Y-%m-%d}, {where}:"
    for name, table in results.tables().items():
        write_part(page, name, f"{made}\n\n{table.markdown()}")
