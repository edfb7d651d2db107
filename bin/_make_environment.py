"""Make or mend the checkout's ``.venv``: ``python3 bin/_make_environment.py runtime|dev``.

Runs under any plain Python from 3.11 on, with the standard library alone, and is called by ``bin/_bootstrap`` when that
finds the environment missing or out of date. What it leaves behind:

* ``.venv``, filled from ``requirements.lock`` or ``requirements-dev.lock`` by pip, which checks each file's hash;
* within it a ``.pth`` file that puts this checkout on the path, so that its code needs no installing, and is always
  the code that runs;
* ``quintet-place`` and ``quintet-<kind>.lock``, which tell ``bin/_bootstrap`` that nothing is left to be done. They
  are written last, so an environment that was only half made when the power went is mended by the next run.

Several first runs at the same time take turns by a lock on ``.venv.lock``; all but the first find the work done.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
PLACE = ENVIRONMENT / "quintet-place"
LOCK_FILES = {"runtime": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}


class BootstrapError(Exception):
    """The environment can't be made; the text is the one line that people see."""


def main() -> int:
    """Make the environment unless another process has done so meanwhile; returns the exit status."""
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
    doing = "making .venv, once" if is_new else "bringing .venv up to date"
    print(f"quintet: {doing} (from {LOCK_FILES[kind].name}) ...", file=sys.stderr, flush=True)
    if is_new:
        create_empty()
    for each in LOCK_FILES:
        stamp(each).unlink(missing_ok=True)
    install(LOCK_FILES[kind])
    site_packages = next((ENVIRONMENT / "lib").glob("python3*/site-packages"))
    (site_packages / "quintet-checkout.pth").write_text(f"{ROOT}\n")
    PLACE.write_text(place())
    for each in ("runtime", "dev") if kind == "dev" else ("runtime",):  # the development lock has all of the other
        shutil.copyfile(LOCK_FILES[each], stamp(each))
    print(f"quintet: .venv is ready, after {time.monotonic() - started_at:.1f} s", file=sys.stderr, flush=True)


def create_empty() -> None:
    """A fresh environment in place of whatever stands there.

    With pip in it if this Python can do that. Debian puts the means into a package of its own, python3-venv;
    where it is missing, a pip outside of the environment will do as well.
    """
    if ENVIRONMENT.is_symlink() or ENVIRONMENT.is_file():
        ENVIRONMENT.unlink()
    elif ENVIRONMENT.exists():
        shutil.rmtree(ENVIRONMENT)
    if importlib.util.find_spec("venv") is None:
        raise BootstrapError("this Python has no venv module; on Debian: apt-get install python3-venv")
    has_pip = importlib.util.find_spec("ensurepip") is not None
    if not has_pip and importlib.util.find_spec("pip") is None:
        raise BootstrapError("this Python has neither ensurepip nor pip; on Debian: apt-get install python3-venv")
    check([sys.executable, "-m", "venv", *([] if has_pip else ["--without-pip"]), str(ENVIRONMENT)])


def install(lock_file: Path) -> None:
    """Have pip install exactly what the lock file names, each file checked against its hash."""
    arguments = ["install", "--quiet", "--disable-pip-version-check", "--no-input"]
    arguments += ["--require-hashes", "--no-deps", "--requirement", str(lock_file)]
    inside = next((ENVIRONMENT / "lib").glob("python3*/site-packages/pip"), None)
    pip = [str(PYTHON), "-m", "pip"] if inside else [sys.executable, "-m", "pip", "--python", str(PYTHON)]
    check([*pip, *arguments])


def check(command: list[str]) -> None:
    """Run a command, its output to our standard error: standard output belongs to the program that was asked for."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
    done = subprocess.run(command, stdout=sys.stderr, env=environment, check=False)
    if done.returncode != 0:
        what = " ".join(command[:4])
        raise BootstrapError(f"could not make {ENVIRONMENT}: `{what} ...` ended with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
