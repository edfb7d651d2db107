"""The suite: its tables, the page that they go into, and the programs, run for real but for a short time."""

import json
import subprocess
from array import array
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest
from click.testing import CliRunner
from rich.console import Console

from fileserver.bench.cases import CASES, READ_64, WRITE_64, CaseResult, Measured
from fileserver.bench.growth import GROWTH, Comparison
from fileserver.bench.load import Load
from fileserver.bench.outcome import Interval, Outcome
from fileserver.bench.results import GrowthResult, SuiteResults
from fileserver.cli.bench import measure_one
from fileserver.cli.bench_output import ProgressLine, describe, remarks
from fileserver.cli.bench_suite import NAMES, suite
from fileserver.config import Address
from fileserver.pages import write_part
from tests.stage4_cluster.harness import program_command, program_environment

ROUND = Measured(per_second=1000.0, p50_us=500, p99_us=1500, server_us=20.0, generator_us=5.0, errors=0)


def run_bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run bin/bench; it may take as long as a few clusters take to start on a busy machine."""
    return subprocess.run(
        program_command("bench", *arguments),
        env=program_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_medians_are_of_every_figure() -> None:
    rounds = (ROUND, attrs.evolve(ROUND, per_second=10.0, p99_us=9000), attrs.evolve(ROUND, p50_us=1, errors=2))
    median = CaseResult("x", rounds).median
    assert median == attrs.evolve(ROUND, errors=2)
    assert CaseResult("x", rounds).to_json()["median"]["per_second"] == 1000.0


def test_what_of_an_outcome_goes_into_the_tables() -> None:
    latencies = (array("L", range(1, 101)), array("L"))
    outcome = Outcome(seconds=2.0, intervals=[Interval(0, latencies)], server_cpu_us=2000, generator_cpu_us=500)
    outcome.errors["ERR_BUSY"] += 3
    assert Measured.of(outcome) == Measured(50.0, 50, 99, server_us=20.0, generator_us=5.0, errors=3)
    outcome.server_cpu_us = None
    assert Measured.of(outcome).server_us == 0.0


def test_what_is_said_beside_the_table() -> None:
    load = Load(servers=(Address("a", 1), Address("b", 2)), rate=1000.0)
    assert describe(load) == (
        "64 clients, 1 in flight each, 0 % reads, 256 bytes, 10,000 names, 1,000 requests due a second, 2 servers"
    )
    assert describe(load.at([Address("a", 1)])).endswith("1 server")
    latencies = (array("L", [5] * 100), array("L"))
    outcome = Outcome(1.0, [Interval(0, latencies)], unsent=7, server_cpu_us=2000, generator_cpu_us=950_000)
    assert remarks(load, outcome) == [
        "processor time of the servers, all together: 20.0 us per operation",
        "processor time of this program: 9500.0 us per operation, 95% of a core",
        "this program may be what limits the throughput: more of it in parallel would tell",
        "rate: 1,000 a second were due, 100 a second were answered",
        "NOT reached: 7 requests were due and couldn't be sent, as no client was free",
    ]
    assert remarks(load, Outcome()) == ["nothing was answered as it should be"]


def test_the_line_that_shows_how_it_goes() -> None:
    latencies = (array("L", [5000] * 100), array("L"))
    outcome = Outcome(intervals=[Interval(number * 100_000, latencies) for number in range(12)])
    stream = StringIO()
    with ProgressLine(Console(file=stream, force_terminal=True), 2.0) as line:
        line.update(outcome, -0.5)
        line.update(outcome, 1.0)
        line.update(outcome, 1.1)
        line.update(outcome, 2.5)
    assert stream.getvalue().split("\r\x1b[K") == [
        "",
        "warming up, 0.5 s",
        "1.0 of 2 s: 1,000 op/s, p99 5.00 ms, 0 errors",
        "waiting for the last replies, 0.5 s",
        "",
    ]


@pytest.mark.parametrize(
    ("usual", "strained", "is_ok"), [(100.0, 90.0, True), (100.0, 80.0, False), (100.0, 120.0, True)]
)
def test_comparisons(usual: float, strained: float, is_ok: bool) -> None:
    rounds = [attrs.evolve(ROUND, per_second=usual * speed) for speed in (1.0, 2.0, 3.0)]
    others = [attrs.evolve(ROUND, per_second=strained * speed) for speed in (1.0, 2.0, 9.0)]
    result = Comparison(rounds, others).result("x", "under strain", 0.15)
    assert result.is_ok is is_ok
    assert result.value.startswith(f"{strained / usual - 1:+.1%} (200 and {2 * strained:,.0f} op/s, 20 and 20 us"), (
        "the median of the rounds' ratios"
    )
    others[0] = attrs.evolve(others[0], errors=1)
    assert not Comparison(rounds, others).result("x", "under strain", 0.5).is_ok


def test_where_a_case_connects() -> None:
    leader, other = Address("a", 1), Address("b", 2)
    assert WRITE_64.name == "write-64"
    assert READ_64.name == "read-64"
    assert WRITE_64.at(leader, [leader, other], 2.0).servers == (leader,)
    spread = next(case for case in CASES if case.any_server)
    assert spread.at(leader, [leader, other], 2.0).servers == (leader, other)
    assert spread.at(leader, [other], 2.0).seconds == 2.0


def growth(*, is_ok: bool, errors: int = 0) -> GrowthResult:
    return GrowthResult(name="memory", what="a | b", value="3 KiB", limit="2 KiB", is_ok=is_ok, errors=errors)


def test_tables() -> None:
    results = SuiteResults(5, (CaseResult("write-1", (ROUND,)),), (growth(is_ok=False, errors=1),), ())
    tables = results.tables()
    assert list(tables) == ["suite: cases", "suite: growth"], "those that aren't empty"
    assert tables["suite: cases"].markdown().splitlines() == [
        "| case | op/s | p50 ms | p99 ms | server CPU us/op | generator CPU us/op | errors |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| write-1 | 1,000 | 0.50 | 1.50 | 20.0 | 5.0 | 0 |",
    ]
    assert tables["suite: growth"].markdown().splitlines()[2] == "| a \\| b | 3 KiB | 2 KiB | NOT, 1 errors |"
    assert json.loads(json.dumps(results.to_json()))["growth"][0]["limit"] == "2 KiB"


def test_how_near_a_case_comes_to_one_server_alone() -> None:
    alone = CaseResult("write-1", (attrs.evolve(ROUND, per_second=8_000.0, server_us=2.5),))
    results = SuiteResults(5, (CaseResult("write-1", (ROUND,)),), (), (), (alone,))
    header, _, row = results.tables()["suite: cases"].markdown().splitlines()
    assert header.endswith("| errors | op/s, of one server alone | server CPU, times that of one alone |")
    assert row.endswith("| 0 | 12% | 8.0 |")
    assert results.to_json()["ceilings"][0]["name"] == "write-1"


def test_what_is_good() -> None:
    bad_case = CaseResult("write-1", (attrs.evolve(ROUND, errors=1),))
    assert SuiteResults(5, (CaseResult("write-1", (ROUND,)),), (growth(is_ok=True),), ()).is_good()
    assert not SuiteResults(5, (), (growth(is_ok=False),), ()).is_good()
    assert not SuiteResults(5, (bad_case,), (), ()).is_good()
    assert not SuiteResults(5, (), (), (bad_case,)).is_good()


def test_parts_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "folder" / "page.md"
    write_part(page, "one", "first")
    write_part(page, "two", "second")
    write_part(page, "one", "third \\1")
    assert page.read_text() == (
        "<!-- one: begin -->\nthird \\1\n<!-- one: end -->\n\n<!-- two: begin -->\nsecond\n<!-- two: end -->\n"
    )


def test_every_name_can_be_asked_for() -> None:
    assert set(GROWTH) <= set(NAMES)
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--servers", ","], "--servers names no server"),
        (["read", "--read-percent", "5"], "--read-percent is for mixed loads, and this one is read"),
        (["--servers", "localhost:1", "--nodes", "3"], "--nodes and --dir are for a cluster of its own"),
        (["--rate", "0"], "'--rate': 0.0 is not in the range"),
        (["append"], "'append' is not one of 'write', 'read', 'mixed'"),
    ],
)
def test_wishes_that_make_no_sense(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(measure_one, arguments)
    assert done.exit_code == 2
    assert says in done.output


@pytest.mark.parametrize("only", ["write-2", ",", "write-1,nothing"])
def test_cases_that_there_are_not(only: str) -> None:
    done = CliRunner().invoke(suite, ["--only", only])
    assert done.exit_code == 2
    assert "is none of write-1, write-16" in done.output


def test_a_result_that_could_not_be_written_is_told_before_the_measurement(tmp_path: Path) -> None:
    done = run_bench("--servers", "127.0.0.1:1", "--json-file", tmp_path / "no" / "file")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path}/no/file: No such file or directory\n"


@pytest.mark.slow
def test_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Five servers, measured with all that can be had of it."""
    picture, file = tmp_path / "picture.svg", tmp_path / "result.json"
    options = ("--read-percent", "50", "--rate", "100", "--secs", "0.5", "--warm", "0.1", "--files", "10", "--json")
    done = run_bench(*options, "--json-file", file, "--plot", picture)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads(file.read_text())
    assert (result["kind"], result["read_percent"], result["rate"]) == ("mixed", 50, 100.0)
    assert result["server_cpu_us_per_operation"] > result["generator_cpu_us_per_operation"] > 0
    assert result["total"]["operations"] == sum(point["operations"] for point in result["series"]) > 0
    assert ElementTree.fromstring(picture.read_text()) is not None
    assert "starting 5 servers" in done.stderr


@pytest.mark.slow
def test_a_suite(tmp_path: Path) -> None:
    """Three servers: two cases of the table, and a dead leader."""
    page, file = tmp_path / "performance.md", tmp_path / "result.json"
    only = "write-1,read-64-any-server,failover"
    options = ("--secs", "0.2", "--rounds", "1", "--only", only, "--servers-count", "3")
    done = run_bench("suite", *options, "--write", page, "--json", file)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(file.read_text())
    assert [each["name"] for each in result["cases"]] == ["write-1", "read-64-any-server"]
    assert all(each["median"]["per_second"] > 0 and each["median"]["errors"] == 0 for each in result["cases"])
    assert [each["name"] for each in result["growth"]] == ["failover", "failover"]
    assert "| read-64-any-server |" in page.read_text()
    assert f"`bin/bench suite --secs 0.2 --rounds 1 --servers-count 3 --only {only}`" in page.read_text()
