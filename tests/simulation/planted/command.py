"""The command that looks for all bugs, and its table."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from fileserver.pages import begin_mark, end_mark, write_part
from fileserver.simulation.workers import workers
from tests.simulation.planted.bug import Bug
from tests.simulation.planted.catalogue import BUGS
from tests.simulation.planted.findings import Finding, record
from tests.simulation.planted.search import SEEDS_MAX, fails_with, find

PART = "planted bugs"
BEGIN = begin_mark(PART)
END = end_mark(PART)
MEDIAN_MAX = 50
messages = Console(stderr=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, metavar="TEXT", help="Only bugs with that in their name; may be repeated.")
@click.option("--seeds", type=click.IntRange(1), default=SEEDS_MAX, show_default=True, help="Seeds tried, at most.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
@click.option("--write", "page", type=click.Path(dir_okay=False, path_type=Path), help="Put the table into that page.")
@click.option("--record", "keeps", is_flag=True, help="Keep what was found, for the tests to begin with.")
def main(only: tuple[str, ...], seeds: int, jobs: int, page: Path | None, keeps: bool) -> None:
    """Plant each of the bugs in memory, look for it from seed 1 on, and print what found it.

    Only in a checkout: the bugs are a part of the tests. Exit status 1 if a bug wasn't found, or if half of them
    took more than 50 seeds.
    """
    bugs = [bug for bug in BUGS.values() if not only or any(part in bug.name for part in only)]
    if not bugs:
        raise click.UsageError(f"--only: no bug has {' or '.join(map(repr, only))} in its name")
    begun = time.monotonic()
    found = dict(zip((bug.name for bug in bugs), look_for(bugs, seeds, jobs), strict=True))
    counts = [finding.seed for finding in found.values() if finding is not None and finding.seed]
    missed = [name for name, finding in found.items() if finding is None]
    median = statistics.median(counts) if counts else 0.0
    summary = (
        f"{len(bugs)} planted bugs: {len(counts)} found by the simulator, {len(bugs) - len(counts) - len(missed)} by a"
        f" named test, {len(missed)} not found. Seeds needed: median {median:g}, at most {max(counts, default=0)}."
    )
    _show(bugs, found)
    messages.print(f"{time.monotonic() - begun:.0f} s", style="dim")
    click.echo(summary)
    if page is not None:
        write(page, f"{summary}\n\n{as_markdown(bugs, found)}")
    if keeps:
        record({name: finding for name, finding in found.items() if finding is not None})
    sys.exit(1 if missed or median > MEDIAN_MAX else 0)


def look_for(bugs: list[Bug], seeds: int, jobs: int) -> list[Finding | None]:
    """What found each of them, in their order."""
    with workers(jobs) as pool:
        results = []
        for bug, finding in zip(bugs, pool.map(_look_for, [(bug.name, seeds) for bug in bugs]), strict=True):
            messages.print(f"{bug.name}: {_how(finding)}", highlight=False, soft_wrap=True)
            results.append(finding)
        return results


def _look_for(task: tuple[str, int]) -> Finding | None:
    name, seeds = task
    bug = BUGS[name]
    return find(bug, 1, seeds) if bug.test is None else fails_with(bug)


def _how(finding: Finding | None) -> str:
    if finding is None:
        return "not found"
    return f"{finding.kind} with seed {finding.seed}" if finding.seed else finding.kind


def _show(bugs: list[Bug], found: dict[str, Finding | None]) -> None:
    table = Table("bug", "known from", "seeds", "found by", box=None, padding=(0, 1, 0, 0))
    for bug in bugs:
        finding = found[bug.name]
        seeds = str(finding.seed) if finding is not None and finding.seed else ""
        table.add_row(bug.name, bug.source, seeds, _short(finding), style=None if finding is not None else "red")
    Console().print(table)


def _short(finding: Finding | None, length: int = 90) -> str:
    """What found it, in a few words: numbers of servers and entries stay, the rest of a long text goes."""
    if finding is None:
        return "NOTHING"
    if not finding.seed:
        return finding.kind
    text = f"{finding.kind}: {finding.what}"
    return text if len(text) <= length else text[: length - 3] + "..."


def as_markdown(bugs: list[Bug], found: dict[str, Finding | None]) -> str:
    """The table, for a page."""
    lines = ["| bug | what is wrong | known from | seeds | found by |", "|---|---|---|---|---|"]
    for bug in bugs:
        finding = found[bug.name]
        seeds = str(finding.seed) if finding is not None and finding.seed else ""
        cells = (bug.name, bug.story, bug.source, seeds, f"`{_short(finding)}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def write(page: Path, text: str) -> None:
    """Put a text between its marks in a page; a page that has none gets them at its end."""
    write_part(page, PART, text)
