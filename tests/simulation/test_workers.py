"""Processes that work for a command end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys, time
from fileserver.simulation.workers import workers

def work(seconds):
    os.write(1, b"working\\n")
    time.sleep(seconds)

if __name__ == "__main__":
    with workers(2) as pool:
        for waiting in [pool.submit(work, int(sys.argv[1])) for _ in range(10)]:
            waiting.result()
"""


def start(directory: Path, seconds: int) -> subprocess.Popen[bytes]:
    """A command, in a group of its own, with ten pieces of work for two workers, which take so long each."""
    program = directory / "command.py"
    program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(program), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "by"), [(os.kill, signal.SIGTERM), (os.kill, signal.SIGKILL), (os.killpg, signal.SIGINT)]
)
def test_they_end_at_once_with_the_command(tmp_path: Path, end: Callable[[int, int], None], by: signal.Signals) -> None:
    with start(tmp_path, 100_000) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"working\n"] * 2
        end(process.pid, by)
        # The output ends when the last process that has it has ended.
        assert process.stdout.read() == b""
    assert process.returncode == -by


@pytest.mark.slow
def test_they_end_when_all_work_is_done(tmp_path: Path) -> None:
    with start(tmp_path, 0) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"working\n" * 10
    assert process.returncode == 0
