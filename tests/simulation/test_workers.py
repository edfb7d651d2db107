"""Processes that work for a command end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, signal, sys, time
from fileserver.simulation.workers import start_workers

def work(seconds):
    os.write(1, b"ignores interrupts\\n" if signal.getsignal(signal.SIGINT) is signal.SIG_IGN else b"?\\n")
    time.sleep(seconds)

if __name__ == "__main__":
    with start_workers(2) as pool:
        list(pool.map(work, [int(sys.argv[1])] * 2))
"""


def start(directory: Path, seconds: int) -> subprocess.Popen[bytes]:
    """A command with two pieces of work, which take so long each."""
    program = directory / "command.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, program, str(seconds)], stdout=subprocess.PIPE, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_they_end_when_the_command_is_killed(tmp_path: Path, by: signal.Signals) -> None:
    with start(tmp_path, 100_000) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"ignores interrupts\n"] * 2
        process.send_signal(by)
        # The output ends when the last process that has it has ended.
        assert process.stdout.read() == b""
    assert process.returncode == -by


@pytest.mark.slow
def test_they_end_when_there_is_no_more_work(tmp_path: Path) -> None:
    with start(tmp_path, 0) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ignores interrupts\n" * 2
    assert process.returncode == 0
