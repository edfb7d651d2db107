"""``bin/torture``: real servers, real faults, and a checker that looks for what was lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from fileserver.bench.local import NotReady
from fileserver.cli.common import CONTEXT_SETTINGS, FiniteRange, fail
from fileserver.processes import module_command
from fileserver.torture import namespaces
from fileserver.torture.clients import Record
from fileserver.torture.failover import Failovers, measure_failovers
from fileserver.torture.nemesis import World
from fileserver.torture.plan import FaultKind, make_plan
from fileserver.torture.report import Report
from fileserver.torture.run import Options, keep, torture
from fileserver.torture.servers import NotInTime
from fileserver.torture.setting import make_setting

EXIT_BAD = 1
EXIT_INTERRUPTED = 130
PLAIN_EVERY_SECONDS = 5.0
FINDINGS_SHOWN_MAX = 40
FAILOVER_MEDIAN_MAX_US = 700_000
FAILOVER_P99_MAX_US = 1_500_000
_PLACE_PREFIX = "quintet-torture-"

messages = Console(stderr=True)


class FaultKinds(click.ParamType[tuple[FaultKind, ...]]):
    """``kill,partition,...`` on the command line."""

    name = "kind,..."

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[FaultKind, ...]:  # called by click
        """The kinds, or a usage error."""
        if isinstance(value, tuple):
            return value
        names = {kind.value: kind for kind in FaultKind}
        words = [word.strip() for word in str(value).split(",") if word.strip()]
        unknown = [word for word in words if word not in names]
        if unknown:
            self.fail(f"{unknown[0]!r} is none of {', '.join(names)}", param, ctx)
        return tuple(names[word] for word in words)


@click.group(context_settings=CONTEXT_SETTINGS, invoke_without_command=True)
@click.option("--minutes", type=FiniteRange(min=0.05), default=10.0, show_default=True, help="How long.")
@click.option("--seed", type=int, help="Draws the faults and the requests.  [default: a random one]")
@click.option(
    "--faults",
    "kinds",
    type=FaultKinds(),
    default=",".join(kind.value for kind in FaultKind),
    metavar="KIND,...",
    help=f"Which faults: {', '.join(kind.value for kind in FaultKind)}.  [default: all]",
)
@click.option("--servers", "count", type=click.IntRange(3, 9), default=5, show_default=True, help="Servers.")
@click.option("--clients", type=click.IntRange(1, 1000), default=10, show_default=True, help="Connections.")
@click.option("--rate", type=FiniteRange(min=1), default=450.0, show_default=True, help="Requests a second.")
@click.option(
    "--rate-min",
    type=FiniteRange(min=0),
    default=300.0,
    show_default=True,
    help="With fewer answers a second than that the run is a failure.",
)
@click.option(
    "--artifacts",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the history, the plan and the logs there. A run that fails keeps them anyway, and says where.",
)
@click.option(
    "--proxy", is_flag=True, help="Break the network by proxies on the peer links, even where better can be had."
)
@click.pass_context
def main(
    context: click.Context,
    minutes: float,
    seed: int | None,
    kinds: tuple[FaultKind, ...],
    count: int,
    clients: int,
    rate: float,
    rate_min: float,
    artifacts: Path | None,
    proxy: bool,
) -> None:
    """Run a cluster of real server processes under real faults, and check that nothing is lost.

    Clients read and change files through all servers while servers are killed, paused and restarted, the network is
    cut in every shape, disks are full or slow, clocks jump and files are damaged. In the end all servers must be
    the same, and what the clients saw must be linearizable. Exit status 1 if not, if a fault that was planned did not
    really happen, or if there was too little load.

    All of it happens in network, mount and process namespaces of its own where that is allowed (to root mostly), so
    nothing can be left behind; else with proxies between the servers, and without full disks.
    """
    if context.invoked_subcommand is not None:
        return
    go_apart()
    seed = random.randrange(1 << 32) if seed is None else seed
    ids = range(1, count + 1)
    with temporary_place() as place, readable_errors():
        dice = random.Random(f"network {seed}")
        is_apart = namespaces.is_apart()
        with make_setting(place / "run", ids, kinds, dice, apart=is_apart, proxy=proxy) as setting:
            plan = make_plan(seed, round(minutes * 60e6), ids, setting.kinds)
            options = Options(plan=plan, clients=clients, rate=rate, rate_min=rate_min)
            messages.print(f"{count} servers, {clients} clients, seed {seed}; {setting.network.kind}", style="dim")
            for line in setting.skipped:
                messages.print(f"left out: {line}", style="yellow", markup=False)
            with Screen(plan.duration_us / 1e6, len(plan.faults)) as screen:
                report = trio.run(torture, options, setting, screen)
            if artifacts is None and not report.is_good:
                artifacts = Path(tempfile.mkdtemp(prefix="quintet-torture-kept-"))
            if artifacts is not None:
                keep(report, setting.servers, artifacts)
        chosen = ",".join(kind.value for kind in FaultKind if kind in setting.kinds)
        replay = f"bin/torture --minutes {minutes:g} --seed {seed} --servers {count} --clients {clients}"
        replay += f" --rate {rate:g} --rate-min {rate_min:g} --faults {chosen}{' --proxy' if proxy else ''}"
        show(report, replay, artifacts)
    sys.exit(0 if report.is_good else EXIT_BAD)


@main.command()
@click.option("--times", type=click.IntRange(1, 10_000), default=200, show_default=True, help="How often.")
@click.option("--servers", "count", type=click.IntRange(3, 9), default=5, show_default=True, help="Servers.")
def failover(times: int, count: int) -> None:
    """Kill the leader under load, again and again, and measure how long nobody can write.

    The time is that from the SIGKILL until the first acknowledgement, through another server, of a write that was sent
    after it; at default timeouts. Exit status 1 if the median is over 0.7 s or the 99th percentile over 1.5 s.
    """
    go_apart()
    ids = range(1, count + 1)
    with (
        temporary_place() as place,
        readable_errors(),
        make_setting(place / "run", ids, (), random.Random(), apart=False, settings={}) as setting,
        Counting(times) as counting,
    ):
        failovers = trio.run(measure_failovers, setting, times, counting)
    show_failovers(failovers)
    is_quick = (
        failovers.percentile_us(50) <= FAILOVER_MEDIAN_MAX_US and failovers.percentile_us(99) <= FAILOVER_P99_MAX_US
    )
    is_good = is_quick and not failovers.lost
    sys.exit(0 if is_good else EXIT_BAD)


# ------------------------------------------------------------------------------------------ where it runs


def go_apart() -> None:
    """Go on in namespaces of our own if they can be had; does not return then, save within them."""
    # Who is started in the background by a script ignores it, and couldn't be ended by another signal either.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if namespaces.is_apart():
        try:
            namespaces.settle_in()
        except OSError as error:
            fail(str(error), EXIT_BAD)
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGINT))
        return
    remove_leftovers()
    if namespaces.can_be_apart():
        sys.exit(namespaces.run_apart([*module_command("fileserver.cli.torture"), *sys.argv[1:]]))
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


@contextmanager
def temporary_place() -> Iterator[Path]:
    """A directory that goes with us; it is named for the process that people see."""
    owner = os.environ.get(namespaces.INSIDE_VARIABLE, os.getpid())
    with tempfile.TemporaryDirectory(prefix=f"{_PLACE_PREFIX}{owner}-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        (place / "run").mkdir()
        yield place


def remove_leftovers() -> None:
    """Find what a run that was killed has left in the directory for temporary files, say so and remove it."""
    for place in Path(tempfile.gettempdir()).glob(f"{_PLACE_PREFIX}*-*"):
        owner = place.name.removeprefix(_PLACE_PREFIX).partition("-")[0]
        if not owner.isdigit() or Path("/proc", owner).exists() or place.stat().st_uid != os.geteuid():
            continue
        pids = [file.read_text().strip() for file in place.glob("run/disks/*/server-*/pid")]
        still = [pid for pid in pids if pid and Path("/proc", pid).exists()]
        if still and not namespaces.can_be_apart():  # else the kernel ended them, and these are others
            messages.print(f"left over by a run that was killed: {place}, perhaps with processes {still}", markup=False)
            continue
        messages.print(f"left over by a run that was killed, and removed: {place}", style="yellow", markup=False)
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def readable_errors() -> Iterator[None]:
    """End the program in one line for what can go wrong outside of it, and quietly at ^C."""
    interrupted = False
    error: BaseException | None = None
    try:
        yield
    except* KeyboardInterrupt:
        interrupted = True
    except* (NotInTime, NotReady, OSError) as group:
        error = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    # Out here, since what is raised in an except* comes wrapped in a group.
    if interrupted:
        messages.print("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    if error is not None:
        fail(str(error), EXIT_BAD)


# ------------------------------------------------------------------------------------------ what people see


class Screen:
    """Shows what goes on: a table that renews itself, or a line every few seconds where that can't be."""

    def __init__(self, seconds: float, faults: int) -> None:
        self._seconds = seconds
        self._faults = faults
        self._live = Live(console=messages, refresh_per_second=5, transient=True)
        self._plain_at = 0.0
        self._phase = ""

    def __enter__(self) -> Screen:
        """Begin to show."""
        if messages.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show no more."""
        if messages.is_terminal:
            self._live.stop()

    def phase(self, text: str) -> None:
        """See Watcher."""
        self._phase = text
        if messages.is_terminal:
            self._live.update(text)
        else:
            messages.print(f"{text} ...", style="dim")

    def progress(self, world: World, record: Record, leader: int | None) -> None:
        """See Watcher."""
        seconds = world.now_us() / 1e6
        done = len(world.happenings)
        rows = [
            ("time", f"{seconds:.0f} of {self._seconds:.0f} s"),
            ("operations", f"{record.answered:,} ({record.answered / max(seconds, 0.1):,.0f}/s)"),
            ("unknown outcomes", f"{record.unknown:,}"),
            ("leader", f"server {leader}" if leader else "none"),
            ("faults", f"{done} of {self._faults} over"),
        ]
        failed = sum(not happening.is_real for happening in world.happenings)
        if failed:
            rows.append(("", f"{failed} did not happen"))
        if messages.is_terminal:
            rows += [("now", str(fault)) for fault in world.under_way.values()]
            table = Table(show_header=False, box=None)
            for row in rows:
                table.add_row(*row)
            self._live.update(table)
        elif time.monotonic() >= self._plain_at:
            self._plain_at = time.monotonic() + PLAIN_EVERY_SECONDS
            messages.print("; ".join(f"{name} {value}".strip() for name, value in rows), style="dim", highlight=False)


class Counting:
    """Shows how many fail-overs have been measured."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._live = Live(console=messages, refresh_per_second=5, transient=True)

    def __enter__(self) -> Counting:
        """Begin to show."""
        if messages.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Show no more."""
        if messages.is_terminal:
            self._live.stop()

    def __call__(self, done: int, time_us: int) -> None:
        """One more has been measured."""
        text = f"{done} of {self._times}: {time_us / 1e6:.3f} s"
        if messages.is_terminal:
            self._live.update(text)
        elif done % 20 == 0:
            messages.print(text, style="dim", highlight=False)


def show(report: Report, replay: str, artifacts: Path | None) -> None:
    """Print what came of a run."""
    console = Console()
    faults = Table("fault", "", "planned", "happened", title="faults", box=None)
    for kind, variant, planned, happened in report.fault_counts:
        faults.add_row(kind, variant, str(planned), str(happened), style="red" if happened < planned else "")
    operations = Table("operation", "outcome", "times", title="operations", box=None)
    for (kind, outcome), times in sorted(report.record.counts.items()):
        operations.add_row(kind, outcome, f"{times:,}")
    for table in (faults, operations):
        for column in table.columns[2:]:
            column.justify = "right"
        console.print(table)
    judgement = report.judgement
    load = report.load
    servers = ", ".join(f"{count:,}" for _, count in sorted(load.by_server.items()))
    for line in report.skipped:
        console.print(f"left out: {line}", markup=False)
    console.print(f"{load.answered:,} operations in {load.seconds:.0f} s: {load.rate:.0f}/s", highlight=False)
    console.print(f"answered by server: {servers}", highlight=False)
    console.print(
        f"history: {judgement.verdict.value}, {judgement.operations:,} operations on {judgement.files:,} files, "
        f"judged in {report.judged_in_seconds:.1f} s",
        highlight=False,
    )
    if report.state_hash:
        console.print(f"all servers agree: state {report.state_hash}", highlight=False)
    findings = list(report.findings())
    for finding in findings[:FINDINGS_SHOWN_MAX]:
        console.print(finding, style="red", markup=False, highlight=False)
    if len(findings) > FINDINGS_SHOWN_MAX:
        console.print(f"and {len(findings) - FINDINGS_SHOWN_MAX} lines more in findings.txt", style="red")
    if artifacts is not None:
        console.print(f"kept in {artifacts}", highlight=False, markup=False)
    console.print(f"again: {replay}", highlight=False, soft_wrap=True)
    console.print("all is well" if report.is_good else "FAILED", style="green" if report.is_good else "bold red")


def show_failovers(failovers: Failovers) -> None:
    """Print the percentiles of a measurement."""
    figures = ", ".join(f"p{percent} {failovers.percentile_us(percent) / 1e6:.3f} s" for percent in (50, 90, 99))
    print(f"{len(failovers.times_us)} fail-overs: {figures}, max {max(failovers.times_us) / 1e6:.3f} s")
    print(f"{failovers.unknown} writes of unknown outcome, {failovers.lost} acknowledged ones lost")


if __name__ == "__main__":
    main(prog_name="bin/torture")
