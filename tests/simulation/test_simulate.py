"""bin/simulate as people use it."""

import re
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fileserver.cli import simulate
from fileserver.simulation import campaign, run, settings
from fileserver.simulation.options import FaultKind
from fileserver.simulation.oracle import Violation
from fileserver.simulation.world import World

SUMMARY = re.compile(
    r"(\d+) seeds \(\d+ of them twice\), [\d.,]+ simulated hours, [\d,]+ faults, [\d,]+ crashes, [\d,]+ elections, "
    r"[\d,]+ operations \([\d,]+ of unknown outcome\), [\d,]+ messages, [\d,]+ simulated seconds per CPU second, "
    r"(\d+) failures"
)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(simulate.main, [str(argument) for argument in arguments], prog_name="bin/simulate")


def last_line(result: Result) -> str:
    return result.stdout.splitlines()[-1]


@pytest.mark.slow
def test_many_seeds_end_with_a_line_that_sums_up() -> None:
    result = call("--seeds", "4", "--first-seed", "98", "--seconds", "3", "--jobs", "2")
    assert (result.exit_code, result.stdout.count("\n")) == (0, 2)
    assert result.stdout.startswith("faults: ")
    match = SUMMARY.fullmatch(last_line(result))
    assert match
    assert match.groups() == ("4", "0")
    assert "(1 of them twice)" in result.stdout


def test_one_seed() -> None:
    result = call("--seed", "7", "--seconds", "3", "--servers", "3", "--options", "clients=2 faults=kill")
    assert result.exit_code == 0
    assert SUMMARY.fullmatch(last_line(result))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--servers", "12"), "whole number from 1 to 9"),
        (("--faults", "fire"), "none, or some of kill"),
        (("--loss", "2"), "from 0 to 1"),
        (("--options", "server=3"), "perhaps servers="),
        (("--options", "servers=3", "--servers", "4"), "set twice"),
        (("--options", "heartbeat-us=9000000000"), "heartbeat"),
        (("--trace",), "--seed"),
        (("--html", "x.html"), "--seed"),
        (("--seed", "1", "--trace", "--only", "weather"), "faults, leaders, clients, messages"),
        (("--seed", "1", "--trace", "--trace-from", "5", "--trace-to", "4"), "--trace-to is before --trace-from"),
        (("--seed", "1", "--only", "faults"), "go with --trace or --html"),
        (("--seed", "1", "--trace-from", "5"), "go with --trace or --html"),
        (("--seeds", "0"), "--seeds"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: Sequence[str], why: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())


def test_help_names_all_settings() -> None:
    shown = " ".join(click.unstyle(call("--help").stdout).split())
    for name in settings.SETTINGS:
        assert name in shown.replace("- ", "-")


def test_a_trace_tells_what_is_wanted_and_how_to_repeat_it() -> None:
    arguments = ("--seed", "4", "--seconds", "3", "--options", "servers=3 faults=kill fault-pause-us=1000000")
    result = call(*arguments, "--trace", "--only", "faults,leaders")
    lines = result.stdout.splitlines()
    assert lines[0] == "bin/simulate --seed 4 --seconds 3 --options 'servers=3 faults=kill fault-pause-us=1000000'"
    assert settings.parse(lines[1])["faults"] == (FaultKind.KILL,)
    assert any("LEADS term" in line for line in lines)
    assert not any("client" in line for line in lines[2:])
    later = call(*arguments, "--trace", "--trace-from", "1000", "--trace-to", "2000").stdout.splitlines()
    assert all(1_000 <= float(line.split()[0]) <= 2_000 for line in later[2:-2])


def test_a_run_is_drawn(tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    result = call("--seed", "4", "--seconds", "3", "--html", page)
    assert result.exit_code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    result = call("--seed", "4", "--seconds", "3", "--html", tmp_path / "missing" / "run.html")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith("run.html: No such file or directory")


# ------------------------------------------------------------------------------------------ failures


class Wrong(World):
    """A world where nobody may be killed: the third end of a server breaks a promise."""

    ends = 0

    def tell(self, kind: str, who: str, what: str) -> None:
        super().tell(kind, who, what)
        self.ends += kind == "end"
        if self.ends == 3 and self.options.servers > 1:
            raise Violation(f"{who} has ended")


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "World", Wrong)
    monkeypatch.setattr(simulate, "campaign", lambda trials, jobs: map(campaign.run_bounded, trials))


@pytest.mark.usefixtures("wrong")
def test_a_failure_is_told_with_a_line_that_repeats_it() -> None:
    result = call("--seeds", "3", "--seconds", "20", "--faults", "kill,clock-rate", "--servers", "3")
    assert result.exit_code == 1
    replays = [line for line in result.stdout.splitlines() if line.startswith("bin/simulate --seed ")]
    assert len(replays) == len([line for line in result.stdout.splitlines() if " failed after " in line]) > 0
    match = SUMMARY.fullmatch(last_line(result))
    assert match
    assert int(match[2]) == len(replays)
    arguments = re.fullmatch(r"bin/simulate --seed (\d+) --seconds 20 --options '(.*)'", replays[0])
    assert arguments
    again = call("--seed", arguments[1], "--seconds", "20", "--options", arguments[2])
    assert again.exit_code == 1
    reason = next(line for line in result.stdout.splitlines() if " failed after " in line)
    assert reason in again.stdout.splitlines()
    assert replays[0] in again.stdout.splitlines()


@pytest.mark.usefixtures("wrong")
def test_a_failing_run_is_made_small() -> None:
    result = call("--seed", "3", "--seconds", "40", "--faults", "kill,pause,clock-rate,partition", "--shrink")
    assert result.exit_code == 1
    replay = result.stdout.splitlines()[-3]
    arguments = re.fullmatch(r"bin/simulate --seed (\d+) --seconds (\d+) --options '(.*)'", replay)
    assert arguments
    scenario = run.Trial(
        seed=int(arguments[1]), duration_us=int(arguments[2]) * 1_000_000, values=settings.parse(arguments[3])
    ).scenario()
    assert scenario.options.faults == (FaultKind.KILL,)
    assert scenario.options.servers in (2, 3)
    assert scenario.load.clients == 1
    assert int(arguments[2]) < 40
    again = call("--seed", arguments[1], "--seconds", arguments[2], "--options", arguments[3])
    assert again.exit_code == 1


def test_nothing_is_shrunk_where_nothing_fails() -> None:
    result = call("--seed", "7", "--seconds", "2", "--shrink")
    assert result.exit_code == 0
    assert SUMMARY.fullmatch(last_line(result))
    assert "smallest" not in result.stdout


def test_an_interrupt_sums_up_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(trials: object, jobs: int) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(simulate, "campaign", interrupted)
    result = call("--seeds", "5", "--jobs", "1")
    assert result.exit_code == 130
    assert last_line(result).startswith("0 seeds")
