"""Make or mend the checkout's ``.venv``: ``python3 bin/_make_environment.py runtime|dev``.

Runs under any plain Python from 3.11 on, with the standard library alone, and is called by ``bin/_bootstrap`` when that
finds the environment missing or out of date. What it leaves behind:

* ``.venv``, filled from ``requirements.lock`` or ``requirements-dev.lock`` by pip, which checks each file's hash;
* within it a ``.pth`` file that puts this checkout on the path, so that its code needs no installing, and is always
  the code that runs;
* ``quintet-place`` and ``quintet-<kind>.lock``, which tell ``bin/_bootstrap`` that nothing is left to be done. They
  are written last, so an environment that was only half made when the power went is mended by the next run.

Several first runs at the same time take turns by a lock on ``.venv.lock``; all but the first find the work done.

A new environment is made with the quickest suitable Python of this machine: one that was built without optimisation
can need a third more processor time for everything than its neighbour. To be judged, each runs this file too, with
``describe`` or ``measure`` as its argument. An environment that is there keeps the Python that it has.
"""

from __future__ import annotations

import dataclasses
import fcntl
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
PLACE = ENVIRONMENT / "quintet-place"
LOCK_FILES = {"runtime": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}

OLDEST = [3, 11]
NAMES = ("/usr/bin/python3", "/usr/local/bin/python3", "python3.14", "python3.13", "python3.12", "python3.11")
# Another Python has to need at most this share of the time: noise isn't to decide.
WORTH_IT = 0.92
TURNS = 9


class BootstrapError(Exception):
    """The environment can't be made; the text is the one line that people see."""


def main() -> int:
    """Make the environment unless another process has done so meanwhile; returns the exit status."""
    if sys.argv[1:] == ["describe"]:
        print(json.dumps(dataclasses.asdict(this_python())))
        return 0
    if sys.argv[1:] == ["measure"]:
        print(seconds_for_some_work())
        return 0
    if len(sys.argv) != 2 or sys.argv[1] not in LOCK_FILES:
        print("usage: _make_environment.py runtime|dev", file=sys.stderr)
        return 2
    kind = sys.argv[1]
    try:
        with (ROOT / ".venv.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if not is_ready(kind):
                make(kind)
    except (BootstrapError, OSError) as error:
        print(f"quintet: {error}", file=sys.stderr)
        return 2
    return 0


def is_ready(kind: str) -> bool:
    """Whether the environment is what ``make(kind)`` would leave."""
    return place_is_right() and same_contents(LOCK_FILES[kind], stamp(kind))


def stamp(kind: str) -> Path:
    """The copy, within the environment, of the lock file that it was filled from."""
    return ENVIRONMENT / f"quintet-{kind}.lock"


def place_is_right() -> bool:
    """Whether the environment was made for this very directory, and its Python is still the one it was made with."""
    try:
        return os.access(PYTHON, os.X_OK) and PLACE.read_text() == place()
    except (FileNotFoundError, NotADirectoryError):
        return False


def place() -> str:
    """What the file ``quintet-place`` has to say: the checkout, then the Python that the environment leads to."""
    return f"{ROOT}\n{PYTHON.resolve()}\n"


def same_contents(one: Path, other: Path) -> bool:
    """Whether both files are there and hold the same bytes."""
    try:
        return one.read_bytes() == other.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False


def make(kind: str) -> None:
    """Make the environment, or bring it up to date, whatever state it is in."""
    started_at = time.monotonic()
    is_new = not place_is_right()
    python = this_python()
    doing = f"bringing .venv up to date (from {LOCK_FILES[kind].name})"
    if is_new:
        others = [other for name in names_to_try(os.environ) if (other := described(name)) is not None]
        python = choose([python, *others], measured)
        doing = f"making .venv, once (from {LOCK_FILES[kind].name}, with {python.executable})"
    print(f"quintet: {doing} ...", file=sys.stderr, flush=True)
    if is_new:
        create_empty(python)
    for each in LOCK_FILES:
        stamp(each).unlink(missing_ok=True)
    install(LOCK_FILES[kind], python)
    site_packages = next((ENVIRONMENT / "lib").glob("python3*/site-packages"))
    (site_packages / "quintet-checkout.pth").write_text(f"{ROOT}\n")
    PLACE.write_text(place())
    for each in ("runtime", "dev") if kind == "dev" else ("runtime",):  # the development lock has all of the other
        shutil.copyfile(LOCK_FILES[each], stamp(each))
    print(f"quintet: .venv is ready, after {time.monotonic() - started_at:.1f} s", file=sys.stderr, flush=True)


def create_empty(python: Python) -> None:
    """A fresh environment in place of whatever stands there, with pip in it if this Python can do that."""
    if lack := python.lack():
        raise BootstrapError(lack)
    if ENVIRONMENT.is_symlink() or ENVIRONMENT.is_file():
        ENVIRONMENT.unlink()
    elif ENVIRONMENT.exists():
        shutil.rmtree(ENVIRONMENT)
    check([python.executable, "-m", "venv", *([] if python.has_ensurepip else ["--without-pip"]), str(ENVIRONMENT)])


def install(lock_file: Path, python: Python) -> None:
    """Have pip install exactly what the lock file names, each file checked against its hash."""
    arguments = ["install", "--quiet", "--disable-pip-version-check", "--no-input"]
    arguments += ["--require-hashes", "--no-deps", "--requirement", str(lock_file)]
    inside = next((ENVIRONMENT / "lib").glob("python3*/site-packages/pip"), None)
    # Any pip outside will do. Where this Python has none, the one that the environment was made with has.
    outside = python.executable if python.has_pip else str(PYTHON.resolve())
    pip = [str(PYTHON), "-m", "pip"] if inside else [outside, "-m", "pip", "--python", str(PYTHON)]
    check([*pip, *arguments])


def check(command: list[str]) -> None:
    """Run a command, its output to our standard error: standard output belongs to the program that was asked for."""
    done = subprocess.run(command, stdout=sys.stderr, env=clean_environment(), check=False)
    if done.returncode != 0:
        what = " ".join(command[:4])
        raise BootstrapError(f"could not make {ENVIRONMENT}: `{what} ...` ended with {done.returncode}")


def clean_environment() -> dict[str, str]:
    """Our environment variables but for those that would put somebody else's code in front."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}


# ------------------------------------------------------------------------------- which Python it is made with


@dataclasses.dataclass(frozen=True)
class Python:
    """A Python of this machine, and what it has of that which an environment needs."""

    executable: str
    version: list[int]  # major, minor
    implementation: str
    has_venv: bool
    has_ensurepip: bool
    has_pip: bool

    def lack(self) -> str | None:
        """Why this Python can't make an environment, or None if it can.

        Debian puts the means to have pip in it into a package of its own, python3-venv; where it is missing, a pip
        outside of the environment will do as well.
        """
        if not self.has_venv:
            return f"{self.executable} has no venv module; on Debian: apt-get install python3-venv"
        if not self.has_ensurepip and not self.has_pip:
            return f"{self.executable} has neither ensurepip nor pip; on Debian: apt-get install python3-venv"
        return None

    def is_suitable(self) -> bool:
        """Whether it can make an environment that this project runs well in."""
        return self.version >= OLDEST and self.implementation == "cpython" and self.lack() is None


def names_to_try(environment: Mapping[str, str]) -> Sequence[str]:
    """The other Pythons that may be there: none for those who name one themselves."""
    return () if environment.get("PYTHON") else NAMES


def choose(pythons: Sequence[Python], seconds_of: Callable[[Python], float]) -> Python:
    """The first of them that is suitable, or another that is much quicker.

    Nothing is measured unless there is a choice. If none is suitable it is the first, which can then say what it lacks.
    """
    distinct: dict[str, Python] = {}
    for python in filter(Python.is_suitable, pythons):
        distinct.setdefault(os.path.realpath(python.executable), python)
    suitable = list(distinct.values())
    if len(suitable) < 2:
        return (suitable or pythons)[0]
    # In turns, each against the first one in the same turn: a machine that others use is now quicker, now slower.
    turns = [[seconds_of(python) for python in suitable] for _ in range(TURNS)]
    shares = [
        statistics.median([share_of(seconds, turn[0]) for seconds, turn in zip(column, turns, strict=True)])
        for column in zip(*turns, strict=True)
    ]
    quickest = min(shares)
    return suitable[shares.index(quickest) if quickest <= WORTH_IT else 0]


def share_of(seconds: float, first_seconds: float) -> float:
    """How much of the first one's time it takes, where to fail is to take forever."""
    if seconds == first_seconds:
        return 1.0
    return seconds / first_seconds


def this_python() -> Python:
    """The Python that runs this."""
    has = {name: importlib.util.find_spec(name) is not None for name in ("venv", "ensurepip", "pip")}
    version = list(sys.version_info[:2])
    return Python(sys.executable, version, sys.implementation.name, has["venv"], has["ensurepip"], has["pip"])


def described(name: str) -> Python | None:
    """The Python of this name or path; None if there is none, or one so old that it can't run this file."""
    try:
        return Python(**json.loads(answer(name, "describe")))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def measured(python: Python) -> float:
    """How many seconds this Python takes for some work; endlessly many if it fails."""
    try:
        return float(answer(python.executable, "measure"))
    except (OSError, subprocess.SubprocessError, ValueError):
        return float("inf")


def answer(python: str, question: str) -> str:
    """What this file prints when that Python runs it; raises OSError or SubprocessError if it can't."""
    command = [python, str(Path(__file__).resolve()), question]
    # Standard input belongs to the program that was asked for, too.
    return subprocess.check_output(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(), text=True, timeout=60
    )


def seconds_for_some_work() -> float:
    """The processor time of a little work of the kind that servers do, in seconds: the best of several rounds."""
    rounds = []
    for _ in range(7):
        started_at = time.process_time()
        some_work()
        rounds.append(time.process_time() - started_at)
    return min(rounds)


class Tally:
    """What ``some_work`` counts with: slots and methods, like most classes here."""

    __slots__ = ("by_name", "count", "recent")

    def __init__(self) -> None:
        self.count = 0
        self.by_name: dict[str, int] = {}
        self.recent: list[tuple[int, str]] = []

    def add(self, name: str, number: int) -> None:
        """Count one."""
        self.count += 1
        self.by_name[name] = self.by_name.get(name, 0) + number
        self.recent.append((number, name))
        if self.is_full():
            self.recent = sorted(self.recent)[32:]

    def is_full(self) -> bool:
        """Whether it is time to forget some."""
        return len(self.recent) >= 64


def some_work() -> None:
    """Calls, attributes, dictionaries, lists and tuples."""
    tally = Tally()
    names = [f"name {number}" for number in range(100)]
    for turn in range(300):
        for number, name in enumerate(names):
            tally.add(name, number ^ turn)


if __name__ == "__main__":
    sys.exit(main())
