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
    ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    os.write(1, b"ignores interrupts\\n" if ignores else b"can be interrupted\\n")
    time.sleep(seconds)

if __name__ == "__main__":
    with start_workers(2, ignore_interrupt=sys.argv[2] == "ignore") as pool:
        list(pool.map(work, [int(sys.argv[1])] * 2))
"""
LONG = "100000"


def start(directory: Path, seconds: str, interrupts: str) -> subprocess.Popen[bytes]:
    """A command, in a group of its own, with two pieces of work, which take so long each."""
    program = directory / "command.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), seconds, interrupts]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize(
    ("interrupts", "said"), [("ignore", b"ignores interrupts\n"), ("take", b"can be interrupted\n")]
)
def test_they_end_when_the_command_is_killed(tmp_path: Path, by: signal.Signals, interrupts: str, said: bytes) -> None:
    with start(tmp_path, LONG, interrupts) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [said] * 2
        process.send_signal(by)
        # The output ends when the last process that has it has ended.
        assert process.stdout.read() == b""
    assert process.returncode == -by


@pytest.mark.slow
def test_an_interrupt_of_all_ends_long_work_that_does_not_ignore_it(tmp_path: Path) -> None:
    with start(tmp_path, LONG, "take") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"can be interrupted\n"] * 2
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == b""
    assert process.returncode


@pytest.mark.slow
def test_they_end_when_there_is_no_more_work(tmp_path: Path) -> None:
    with start(tmp_path, "0", "ignore") as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ignores interrupts\n" * 2
    assert process.returncode == 0
