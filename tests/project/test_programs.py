"""The programs of bin/ as processes: help, options that can't be used, and the exit status that each of them gets."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace

import pytest

from fileserver.bench.local import free_cluster
from fileserver.cli import __main__ as launcher
from fileserver.config import Address
from tests.stage4_cluster.ports import reserve

PROGRAMS = ("start_cluster", "fileserver", "fs", "bench")
Run = Callable[..., subprocess.CompletedProcess[bytes]]


def program(name: str, *arguments: str | Path, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", f"fileserver.cli.{name}", *map(str, arguments)]
    return subprocess.run(command, input=content, capture_output=True, check=False, timeout=60)


def one_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """What a program said when it failed, which has to be one line on standard error and nothing else."""
    (line,) = done.stderr.decode().splitlines()
    assert done.stdout == b""
    return line


@pytest.mark.parametrize("at_interrupt", [signal.default_int_handler, signal.SIG_IGN])
def test_an_interrupt_while_a_program_is_loaded_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, at_interrupt: Callable[[int, FrameType | None], object] | signal.Handlers
) -> None:
    """And whoever has it ignored keeps it so."""
    seen = []
    monkeypatch.setattr(sys, "argv", ["python", "fs", "--help"])

    def loaded(name: str) -> SimpleNamespace:
        seen.append((name, signal.getsignal(signal.SIGINT)))
        return SimpleNamespace(main=ran)

    def ran(prog_name: str) -> None:
        seen.append((prog_name, signal.getsignal(signal.SIGINT)))

    monkeypatch.setattr(launcher, "import_module", loaded)
    before = signal.signal(signal.SIGINT, at_interrupt)
    try:
        launcher.main()
    finally:
        signal.signal(signal.SIGINT, before)
    while_loading = signal.SIG_IGN if at_interrupt == signal.SIG_IGN else signal.SIG_DFL
    assert seen == [("fileserver.cli.fs", while_loading), ("bin/fs", at_interrupt)]
    assert sys.argv == ["python", "--help"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_explains_each_program(name: str) -> None:
    done = program(name, "--help")
    assert done.returncode == 0
    assert done.stdout.decode().startswith(f"Usage: bin/{name}")
    assert done.stderr == b""


@pytest.mark.parametrize("command", ["read", "write", "cas", "delete", "append", "touch", "stat", "list", "status"])
def test_help_explains_each_command_of_fs(command: str) -> None:
    assert program("fs", command, "--help").stdout.decode().startswith(f"Usage: bin/fs {command}")


# ------------------------------------------------------------------------------------ what can't work


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--config", "x"],
        ["--id", "1"],
        ["--alone", "--id", "1"],
        ["--alone", "--port", "0"],
        ["--config", "x", "--id", "1", "--port", "8080"],
        ["--config", "x", "--id", "1", "--host", "::1"],
        ["--nonsense"],
    ],
)
def test_fileserver_refuses_options_that_make_no_sense(arguments: list[str]) -> None:
    assert program("fileserver", *arguments).returncode == 2


def test_fileserver_says_what_is_wrong_with_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    done = program("fileserver", "--config", path, "--id", "1")
    assert (done.returncode, one_line(done)) == (2, f"{path}: No such file or directory")
    path.write_text('{"cluster": "demo", "servers": [], "extra": 1}')
    done = program("fileserver", "--config", path, "--id", "1")
    assert (done.returncode, one_line(done)) == (2, f"{path}: extra: is not a key of the configuration")
    path.write_text("1 127.0.0.1 8080\n")
    done = program("fileserver", "--config", path, "--id", "2")
    assert (done.returncode, one_line(done)) == (2, f"{path}: servers: there is no server with id 2 (there are 1)")


def test_fileserver_says_that_a_port_is_in_use(tmp_path: Path, listening: Address) -> None:
    done = program("fileserver", "--alone", "--port", str(listening.port))
    assert done.returncode == 2
    assert one_line(done) == f"{listening}: port {listening.port} is in use (client port)"
    (tmp_path / "list").write_text(f"1 127.0.0.1 {listening.port}\n")
    done = program("fileserver", "--config", tmp_path / "list", "--id", "1")
    assert done.returncode == 2
    assert one_line(done) == f"{listening}: port {listening.port} is in use (client port of server 1)"


def test_fileserver_says_that_a_host_cannot_be_one() -> None:
    done = program("fileserver", "--alone", "--host", "bad..host")
    assert (done.returncode, one_line(done)) == (2, "bad..host:8080: 'bad..host' can't be a host's name (client port)")


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "command",
    [
        ("fs", "list", "--timeout"),
        ("bench", "write", "--secs"),
        ("bench", "write", "--warm"),
        ("bench", "write", "--rate"),
        ("simulate", "--seconds"),
        ("simulate", "--loss"),
        ("torture", "--minutes"),
        ("torture", "--rate"),
    ],
)
def test_no_time_or_rate_is_without_an_end(command: tuple[str, ...], number: str) -> None:
    name, *arguments = command
    if name == "fs":
        arguments.reverse()
        arguments.insert(1, number)
    else:
        arguments.append(number)
    done = program(name, *arguments)
    assert done.returncode == 2
    assert number in done.stderr.decode().splitlines()[-1]


def test_fileserver_says_that_a_directory_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("1 127.0.0.1 8080\n")
    (tmp_path / "file").write_text("")
    done = program("fileserver", "--config", tmp_path / "list", "--id", "1", "--dir", tmp_path / "file" / "below")
    assert done.returncode == 2
    assert "Not a directory" in one_line(done)


@pytest.fixture
def listening() -> Iterator[Address]:
    """An address that somebody else listens on, in the middle of ports that nobody does."""
    ports = reserve()
    with socket.create_server(("127.0.0.1", ports.first + 1)) as taken:
        yield Address("127.0.0.1", taken.getsockname()[1])
    ports.release()


def test_start_cluster_says_that_a_port_is_in_use_and_starts_nothing(tmp_path: Path, listening: Address) -> None:
    directory = tmp_path / "data"
    # It is the second server's port, so the first one would have started by the time that this is noticed.
    done = program("start_cluster", "--dir", directory, "--port", str(listening.port - 1), "--nodes", "2")
    assert done.returncode == 2
    assert one_line(done) == f"{listening}: port {listening.port} is in use (client port of server 2)"
    assert not (directory / "cluster.json").exists()


def test_start_cluster_says_that_a_directory_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        done = program("start_cluster", "--dir", directory)
        assert done.returncode == 2
        assert one_line(done).startswith(f"{directory}: ")
        assert "not a directory" in one_line(done).lower()


def test_start_cluster_refuses_another_cluster_than_the_stored_one(tmp_path: Path) -> None:
    config = free_cluster(3)
    path = tmp_path / "cluster.json"
    path.write_text(config.to_json())
    port = config.servers[0].client.port
    for option, value, why in (
        ("--nodes", "5", "this cluster has 3 servers, not 5"),
        ("--port", str(port + 1), f"this cluster's first port is {port}, not {port + 1}"),
        ("--host", "::1", "this cluster's host is 127.0.0.1, not ::1"),
    ):
        done = program("start_cluster", "--dir", tmp_path, option, value)
        assert (done.returncode, one_line(done)) == (2, f"{path}: {why}")
    path.write_text("{")
    done = program("start_cluster", "--dir", tmp_path)
    assert done.returncode == 2
    assert one_line(done).startswith(f"{path}: is not JSON")


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--port", "65000", "port: 65000 is more than 64531: the last of 5 peer ports is 66004"),
        ("--host", "not a host", "host: 'not a host' can't be a host's name or address"),
        ("--host", "192.0.2.1", "192.0.2.1:8080: Cannot assign requested address (client port of server 1)"),
    ],
)
def test_start_cluster_says_that_an_address_cannot_be_used(tmp_path: Path, option: str, value: str, line: str) -> None:
    done = program("start_cluster", "--dir", tmp_path, option, value)
    assert (done.returncode, one_line(done)) == (2, line)


def test_bench_says_that_nobody_is_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and never listens
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        done = program("bench", "--servers", address, "--secs", "0.1")
    assert (done.returncode, one_line(done)) == (1, f"{address}: Connection refused")


# ------------------------------------------------------------------------------- fs, with a server alone


@pytest.fixture(scope="module")
def alone() -> Iterator[Address]:
    """A server alone, as a process; it ends by SIGTERM, sent twice as ``timeout`` does, and with exit status 0."""
    address = free_cluster(1).servers[0].client
    command = [sys.executable, "-m", "fileserver.cli.fileserver", "--alone", "--port", str(address.port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "event=serving " in line:
                break
        yield address
        process.send_signal(signal.SIGTERM)
        assert "event=stopping " in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.fixture
def fs(alone: Address) -> Run:
    """Runs ``bin/fs`` for that server."""

    def run(*arguments: str | Path, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return program("fs", "--servers", str(alone), *arguments, content=content)

    return run


def test_fs_carries_any_bytes(fs: Run) -> None:
    content = bytes(range(256)) * 100
    version = int(fs("write", "fs/binary", content=content).stdout)
    assert fs("read", "fs/binary").stdout == content
    assert fs("stat", "fs/binary").stdout == b"%d %d 0\n" % (version, len(content))
    assert int(fs("append", "fs/binary", "more").stdout) > version
    assert fs("read", "fs/binary").stdout == content + b"more"


def test_fs_exit_status_tells_what_happened(fs: Run) -> None:
    version = fs("write", "fs/status", "x").stdout.decode().strip()
    assert fs("cas", "fs/status", version, "y").returncode == 0
    assert fs("cas", "fs/status", version, "z").returncode == 3
    assert fs("delete", "fs/status", version).returncode == 3
    assert fs("delete", "fs/status").returncode == 0
    for command in (["read"], ["stat"], ["delete"]):
        done = fs(*command, "fs/status")
        assert (done.returncode, one_line(done)) == (1, "there is no such file")
    assert fs("read", "white space").returncode == 2
    assert program("fs", "--servers", "127.0.0.1:1", "write", "x", "y").returncode == 4


def test_fs_expiry(fs: Run) -> None:
    fs("write", "fs/expiry", "x", "--expires", "100")
    assert fs("stat", "fs/expiry").stdout.endswith(b" 1 100\n")
    assert fs("touch", "fs/expiry", "0").returncode == 0
    assert fs("stat", "fs/expiry").stdout.endswith(b" 1 0\n")


def test_fs_lists_a_line_for_each_file(fs: Run) -> None:
    versions = [fs("write", f"fs/list/{name}", "abc").stdout.strip() for name in ("b", "a", "ü")]
    lines = [
        b"fs/list/%s %s 3 0" % (name, version)
        for name, version in zip((b"b", b"a", "ü".encode()), versions, strict=True)
    ]
    assert fs("list", "fs/list/").stdout.splitlines() == sorted(lines)
    assert fs("list", "fs/nothing").stdout == b""


def test_fs_status_for_people_and_for_programs(fs: Run, alone: Address) -> None:
    assert json.loads(fs("status", "--json").stdout)["role"] == "leader"
    done = program("fs", "--servers", f"{alone},127.0.0.1:1", "status")
    assert done.returncode == 0
    rows = done.stdout.decode().splitlines()
    assert str(alone) in rows[1]
    assert "Connection refused" in rows[2]
    assert program("fs", "--servers", "127.0.0.1:1", "status").returncode == 4


def test_bench_against_servers_that_are_there(alone: Address) -> None:
    done = program("bench", "mixed", "--servers", str(alone), "--secs", "0.2", "--files", "10", "--json")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert set(result["results"]) == {"read", "write"}
    assert result["results"]["read"]["p99_us"] > 0
    done = program("bench", "--servers", str(alone), "--secs", "0.2")
    assert "per second" in done.stdout.decode()


def test_fs_takes_the_servers_from_the_environment(alone: Address) -> None:
    command = [sys.executable, "-m", "fileserver.cli.fs", "list", "fs/nothing"]
    done = subprocess.run(command, env={**os.environ, "QUINTET_SERVERS": str(alone)}, check=False, timeout=60)
    assert done.returncode == 0
