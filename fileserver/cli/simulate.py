"""``bin/simulate``: whole clusters under faults, each from one seed, and the story of any of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fileserver.cli.common import CONTEXT_SETTINGS, FiniteRange, fail
from fileserver.simulation import settings
from fileserver.simulation.campaign import Totals, campaign, run_bounded
from fileserver.simulation.diagram import draw
from fileserver.simulation.options import FaultKind
from fileserver.simulation.recording import Recording
from fileserver.simulation.run import Failure, Outcome, Trial, run
from fileserver.simulation.settings import BadSetting, Value
from fileserver.simulation.shrink import Search
from fileserver.simulation.story import Story, Topic

EXIT_BAD = 1
EXIT_INTERRUPTED = 130
PLAIN_EVERY_SECONDS = 10.0
SEED_MAX = (1 << 63) - 1

messages = Console(stderr=True)


class Topics(click.ParamType[tuple[Topic, ...]]):
    """``faults,leaders,...`` on the command line."""

    name = "topic,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Topic, ...]:  # called by click
        """The topics, or a usage error."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(Topic(word.strip()) for word in str(value).split(","))
        except ValueError as error:
            self.fail(f"{error}: there are {', '.join(topic.value for topic in Topic)}", param, ctx)


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option("--seeds", type=click.IntRange(1), default=300, show_default=True, help="How many runs.")
@click.option("--first-seed", type=click.IntRange(0, SEED_MAX), default=0, show_default=True, help="Seed of the first.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Only the run of this seed.")
@click.option(
    "--seconds",
    type=FiniteRange(0.1, 1e6),
    default=60.0,
    show_default=True,
    help="Simulated seconds with faults; then all is healed and must come to rest.",
)
@click.option("--jobs", type=click.IntRange(1, 1_000), help="Processes.  [default: one for each core]")
@click.option("--servers", type=int, help="Servers, rather than what the seed draws; so with what follows.")
@click.option("--clients", type=int, help="Clients.")
@click.option("--faults", metavar="KIND,...", help=f"Which of {', '.join(kind.value for kind in FaultKind)}; or none.")
@click.option("--loss", type=FiniteRange(min=0), help="How many of the messages are lost, 0 to 1.")
@click.option(
    "--options",
    "text",
    metavar="'NAME=VALUE ...'",
    default="",
    help=f"Whatever else is not to be drawn: {', '.join(settings.SETTINGS)}.",
)
@click.option("--shrink", is_flag=True, help="Make the first run that fails as small as it can be.")
@click.option("--trace", is_flag=True, help="Tell what happened in the run of --seed, line by line.")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Draw the run of --seed.")
@click.option("--trace-from", type=FiniteRange(0), help="Tell or draw from this millisecond on.")
@click.option("--trace-to", type=FiniteRange(0), help="Tell or draw up to this millisecond.")
@click.option(
    "--only",
    type=Topics(),
    metavar="TOPIC,...",
    help=f"Tell of these: {', '.join(topic.value for topic in Topic)}.  [default: all]",
)
def main(
    seeds: int,
    first_seed: int,
    seed: int | None,
    seconds: float,
    jobs: int | None,
    servers: int | None,
    clients: int | None,
    faults: str | None,
    loss: float | None,
    text: str,
    shrink: bool,
    trace: bool,
    page: Path | None,
    trace_from: float | None,
    trace_to: float | None,
    only: tuple[Topic, ...] | None,
) -> None:
    """Run whole clusters under faults in simulated time, each of them from one seed, and judge all that happens.

    The code is the one that serves; network, disks, clocks and clients are simulated. Faults, options and load are
    drawn from the seed. Exit status 1 if anything was wrong: then a line is printed that repeats the run.

    In a checkout, bin/simulate --bugs plants known bugs in that code, one after the other, and looks for each.
    """
    tells = trace or page is not None
    if seed is None and tells:
        raise click.UsageError("--trace and --html are for one run: name it with --seed")
    if not tells and (trace_from, trace_to, only) != (None, None, None):
        raise click.UsageError("--trace-from, --trace-to and --only go with --trace or --html")
    if trace_to is not None and trace_to < (trace_from or 0):
        raise click.UsageError("--trace-to is before --trace-from")
    values = values_of(text, {"servers": servers, "clients": clients, "faults": faults, "loss": loss})
    first = Trial(seed=first_seed if seed is None else seed, duration_us=round(seconds * 1e6), values=values)
    try:
        first.scenario()
    except BadSetting as error:
        raise click.UsageError(str(error)) from error
    totals = Totals()
    try:
        if seed is None:
            run_many(first, seeds, jobs or len(os.sched_getaffinity(0)), totals)
        elif tells:
            to_us = None if trace_to is None else round(trace_to * 1_000)
            totals.add(run_one(first, trace, page, only or tuple(Topic), round((trace_from or 0) * 1_000), to_us))
        else:
            totals.add(run_bounded(first))
        if seed is not None and totals.failed:
            show_failure(totals.failed[0])
        if shrink:
            show_smallest(totals)
    except KeyboardInterrupt:
        messages.print("interrupted")
        print(f"{totals.by_kind()}\n{totals}")
        sys.exit(EXIT_INTERRUPTED)
    print(f"{totals.by_kind()}\n{totals}")
    sys.exit(EXIT_BAD if totals.failed else 0)


def values_of(text: str, shortcuts: dict[str, object]) -> dict[str, Value]:
    """The settings given as one text, and those given as options of their own."""
    own = " ".join(f"{name}={value}" for name, value in shortcuts.items() if value is not None)
    try:
        return settings.parse(f"{text} {own}")
    except BadSetting as error:
        raise click.UsageError(str(error)) from error


def replay_line(trial: Trial) -> str:
    """What repeats a run."""
    return f"bin/simulate {trial}"


def show_failure(outcome: Outcome) -> None:
    """The reason, and the line that repeats it."""
    print(f"seed {outcome.trial.seed} failed {outcome.failure}")
    print(replay_line(outcome.trial), flush=True)


# ------------------------------------------------------------------------------------------ many runs


def run_many(first: Trial, seeds: int, jobs: int, totals: Totals) -> None:
    """Run as many seeds from the first one on; failures are shown as they come."""
    trials = (
        Trial(seed=seed, duration_us=first.duration_us, values=first.values)
        for seed in range(first.seed, first.seed + seeds)
    )
    with Screen(seeds) as screen:
        for outcome in campaign(trials, min(jobs, seeds)):
            totals.add(outcome)
            if outcome.failure is not None:
                with screen.aside():
                    show_failure(outcome)
            screen.progress(totals)


class Screen:
    """A progress bar, or a line every few seconds where nobody could see one."""

    def __init__(self, seeds: int) -> None:
        self._seeds = seeds
        columns = (
            TextColumn("seeds"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal)
        self._task = self._bar.add_task("", total=seeds, figures="")
        self._plain_at = time.monotonic() + PLAIN_EVERY_SECONDS

    def __enter__(self) -> Screen:
        """Begin to show."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show no more."""
        self._bar.stop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make place for other lines."""
        self._bar.stop()
        yield
        self._bar.start()

    def progress(self, totals: Totals) -> None:
        """So far it has come to that."""
        figures = (
            f"{totals.simulated_us / 3.6e9:.1f} h, {totals.faults.total():,} faults, {totals.operations:,} operations, "
            f"{totals.speed:.0f} s/s" + (f", {len(totals.failed)} FAILED" if totals.failed else "")
        )
        self._bar.update(self._task, completed=totals.seeds, figures=figures)
        if not messages.is_terminal and time.monotonic() >= self._plain_at and totals.seeds < self._seeds:
            self._plain_at = time.monotonic() + PLAIN_EVERY_SECONDS
            messages.print(f"{totals.seeds} of {self._seeds} seeds: {figures}", style="dim", highlight=False)


# ------------------------------------------------------------------------------------------ one run


def run_one(
    trial: Trial, trace: bool, page: Path | None, topics: tuple[Topic, ...], from_us: int, to_us: int | None
) -> Outcome:
    """Run it, and tell or draw it."""
    scenario = trial.scenario()
    outcome: Outcome | None = None
    if trace:
        print(f"{replay_line(trial)}\n{settings.show(settings.values_of(scenario))}")
        outcome = run(trial, Story(print, topics, from_us, to_us))
    if page is not None:
        recording = Recording(from_us, to_us)
        outcome = run(trial, recording)
        recording.finish(outcome.simulated_us)
        title = replay_line(trial) + (f": {outcome.failure}" if outcome.failure else "")
        try:
            page.write_text(draw(recording, title, scenario.options.servers, scenario.load.clients), encoding="utf-8")
        except OSError as error:
            fail(f"{page}: {error.strerror}", EXIT_BAD)
    assert outcome is not None, "to be told or drawn"
    return outcome


def show_smallest(totals: Totals) -> None:
    """Reduce the first run that failed, and say how to repeat what came of it."""
    if not totals.failed:
        return
    outcome = min(totals.failed, key=lambda each: each.trial.seed)
    assert outcome.failure is not None, "it failed"
    with messages.status("shrinking ...") as status:

        def progress(runs: int, trial: Trial) -> None:
            values = settings.show({name: trial.values[name] for name in ("servers", "clients", "faults")})
            status.update(f"shrinking: {runs} runs; {trial.duration_us / 1e6:g} s {values}")

        search = Search(fails, progress=progress)
        trial, why = search.smallest(outcome.trial, outcome.failure)
    print(f"smallest of {search.runs} runs: {why}")
    print(replay_line(trial), flush=True)


def fails(trial: Trial) -> Failure | None:
    """How a run fails, if it does."""
    return run_bounded(trial).failure


if __name__ == "__main__":
    main(prog_name="bin/simulate")
