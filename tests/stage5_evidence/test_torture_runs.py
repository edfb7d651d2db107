"""``bin/torture`` itself: real servers, real faults. ``-m "not slow"`` leaves them out."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from fileserver.linearizability.checker import check
from fileserver.linearizability.history_json import load_history
from fileserver.torture import namespaces
from tests.stage4_cluster.harness import eventually, program_command, program_environment
from tests.stage5_evidence.torturing import ALL_KINDS, kinds_in, left_out, torture

pytestmark = pytest.mark.slow
SEED_OF_EVERY_KIND = 1154
"""With it, 24 seconds hold a fault of every kind."""


def test_one_of_each_fault_on_three_servers_with_proxies(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    output = torture(
        *("--proxy", "--servers", "3", "--clients", "4", "--minutes", "0.4", "--seed", str(SEED_OF_EVERY_KIND)),
        *("--rate", "200", "--rate-min", "50", "--artifacts", kept),
    )
    assert kinds_in(output) == ALL_KINDS - left_out(output)
    assert "all servers agree" in output
    (replay,) = (line for line in output.splitlines() if line.startswith("again: "))
    options = f"--minutes 0.4 --seed {SEED_OF_EVERY_KIND} --servers 3 --clients 4 --rate 200 --rate-min 50"
    assert replay.startswith(f"again: bin/torture {options} --faults ")
    assert replay.endswith(" --proxy")
    with (kept / "history.jsonl").open() as file:
        assert check(load_history(file), late_slack_us=10**13).is_good
    assert (kept / "plan.txt").read_text().startswith("#1 at ")
    assert (kept / "findings.txt").read_text() == ""
    assert {path.name for path in kept.glob("*.log")} == {"server-1.log", "server-2.log", "server-3.log"}


def test_fail_over_is_measured() -> None:
    output = torture("failover", "--times", "2")
    assert output.startswith("2 fail-overs: p50 ")
    assert "0 acknowledged ones lost" in output


# ------------------------------------------------------------------------------------ what it leaves behind


IGNORING_SIGINT = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""Before a command: as a script starts it in the background."""


@pytest.fixture(params=[(), IGNORING_SIGINT], ids=["in front", "in the background"])
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A run that has come to its faults."""
    with (tmp_path / "said").open("w+") as said:
        process = subprocess.Popen(
            [*request.param, *program_command("torture", "--minutes", "5", "--seed", "1")],
            env=program_environment(),
            stdout=said,
            stderr=said,
            text=True,
        )
        yield process
        process.kill()
        process.wait()


async def until_under_way(tmp_path: Path) -> None:
    async def look() -> bool:
        return "faults ..." in (tmp_path / "said").read_text()

    await eventually("the faults begin", look)


def children_of(outside: int) -> list[int]:
    """The processes of a run, by what its environment says."""
    wanted = f"{namespaces.INSIDE_VARIABLE}={outside}\0".encode()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                is_one = wanted in (place / "environ").read_bytes()
            except OSError:
                continue
            if is_one:
                found.append(int(place.name))
    return found


def places_of(outside: int) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"quintet-torture-{outside}-*"))


async def until_all_gone(outside: int) -> None:
    async def look() -> bool:
        return not children_of(outside)

    await eventually("no process is left", look)


@pytest.mark.skipif(not namespaces.can_be_apart(), reason="there are no namespaces here")
async def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path, running: subprocess.Popen[str]) -> None:
    await until_under_way(tmp_path)
    assert len(children_of(running.pid)) == 6  # five servers, and who tortures them
    assert places_of(running.pid)
    running.send_signal(signal.SIGTERM)
    status = await trio.to_thread.run_sync(running.wait)
    assert status == 130, (tmp_path / "said").read_text()
    assert children_of(running.pid) == []
    assert places_of(running.pid) == []


@pytest.mark.skipif(not namespaces.can_be_apart(), reason="there are no namespaces here")
async def test_a_run_that_is_killed_leaves_a_directory_that_the_next_one_removes(
    tmp_path: Path, running: subprocess.Popen[str]
) -> None:
    await until_under_way(tmp_path)
    running.kill()
    await trio.to_thread.run_sync(running.wait)
    await until_all_gone(running.pid)
    (place,) = places_of(running.pid)
    run = partial(
        subprocess.run,
        program_command("torture", "--minutes", "0.05", "--faults", "kill", "--rate-min", "0", "--servers", "3"),
        env={**program_environment(), "COLUMNS": "500"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = await trio.to_thread.run_sync(run)
    assert said.returncode == 0, said.stdout + said.stderr
    assert f"left over by a run that was killed, and removed: {place}" in said.stderr
    assert places_of(running.pid) == []
