"""``bin/bench profile``: where the servers' time goes."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from fileserver.bench.cases import CASES
from fileserver.bench.profile_results import CaseProfile, markdown, sections, times_table
from fileserver.bench.sampling import Wishes, profile_cases
from fileserver.cli.bench_output import check_writable, messages, wide_console
from fileserver.cli.bench_suite import Names, as_rich_table
from fileserver.cli.common import CONTEXT_SETTINGS, FiniteRange
from fileserver.pages import write_part

NAMES = tuple(case.name for case in CASES)
DEFAULT_NAMES = ("write-64", "read-64", "write-64-pipelined", "write-64-16KiB", "mixed-64-any-server")
PART = "profile"
EXIT_BAD = 1


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--cases",
    "names",
    type=Names(NAMES),
    metavar="NAME,...",
    default=",".join(DEFAULT_NAMES),
    show_default=True,
    help=f"Which of {', '.join(NAMES)}.",
)
@click.option(
    "--secs", type=FiniteRange(min=0.1), default=10.0, show_default=True, help="How long to sample each case."
)
@click.option("--servers-count", type=click.IntRange(1, 99), default=5, show_default=True, help="Servers.")
@click.option(
    "--rate",
    type=click.IntRange(1, 1000),
    metavar="HZ",
    default=100,
    show_default=True,
    help="Samples in a second, of each of the two servers; more of them slow these down.",
)
@click.option("--write", "page", type=click.Path(path_type=Path, dir_okay=False), help="Put the tables into that page.")
@click.option("--json-file", type=click.Path(path_type=Path, dir_okay=False), help="Write all stacks to a file.")
def profile(
    names: tuple[str, ...], secs: float, servers_count: int, rate: int, page: Path | None, json_file: Path | None
) -> None:
    """Show where the servers' time goes under load: by functions, and as a tree of calls (a flame graph as text).

    A cluster is started on this machine. Under each load py-spy, one of the development tools, samples the leader and
    the follower that works most. The shares are of those samples in which the server's main thread ran; what was sent
    to the system counts for the function that called it. The cases are those of bin/bench suite.

    Exit status 1 if there were errors.
    """
    check_writable(page, json_file)
    chosen = tuple(case for case in CASES if case.name in names)
    wishes = Wishes(secs, servers_count, rate, lambda line: messages.print(f"{line} ...", style="dim"))
    results = profile_cases(chosen, wishes)
    _show(results)
    if page is not None:
        command = "bin/bench profile" + (f" --cases {','.join(names)}" if names != DEFAULT_NAMES else "")
        command += f" --secs {secs:g} --servers-count {servers_count} --rate {rate}"
        where = f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores"
        made = f"`{command}`, {datetime.now(tz=UTC):%Y-%m-%d}, {where}:"
        write_part(page, PART, f"{made}\n\n{markdown(results)}")
    if json_file is not None:
        document = {"seconds": secs, "rate_hz": rate, "cases": [result.to_json() for result in results]}
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.exit(EXIT_BAD if any(result.errors or not result.per_second for result in results) else 0)


def _show(results: list[CaseProfile]) -> None:
    console = wide_console()
    console.print(as_rich_table(times_table(results)))
    for section in sections(results):
        console.rule(section.title)
        console.print(as_rich_table(section.functions))
        for line in section.tree:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
