"""Runs ``bin/torture`` for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fileserver.torture.plan import FaultKind
from tests.stage4_cluster.harness import program_command, program_environment

RUN_SECONDS = 200.0
ALL_KINDS = {kind.value for kind in FaultKind}


def torture(*arguments: str | Path) -> str:
    """Run ``bin/torture``; it has to find that all is well. Gives what it prints."""
    command = program_command("torture", *arguments)
    run = subprocess.run(
        command, env=program_environment(), capture_output=True, text=True, check=False, timeout=RUN_SECONDS
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr[-3000:]}"
    return run.stdout


def kinds_in(output: str) -> set[str]:
    """The kinds of faults that the table tells of."""
    return {line.split()[0] for line in output.splitlines() if line.split() and line.split()[0] in ALL_KINDS}


def left_out(output: str) -> set[str]:
    """The kinds of faults that this machine doesn't have."""
    return {line.split()[2].rstrip(":") for line in output.splitlines() if line.startswith("left out: ")}
