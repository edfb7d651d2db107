"""``bin/fuzz``: fuzz the readers of bytes, with a progress line for each, or replay an input that was found."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fileserver.cli.common import FiniteRange
from tests.fuzzing.judging import replay
from tests.fuzzing.targets import TARGETS
from tests.fuzzing.worker import Task, atheris_is_there

_INPUTS_DEFAULT = 100_000
ALL = "all"
WORKER = "tests.fuzzing.worker"
"""The module that is run in each process."""

messages = Console(stderr=True)


@attrs.define
class Row:
    """What has become of one target, over all jobs that fuzz it."""

    target: str
    reports: dict[str, dict[str, Any]] = attrs.Factory(dict)
    """The last report of each job, by its seed."""
    failures: list[str] = attrs.Factory(list)
    """Jobs that died."""

    def total(self, key: str) -> int:
        """The sum over the jobs."""
        return sum(report[key] for report in self.reports.values())

    def most(self, key: str) -> float:
        """The highest of the jobs."""
        values: list[float] = [report[key] for report in self.reports.values()]
        return max(values, default=0.0)

    @property
    def findings(self) -> list[str]:
        """A line for each."""
        return [line for report in self.reports.values() for line in report["findings"]] + self.failures

    @property
    def per_second(self) -> float:
        """Inputs of all jobs in a second."""
        rates: list[float] = [each["inputs_count"] / max(each["seconds"], 0.001) for each in self.reports.values()]
        return sum(rates)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("name", metavar="TARGET", type=click.Choice([*TARGETS, ALL]))
@click.option(
    "--inputs",
    "inputs_count",
    type=click.IntRange(1),
    help=f"How many inputs, for each target.  [default: {_INPUTS_DEFAULT}, unless --minutes is given]",
)
@click.option("--minutes", type=FiniteRange(min=0, min_open=True), help="How long, for each target.")
@click.option("--seed", default=1, show_default=True, help="The same seed, inputs and jobs run the same inputs.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes at a time.")
@click.option(
    "--engine",
    type=click.Choice(["own", "atheris"]),
    help="What chooses the inputs. Default: atheris if it can be imported, else our own loop.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("fuzz-findings"),
    show_default=True,
    help="Where the inputs of findings are kept.",
)
@click.option(
    "--replay", "replayed", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Run this input."
)
def main(
    name: str,
    inputs_count: int | None,
    minutes: float | None,
    seed: int,
    jobs: int,
    engine: str | None,
    directory: Path,
    replayed: Path | None,
) -> None:
    """Feed TARGET, a reader of bytes, with inputs of which most are almost right.

    A finding is an exception that the target doesn't declare, a broken invariant, more than 50 ms of CPU for one
    input, or more memory than twice the input plus 1 MB. Its input is kept in a file; --replay runs that again. The
    exit status is 1 if there is any.
    """
    if replayed is not None:
        sys.exit(_replay(name, replayed))
    if inputs_count is None and minutes is None:
        inputs_count = _INPUTS_DEFAULT
    if engine == "atheris" and not atheris_is_there():
        raise click.UsageError("--engine atheris: install it first (.venv/bin/python -m pip install atheris)")
    engine = engine or ("atheris" if atheris_is_there() else "own")
    names = list(TARGETS) if name == ALL else [name]
    tasks = [
        Task(
            target=each,
            seed=f"{seed}.{job}",
            inputs_count=None
            if inputs_count is None
            else inputs_count * (job + 1) // jobs - inputs_count * job // jobs,
            seconds=None if minutes is None else minutes * 60,
            engine=engine,
            directory=str(directory.resolve()),
        )
        for each in names
        for job in range(jobs)
    ]
    rows = _run_all([task for task in tasks if task.inputs_count != 0], jobs)
    _show(list(rows.values()), engine)
    sys.exit(1 if any(row.findings for row in rows.values()) else 0)


def _replay(name: str, path: Path) -> int:
    """Runs one input and says what is wrong with it; returns the exit status."""
    if name == ALL:
        raise click.UsageError("--replay needs the one TARGET that the input is for")
    findings = replay(TARGETS[name], path.read_bytes())
    for finding in findings:
        click.echo(f"{finding.kind.value}: {finding.place}\n{finding.text}")
    if not findings:
        click.echo(f"{path}: nothing wrong")
    return 1 if findings else 0


def _run_all(tasks: list[Task], jobs: int) -> dict[str, Row]:
    """Runs each task in a process of its own, so many at a time."""
    rows = {task.target: Row(task.target) for task in tasks}
    columns = (
        *(TextColumn("{task.description:<10}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}")),
        TimeElapsedColumn(),
    )
    lock = threading.Lock()
    with Progress(*columns, console=messages, disable=not messages.is_terminal) as bar:
        lines: dict[str, TaskID] = {}
        for target in rows:
            wanted = [task for task in tasks if task.target == target]
            total = sum(task.inputs_count or task.seconds or 0.0 for task in wanted)
            lines[target] = bar.add_task(target, total=total, state="", start=False)

        def run(task: Task) -> None:
            row = rows[task.target]
            bar.start_task(lines[task.target])
            for report in _reports_of(task, row):
                with lock:
                    row.reports[task.seed] = report
                    done = row.total("inputs_count" if task.inputs_count is not None else "seconds")
                    bar.update(lines[task.target], completed=done, state=_state(row))

        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(run, tasks):
                pass
    return rows


def _reports_of(task: Task, row: Row) -> Any:
    """Starts a worker; its reports as they come."""
    command = [sys.executable, "-m", WORKER, json.dumps(attrs.asdict(task))]
    root = Path(__file__).resolve().parent.parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode:
        row.failures.append(f"the worker with seed {task.seed} ended with status {process.returncode}")


def _state(row: Row) -> str:
    findings = f", [red]{len(row.findings)} findings[/red]" if row.findings else ""
    return (
        f"{row.total('inputs_count'):,} inputs, {row.per_second:,.0f}/s, corpus {row.total('corpus_count')},"
        f" {row.most('lines_count'):.0f} lines{findings}"
    )


def _show(rows: list[Row], engine: str) -> None:
    """A table, the findings, and a last line that sums up."""
    console = Console()
    if not console.is_terminal:
        console.width = 120
    names = ("inputs", "seconds", "inputs/s", "corpus", "lines", "memory measured", "slowest ms", "findings")
    table = Table("target", *names, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.target,
            f"{row.total('inputs_count'):,}",
            f"{row.most('seconds'):.1f}",
            f"{row.per_second:,.0f}",
            f"{row.total('corpus_count'):,}",
            f"{row.most('lines_count'):.0f}",
            f"{row.total('weighed_count'):,}",
            f"{row.most('slowest_us') / 1000:.1f}",
            f"{len(row.findings)}",
        )
    console.print(table)
    for row in rows:
        for line in row.findings:
            console.print(f"{row.target}: {line}", style="red", markup=False, soft_wrap=True)
    inputs_count = sum(row.total("inputs_count") for row in rows)
    findings_count = sum(len(row.findings) for row in rows)
    click.echo(f"{len(rows)} targets, {inputs_count:,} inputs ({engine}): {findings_count or 'no'} findings")


if __name__ == "__main__":
    main(prog_name="bin/fuzz")
