"""``bin/crash_images``: what may a crash leave, and does storage cope? With a table of what was tried."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fileserver.simulation.workers import workers
from tests.crash_images.judge import Wrong
from tests.crash_images.plan import CASES, FULL, SAMPLE, Effort, Row, added, run_flips, run_lives, run_scenario
from tests.crash_images.scenarios import SCENARIOS

LIVES_PER_TASK = 10
FLIP_PARTS = 16
LIVES = "lives made up by dice"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--sample", is_flag=True, help="Only what every run of the tests does.")
@click.option(
    "--what", type=click.Choice(["all", "crashes", "flips"]), default="all", show_default=True, help="Of the two parts."
)
@click.option("--only", multiple=True, metavar="TEXT", help="Only rows with that in their name; may be repeated.")
@click.option("--images", type=click.IntRange(1), help="At most so many images at each operation of a scenario.")
@click.option("--lives", type=click.IntRange(0), help="How many lives made up by dice.")
@click.option("--seed", type=int, default=1, show_default=True, help="For another choice of images.")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Processes.")
def main(
    sample: bool,
    what: str,
    only: tuple[str, ...],
    images: int | None,
    lives: int | None,
    seed: int,
    workers: int,
) -> None:
    """Record what storage does to its disk, make what crashes may leave of it, and open each of these images.

    Then change single bytes of logs, snapshots, hard states and clocks. Exit status 0: everything acknowledged was
    found, nothing else was, and damage was refused; 1: a line says what was found instead, and in which image.
    """
    effort = attrs.evolve(SAMPLE if sample else FULL, seed=seed)
    if images is not None:
        effort = attrs.evolve(effort, images_per_boundary=images)
    if lives is not None:
        effort = attrs.evolve(effort, lives=lives)
    started_at = time.monotonic()
    tasks = [*(flip_tasks(effort) if what != "crashes" else ()), *(crash_tasks(effort) if what != "flips" else ())]
    tasks = [task for task in tasks if not only or any(part in task.row for part in only)]
    if only and not tasks:
        raise click.UsageError(f"--only: no row has {' or '.join(map(repr, only))} in its name")
    rows, failures = run_tasks(tasks, workers)
    show(rows, time.monotonic() - started_at)
    for failure in failures:
        click.echo(failure, err=True)
    sys.exit(1 if failures else 0)


@attrs.frozen
class Task:
    """Something to be run in a process of its own; tasks of one row are summed up."""

    row: str
    run: Callable[..., Row]
    arguments: tuple[object, ...]
    options: dict[str, int] = attrs.Factory(dict)


def crash_tasks(effort: Effort) -> list[Task]:
    """All scenarios and lives."""
    lives = [
        range(first, min(first + LIVES_PER_TASK, effort.lives)) for first in range(0, effort.lives, LIVES_PER_TASK)
    ]
    return [
        *(Task(name, run_scenario, (name, effort)) for name in SCENARIOS),
        *(Task(LIVES, run_lives, (seeds, effort)) for seeds in lives),
    ]


def flip_tasks(effort: Effort) -> list[Task]:
    """All cases, in parts."""
    return [
        Task(f"{name}, flipped", run_flips, (name, effort), {"part": part, "parts": FLIP_PARTS})
        for name in CASES
        for part in range(FLIP_PARTS)
    ]


def run_tasks(tasks: list[Task], jobs: int) -> tuple[dict[str, Row], list[str]]:
    """Returns the rows by name, and what went wrong."""
    done: dict[str, list[Row]] = {}
    failures: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with (
        workers(jobs) as pool,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        shown = bar.add_task("images and flips", total=len(tasks))
        futures: list[tuple[Task, Future[Row]]] = [
            (task, pool.submit(task.run, *task.arguments, **task.options)) for task in tasks
        ]
        for task, future in futures:
            try:
                done.setdefault(task.row, []).append(future.result())
            except Wrong as error:
                failures.append(f"{task.row}: {error}")
            bar.advance(shown)
    return {name: added(name, rows) for name, rows in done.items()}, failures


def show(rows: dict[str, Row], seconds: float) -> None:
    """Print the table."""
    titles = ("boundaries", "images", "recovered", "torn", "in recovery", "refused")
    table = Table("", *titles, box=None, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column is table.columns[0] else "right"
    crashes = [row for row in rows.values() if row.digests]
    damaged = [row for row in rows.values() if not row.digests]
    for title, group in (("crash images", crashes), ("changed bytes", damaged)):
        if not group:
            continue
        total = added(f"all {title}", group)
        for row in [*group, total]:
            counts = (row.boundaries, row.images, row.recovered, row.torn, row.in_recovery, row.refused)
            table.add_row(row.name, *(f"{count:,}" for count in counts), style="bold" if row is total else "")
    console = Console()
    console.print(table)
    console.print(
        f"{seconds:.0f} s. A boundary is an operation on the disk, or a byte of a file. torn: of those recovered, with"
        " the rest of a save that was dropped; in recovery: left by a crash in the recovery from another image;"
        " refused: rightly, since what was acknowledged was damaged.",
        style="dim",
    )


if __name__ == "__main__":
    main(prog_name="bin/crash_images")
