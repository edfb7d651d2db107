"""``bin/bench profile``: from sampled stacks to tables and trees, how py-spy is run, and the program itself."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner
from trio._core._io_epoll import EpollIOManager

from fileserver.bench.call_tree import LOOP, ROOT, TRIO, draw, short_name, tree_of
from fileserver.bench.profile_results import CaseProfile, ServerProfile, markdown, times_table
from fileserver.bench.sampling import (
    MISSING,
    NOT_PERMITTED,
    PROGRAM,
    CannotSample,
    Recorder,
    check_permitted,
    put_first,
    sampler,
    why,
)
from fileserver.bench.stacks import (
    GAVE_WAY_CALL,
    POLL_CALL,
    POLLS_NOW_CALL,
    Frame,
    FunctionShare,
    Profile,
    Sample,
    function_shares,
    parse_folded,
    profile_of,
)
from fileserver.cli.bench import readable_errors
from fileserver.cli.bench_profile import profile
from fileserver.pages import begin_mark
from raftnode.reactor import Reactor
from tests.stage4_cluster.harness import program_command, program_environment

MAIN = "thread (7): MainThread"
HELPER = "thread (8): Trio thread 0"
SITE = "/x/.venv/lib/python3.11/site-packages"


# --------------------------------------------------------------------------------------- stacks


def test_folded_lines() -> None:
    text = f"{MAIN};run (/a/b c.py:12);A.<lambda> (<attrs generated methods m.A>:-3);odd 42\n\nno stack\n{MAIN};f x\n"
    assert list(parse_folded(text)) == [
        Sample(
            MAIN,
            (
                Frame("run", "/a/b c.py", 12),
                Frame("A.<lambda>", "<attrs generated methods m.A>", -3),
                Frame("odd", "", 0),
            ),
            42,
        )
    ]


@pytest.mark.parametrize(
    ("frame", "label"),
    [
        (Frame("Node.turn", "/x/raftnode/node.py", 1), "raftnode/node.py Node.turn"),
        (Frame("unrolled_run", f"{SITE}/trio/_core/_run.py", 1), "trio/_core/_run.py unrolled_run"),
        (Frame("f", "/usr/lib/python3.11/random.py", 1), "random.py f"),
        (Frame("f", "/usr/lib/python3/dist-packages/a/b.py", 1), "a/b.py f"),
        (Frame("__init__", "<attrs generated methods raftnode.x.Y>", 1), "raftnode.x.Y __init__"),
        (Frame("_run_code", "<frozen runpy>", 88), "<frozen runpy> _run_code"),
    ],
)
def test_what_a_function_is_called(frame: Frame, label: str) -> None:
    assert frame.label("/x") == label


def lines_of(function: Callable[..., object], call: str) -> list[str]:
    return [line for line in inspect.getsource(function).splitlines() if call in line]


def test_the_places_where_a_server_waits_are_where_they_are_looked_for() -> None:
    """They are told by their source."""
    assert len(lines_of(Reactor.run, GAVE_WAY_CALL)) == 1
    assert len(lines_of(Reactor._ready_now, POLLS_NOW_CALL)) == 1
    (waits,) = lines_of(Reactor._linger, POLL_CALL)
    assert POLLS_NOW_CALL not in waits
    assert len(lines_of(EpollIOManager.get_events, POLL_CALL)) == 1


def test_samples_are_told_apart() -> None:
    sources = {
        ("/x/raftnode/reactor.py", 1): "        give_way()\n",
        ("/x/raftnode/reactor.py", 2): "        return self._poller.poll(0, 16)\n",
        ("/x/raftnode/reactor.py", 3): "        ready = self._poller.poll(2.0, 16)\n",
        (f"{SITE}/trio/_core/_io_epoll.py", 4): "        return self._epoll.poll(timeout, max_events)\n",
    }
    lines = [
        f"{MAIN};R.run (/x/raftnode/reactor.py:9);R.now (/x/raftnode/reactor.py:1) 1",
        f"{MAIN};R.run (/x/raftnode/reactor.py:9);R.now (/x/raftnode/reactor.py:2) 2",
        f"{MAIN};R.run (/x/raftnode/reactor.py:9);R.wait (/x/raftnode/reactor.py:3) 4",
        f"{MAIN};run ({SITE}/trio/_core/_run.py:5);E.get ({SITE}/trio/_core/_io_epoll.py:4) 8",
        f"{MAIN};R.run (/x/raftnode/reactor.py:9);N.turn (/x/raftnode/node.py:1) 16",
        f"{MAIN};R.run (/x/raftnode/reactor.py:9);N.turn (/x/raftnode/node.py:2) 32",
        f"{HELPER};WorkerThread._work ({SITE}/trio/_core/_thread_cache.py:1) 64",
        f"{HELPER};WorkerThread._work ({SITE}/trio/_core/_thread_cache.py:2);save (/x/raftnode/a.py:1) 128",
    ]
    found = profile_of("\n".join(lines), "/x", lambda file, line: sources.get((file, line), ""))
    run = "raftnode/reactor.py R.run"
    assert found == Profile(
        {(run, "raftnode/reactor.py R.now"): 2, (run, "raftnode/node.py N.turn"): 48},
        gave_way=1,
        woken=12,
        helpers_ran=128,
    )
    assert found.ran == 50
    assert json.loads(json.dumps(found.to_json()))["stacks"] == {
        "raftnode/reactor.py R.run;raftnode/reactor.py R.now": 2,
        "raftnode/reactor.py R.run;raftnode/node.py N.turn": 48,
    }


def test_own_shares_and_those_with_callees() -> None:
    """A function that calls itself counts once; what has a small share of its own has no row."""
    profile = Profile({("a", "b"): 50, ("a", "b", "c", "b"): 25, ("a", "c"): 24, ("d",): 1})
    assert function_shares(profile, 0.02) == [FunctionShare("b", 0.75, 0.75), FunctionShare("c", 0.24, 0.49)]
    assert [share.label for share in function_shares(profile, 0.02, samples_min=30)] == ["b"]
    assert function_shares(Profile({}), 0.02) == []


# ----------------------------------------------------------------------------------------- tree


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("raftnode/node.py Node.turn", "Node.turn"),
        ("raftnode/codec.py encode", "codec.encode"),
        ("raftnode/a.py make.<locals>.helper", "a.make.<locals>.helper"),
        ("raftnode.x.Y __init__", "raftnode.x.Y.__init__"),
        ("trio/_core/_run.py Runner.reschedule", "trio"),
        ("outcome/_impl.py Value.send", "trio"),
        ("outcome._impl.Value __init__", "trio"),
        ("odd", "odd"),
    ],
)
def test_names_in_the_tree(label: str, name: str) -> None:
    assert short_name(label) == name


START = ("<frozen runpy> _run_code", "trio/_core/_run.py run", LOOP)


def test_a_tree_begins_below_the_loop_and_shows_what_is_big() -> None:
    stacks = {
        (*START, "a.py R.run", "a.py N.turn", "b.py send"): 40,
        (*START, "a.py R.run", "a.py N.turn"): 10,
        (*START, "a.py R.run", "a.py L.serve"): 30,
        (*START, "a.py R.run", "trio/_core/_traps.py checkpoint", "trio/_core/_run.py yields"): 5,
        (*START, "a.py R.run", "a.py small"): 2,
        START: 12,
        ("m.py main",): 1,
    }
    assert draw(tree_of(stacks), share_min=0.03, lines_max=30) == [
        "   all    own  %",
        f" 100.0    0.0  {ROOT}",
        "  87.0    0.0    R.run",
        "  50.0   10.0      N.turn",
        "  40.0   40.0        b.send",
        "  30.0   30.0      L.serve",
        f"   5.0    5.0      {TRIO}",
        f"  12.0   12.0    {TRIO}",
    ]
    few = draw(tree_of(stacks), share_min=0.03, lines_max=4)
    assert few == draw(tree_of(stacks), share_min=0.03, lines_max=30, samples_min=31)
    assert [line.split()[-1] for line in few[1:]] == ["thread", "R.run", "N.turn", "b.send"]


def test_calls_of_one_other_stand_in_one_line() -> None:
    stacks = {
        ("m.py a", "m.py b", "m.py c"): 497,
        ("m.py a", "m.py b"): 3,
        ("m.py d", "m.py e", "m.py f", "m.py g"): 400,
        ("m.py h", "m.py i"): 80,
        ("m.py h",): 20,
    }
    assert draw(tree_of(stacks), share_min=0.03, lines_max=30) == [
        "   all    own  %",
        f" 100.0    0.0  {ROOT}",
        "  50.0   49.7    m.a > m.b > m.c",
        "  40.0   40.0    m.d > ... > m.g",
        "  10.0    2.0    m.h",
        "   8.0    8.0      m.i",
    ]


def test_a_tree_without_samples() -> None:
    assert draw(tree_of({}), share_min=0.03, lines_max=30) == ["no samples"]


# --------------------------------------------------------------------------------------- tables

SERVER = ServerProfile(
    role="leader",
    server_id=2,
    on_processor=0.512,
    samples=1000,
    profile=Profile({("a.py f",): 400, ("a.py f", "a.py g"): 100}, gave_way=200, woken=100, helpers_ran=30),
)
CASE = CaseProfile(name="write-64", per_second=12345.6, errors=0, servers=(SERVER,))


def test_what_the_servers_did_with_the_time() -> None:
    assert times_table([CASE]).markdown().splitlines()[2] == (
        "| write-64 | leader | 12,346 | 51% | 50% | 20% | 10% | 20% | 3% | 500 |"
    )
    more = attrs.evolve(SERVER, samples=700)
    assert times_table([attrs.evolve(CASE, servers=(more,))]).rows[0][7] == "0%", "how many there were is an estimate"
    none = attrs.evolve(SERVER, samples=0, profile=Profile({}))
    assert times_table([attrs.evolve(CASE, servers=(none,))]).rows[0][4:] == ("-", "-", "-", "-", "-", "0")


def test_a_page() -> None:
    assert markdown([CASE]).partition("\n\n")[2] == (
        "### write-64, leader\n\n"
        "| function | own % | with callees % |\n| --- | ---: | ---: |\n"
        "| a.py f | 80.0 | 100.0 |\n| a.py g | 20.0 | 20.0 |\n\n"
        "```\n   all    own  %\n 100.0   80.0  the main thread > a.f\n  20.0   20.0    a.g\n```"
    )


def test_a_document() -> None:
    document = json.loads(json.dumps(CASE.to_json()))
    assert document["per_second"] == 12345.6
    assert document["servers"][0]["stacks"] == {"a.py f": 400, "a.py f;a.py g": 100}


# --------------------------------------------------------------------------------------- py-spy


def fake(directory: Path, body: str) -> str:
    """A program that is started as py-spy would be."""
    path = directory / PROGRAM
    path.write_text(f"#!{sys.executable}\nimport signal, sys, time\n{body}\n")
    path.chmod(0o755)
    return str(path)


RECORDS = """
def end(number, frame):
    open(sys.argv[sys.argv.index("--output") + 1], "w").write("thread (1): MainThread;f (a.py:1) 5\\n")
    sys.exit()
signal.signal(signal.SIGINT, end)
print("py-spy> Sampling process 100 times a second. Press Control-C to exit.", flush=True)
time.sleep(60)
"""


def test_where_the_sampler_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotSample, match="py-spy is missing"):
        sampler(tmp_path)
    program = fake(tmp_path, "")
    assert sampler(tmp_path) == program
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sampler(tmp_path / "elsewhere") == program


def test_that_it_is_missing_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fileserver.bench.sampling.PROGRAM", "no-such-py-spy")
    with pytest.raises(SystemExit) as ended, readable_errors():
        profile.main([], standalone_mode=False)
    assert ended.value.code == 1
    assert capsys.readouterr() == ("", f"{MISSING}\n")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Permission Denied: Try running again with elevated permissions", NOT_PERMITTED),
        ("\nError: Operation not permitted (os error 1)\n", NOT_PERMITTED),
        ("\nError: Failed to find python version\n\nStack backtrace:\n", "Error: Failed to find python version"),
        ("", "it says nothing"),
    ],
)
def test_a_sampler_that_fails(tmp_path: Path, said: str, told: str) -> None:
    assert told in why(said)
    assert why(said).isprintable()
    program = fake(tmp_path, f"sys.stderr.write({said!r}); sys.exit(1)")
    with pytest.raises(CannotSample) as failed:
        check_permitted(program)
    assert str(failed.value) == why(said)
    with pytest.raises(CannotSample) as failed, Recorder(program, 1, 100, tmp_path).running():
        pytest.fail("it doesn't sample")
    assert str(failed.value) == why(said)


def test_a_recording(tmp_path: Path) -> None:
    recorder = Recorder(fake(tmp_path, RECORDS), 1, 100, tmp_path)
    with recorder.running():
        pass
    assert recorder.folded() == "thread (1): MainThread;f (a.py:1) 5\n"


def test_a_sampler_that_fails_later(tmp_path: Path) -> None:
    program = fake(tmp_path, RECORDS.replace("sys.exit()", "sys.exit('the process has gone')"))
    with (
        pytest.raises(CannotSample, match="the process has gone"),
        Recorder(program, 1, 100, tmp_path).running(),
    ):
        pass


def test_whether_a_process_is_put_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert put_first(process.pid) in (True, False)

        def refuse(*_arguments: object) -> None:
            raise PermissionError

        monkeypatch.setattr("os.sched_setscheduler", refuse)
        assert not put_first(process.pid)
        process.communicate(b"\n")


# -------------------------------------------------------------------------------------- program


@pytest.mark.parametrize("cases", ["write-2", "memory", ","])
def test_cases_that_there_are_not(cases: str) -> None:
    done = CliRunner().invoke(profile, ["--cases", cases])
    assert done.exit_code == 2
    assert "is none of write-1, write-16" in done.output


@pytest.mark.slow
def test_a_profile_of_a_real_cluster(tmp_path: Path) -> None:
    try:
        check_permitted(sampler())
    except CannotSample as obstacle:
        pytest.skip(str(obstacle))
    page, file = tmp_path / "page.md", tmp_path / "profile.json"
    options = ("--cases", "write-64", "--secs", "1", "--servers-count", "3", "--write", page, "--json-file", file)
    done = subprocess.run(
        program_command("bench", "profile", *options),
        env=program_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    leader, follower = json.loads(file.read_text())["cases"][0]["servers"]
    assert (leader["role"], follower["role"]) == ("leader", "follower")
    assert leader["server_id"] != follower["server_id"]
    assert 0 < leader["on_processor"] < 2
    assert leader["ran"] > 5
    assert any("raftnode/reactor.py Reactor.run" in stack for stack in leader["stacks"])
    assert begin_mark("profile") in page.read_text()
    for text in (page.read_text(), done.stdout):
        assert "Reactor.run" in text
        assert "write-64, follower" in text
