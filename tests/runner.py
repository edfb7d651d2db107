"""What ``bin/test`` does: lint, types, the tests of the stages, and the coverage of the pure modules.

``bin/test evidence`` does the rest: the simulator and its scenarios, planted bugs, crash images, the linearizability
checker, fuzzing, a minute of torture, speed against a fixed load, and 300 simulated runs.

Each step runs whatever became of the one before it, so one run shows everything that is wrong; the exit status is 0
when all of them passed. Naming a part (``bin/test stage2``) runs that part's tests alone, without the other steps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = {
    "stage1": "tests/stage1_fileserver",
    "stage2": "tests/stage2_statemachine",
    "stage3": "tests/stage3_raftnode",
    "stage4": "tests/stage4_cluster",
    "project": "tests/project",
    "stage5": "tests/stage5_evidence",
    "stage6": "tests/stage6_speed",
    "simulation": "tests/simulation",
}
STAGES = ("stage1", "stage2", "stage3", "stage4", "stage6", "project")
LAYERING = "tests/test_layering.py"
PROCESSOR_TIME = "tests/stage6_speed/test_processor_time.py"
"""Run by itself: beside others it would measure those."""
PURE_EVIDENCE = ("test_linearizability*.py", "test_torture.py", "test_torture_reports.py")
"""Tests of pure modules in stage 5, whose coverage is measured; that of the others would only slow them down."""
SEEDS = 300
"""How many simulated runs are evidence enough for every change."""
WORKERS = 2  # stage 4 starts five processes per test, so more workers than this disturb each other's timing


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    options, pytest_options = parse(sys.argv[1:] if arguments is None else arguments)
    os.chdir(ROOT)
    wanted = options.what or ["lint", "types", "tests"]
    paths = [PARTS.get(each, each) for each in wanted if each not in STEPS]
    steps: list[tuple[str, list[str]]] = []
    if "lint" in wanted:
        steps.append(("ruff check", ["ruff", "check", "."]))
        steps.append(("ruff format --check", ["ruff", "format", "--check", "."]))
    if "types" in wanted:
        steps.append(("mypy --strict", ["mypy"]))
    if "tests" in wanted:
        paths = [*(PARTS[stage] for stage in STAGES), f"--ignore={PROCESSOR_TIME}", LAYERING, *paths]
    if paths:
        everything = "tests" in wanted and not pytest_options
        steps.append(("pytest", pytest_command(options.workers, paths, pytest_options, with_coverage=everything)))
        if everything:
            steps.append(("coverage of the pure modules", coverage_command("fully_covered")))
    if "evidence" in wanted:
        steps += evidence_steps(options.workers, pytest_options)
    return run_all(steps)


def evidence_steps(workers: int, pytest_options: list[str]) -> list[tuple[str, list[str]]]:
    """What ``bin/test evidence`` does."""
    folder = ROOT / PARTS["stage5"]
    pure = sorted(str(path.relative_to(ROOT)) for pattern in PURE_EVIDENCE for path in folder.glob(pattern))
    others = [PARTS["simulation"], PARTS["stage5"], *(f"--ignore={path}" for path in pure)]
    return [
        ("pytest: pure parts of the evidence", pytest_command(workers, pure, pytest_options, with_coverage=True)),
        ("coverage of these", coverage_command("fully_covered_by_evidence")),
        ("pytest: evidence", pytest_command(workers, others, pytest_options, with_coverage=False)),
        ("speed, against a fixed load", pytest_command(1, [PROCESSOR_TIME], pytest_options, with_coverage=False)),
        (f"simulation of {SEEDS} seeds", ["fileserver.cli.simulate", "--seeds", str(SEEDS), "--jobs", str(workers)]),
    ]


STEPS = ("lint", "types", "tests", "evidence")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into our options and, after ``--``, pytest's."""
    parser = argparse.ArgumentParser(
        prog="bin/test",
        description="Run ruff, mypy --strict and pytest with coverage; or, with arguments, only the parts named.",
        epilog="What follows -- goes to pytest, as in: bin/test stage1 -- -k parser -x",
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(STEPS)}, {', '.join(PARTS)}, or a path of a test file or folder "
        "(without any: lint, types, tests)",
    )
    parser.add_argument("--workers", type=int, default=WORKERS, help="tests that run at a time (default %(default)s)")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    for each in options.what:
        if each not in {*STEPS, *PARTS} and not Path(ROOT, each.split("::")[0]).exists():
            parser.error(f"there is no part, file or folder named {each!r}")
    return options, arguments[split + 1 :]


def pytest_command(workers: int, paths: list[str], more: list[str], *, with_coverage: bool) -> list[str]:
    """The arguments to run pytest with."""
    # By file, so that what a file's tests share, such as a cluster, is started once and not by each worker.
    spread = ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    measure = ["--cov", "--cov-branch", "--cov-report="] if with_coverage else []
    return ["pytest", *spread, *measure, *paths, *more]


def coverage_command(key: str) -> list[str]:
    """The arguments that check what pyproject.toml, by that key, says must be covered fully."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    modules = settings["tool"]["quintet"]["coverage"][key]
    return ["coverage", "report", f"--include={','.join(modules)}", "--fail-under=100"]


def run_all(steps: list[tuple[str, list[str]]]) -> int:
    """Run each step's module; says at the end what became of each. Returns 0 when all passed, else 1."""
    outcomes = []
    for title, command in steps:
        print(f"\n=== {title}", flush=True)
        started_at = time.monotonic()
        status = subprocess.run([sys.executable, "-m", *command], check=False).returncode
        outcomes.append((title, status, time.monotonic() - started_at))
    print("\n=== what became of it")
    for title, status, seconds in outcomes:
        print(f"{'passed' if status == 0 else 'FAILED'}  {title} ({seconds:.0f} s)")
    return 1 if any(status != 0 for _, status, _ in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
