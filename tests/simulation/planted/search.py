"""Looking for a planted bug: run after run, from one seed to the next, until something goes wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fileserver.simulation.watcher import Watcher
from raftnode.disk_health import StorageError
from tests.simulation.planted.bug import Bug
from tests.simulation.planted.findings import Finding
from tests.simulation.planted.patching import planted

RUN_US = 60_000_000
"""How long the phase with faults lasts."""
SEEDS_MAX = 1_000
MESSAGES_MAX = 250_000
"""A run with more of them is given up: a bug can make servers talk without an end."""

ROOT = Path(__file__).parents[3]
TEST_SECONDS_MAX = 120

FINDINGS = (AssertionError, ArithmeticError, LookupError, ValueError, TypeError, RuntimeError, OSError, StorageError)
"""What ends a run that found something: a broken promise, or an exception that no server should end by.

Neither ``NameError`` nor ``AttributeError`` is one: these show a patch that was written wrong.
"""


class _TooMuch(Exception):
    """The run is given up."""


class _Limit(Watcher):
    """Watches for a run that doesn't come to an end."""

    def __init__(self) -> None:
        """No message yet."""
        self._left = MESSAGES_MAX

    def arrived(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        """See Watcher."""
        self._left -= 1
        if self._left < 0:
            raise _TooMuch


def run_with(bug: Bug, seed: int) -> Finding | None:
    """One run with the bug planted; None if nothing was found."""
    with planted(bug.edits):
        return _run(bug, seed)


def run_without(bug: Bug, seed: int) -> Finding | None:
    """The same run of the product as it is. To find something here is a false alarm, or a real bug."""
    return _run(bug, seed)


def _run(bug: Bug, seed: int) -> Finding | None:
    world = bug.conditions.world(seed, _Limit())
    try:
        world.run(RUN_US)
    except FINDINGS as error:
        return Finding(seed, type(error).__name__, " ".join(str(error).split()))
    except _TooMuch:
        return None
    finally:
        world.drop()
    return None


def find(bug: Bug, first_seed: int = 1, last_seed: int = SEEDS_MAX) -> Finding | None:
    """The first finding from one seed to another."""
    for seed in range(first_seed, last_seed + 1):
        found = run_with(bug, seed)
        if found is not None:
            return found
    return None


def fails_with(bug: Bug) -> Finding | None:
    """Run the bug's named test with the bug planted, in a process of its own; None if it passes all the same."""
    assert bug.test is not None, "it has a named test"
    options = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    plugin = ["-p", "tests.simulation.planted.plugin", "--planted-bug", bug.name]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugin, bug.test],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TEST_SECONDS_MAX,
        check=False,
    )
    if done.returncode == pytest.ExitCode.TESTS_FAILED:
        why = next((line for line in done.stdout.splitlines() if line.startswith("FAILED")), "")
        return Finding(0, bug.test.rpartition("/")[2], why)
    if done.returncode == pytest.ExitCode.OK:
        return None
    raise RuntimeError(f"pytest could not run {bug.test}: {done.stdout}{done.stderr}")
