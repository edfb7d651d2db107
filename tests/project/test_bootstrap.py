"""The scripts of bin/ in a fresh checkout: they make ``.venv`` by themselves, once, and notice when it is out of date.

These install the locked packages for real, from whatever index this machine's pip is set up to use.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from itertools import chain, repeat
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from bin import _make_environment
from bin._make_environment import Python

ROOT = Path(__file__).resolve().parent.parent.parent
MAKING = "quintet: making .venv, once"
UPDATING = "quintet: bringing .venv up to date"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh checkout whose environment was made by two first runs at the same time."""
    root = tmp_path_factory.mktemp("bootstrap") / "a checkout"
    root.mkdir()
    for name in ("bin", "fileserver", "raftnode", "statemachine"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, root / name)
    command = [str(root / "bin" / "fs"), "--help"]
    first_runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in first_runs]
    assert all(out.startswith("Usage: bin/fs") for out, _ in outputs), outputs
    assert sum(err.count(MAKING) for _, err in outputs) == 1, outputs
    return root


def run(script: Path, cwd: Path | str = "/") -> str:
    """Run a script with --help; returns what it said on standard error."""
    done = subprocess.run([script, "--help"], capture_output=True, text=True, cwd=cwd, check=False, timeout=300)
    assert done.returncode == 0, done
    assert done.stdout.startswith("Usage: bin/")
    return done.stderr


def test_a_second_start_is_quick_and_silent(checkout: Path) -> None:
    started_at = time.monotonic()
    assert run(checkout / "bin" / "start_cluster") == ""
    assert time.monotonic() - started_at < 3


def test_it_runs_its_own_code_wherever_it_is_called(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "fileserver.py").write_text("raise SystemExit('the wrong module')")
    (tmp_path / "fs").symlink_to(checkout / "bin" / "fs")
    assert run(tmp_path / "fs", cwd=tmp_path) == ""
    code = "import fileserver, raftnode, statemachine as s; print(fileserver.__file__, raftnode.__file__, s.__file__)"
    python = checkout / ".venv" / "bin" / "python"
    done = subprocess.run([python, "-P", "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.count(f"{checkout}/") == 3


def test_a_changed_lock_file_is_noticed(checkout: Path) -> None:
    with (checkout / "requirements.lock").open("a") as lock:
        lock.write("# changed\n")
    assert UPDATING in run(checkout / "bin" / "fs")
    assert run(checkout / "bin" / "fs") == ""


def test_an_environment_that_was_half_made_is_mended(checkout: Path) -> None:
    (checkout / ".venv" / "quintet-runtime.lock").unlink()
    assert UPDATING in run(checkout / "bin" / "fs")


def test_a_moved_checkout_makes_its_environment_anew(checkout: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(checkout, moved, symlinks=True)
    assert MAKING in run(moved / "bin" / "fs")
    assert run(moved / "bin" / "fs") == ""


def test_a_python_that_has_gone_is_noticed(checkout: Path, tmp_path: Path) -> None:
    """As after an upgrade of the system: the environment's link leads nowhere, or to another Python."""
    python = checkout / ".venv" / "bin" / "python"
    target = python.readlink()
    ask = f'root="{checkout}"; . "$root/bin/_bootstrap"; environment_is_ready runtime "$root/requirements.lock"'
    outcomes = []
    try:
        for leads_to in (target, tmp_path / "nowhere", Path("/bin/sh")):
            python.unlink()
            python.symlink_to(leads_to)
            outcomes.append(subprocess.run(["sh", "-c", ask], check=False, timeout=60).returncode == 0)
    finally:
        python.unlink()
        python.symlink_to(target)
    assert outcomes == [True, False, False]


def test_a_package_that_is_not_the_locked_one_is_refused(checkout: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkout, broken, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    lock = broken / "requirements.lock"
    lock.write_text("click==8.1.7 --hash=sha256:" + "0" * 64 + "\n")
    done = subprocess.run([broken / "bin" / "fs"], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("quintet: could not make ")


def test_without_a_python_that_is_new_enough(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bin", tmp_path / "checkout" / "bin")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "readlink", "cmp"):
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(f"there is no {name}"))
    environment = {**os.environ, "PATH": str(tools)}
    environment.pop("PYTHON", None)
    script = tmp_path / "checkout" / "bin" / "fs"
    done = subprocess.run([script], capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("quintet: Python 3.11 or newer is needed")
    environment["PYTHON"] = str(tools / "sh")
    done = subprocess.run([script], capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, f"quintet: PYTHON={tools / 'sh'} names no Python 3.11 or newer\n")


# ------------------------------------------------------------------------------------- which Python it is made with

FIRST = Python("/somewhere/first", [3, 11], "cpython", has_venv=True, has_ensurepip=True, has_pip=True)
OTHER = dataclasses.replace(FIRST, executable="/somewhere/other")
THIRD = dataclasses.replace(FIRST, executable="/somewhere/third", version=[3, 13])
BARE = dataclasses.replace(FIRST, executable="/somewhere/bare", has_venv=False)
WITHOUT_PIP = dataclasses.replace(FIRST, executable="/somewhere/pipless", has_ensurepip=False, has_pip=False)
PIP_OUTSIDE = dataclasses.replace(FIRST, executable="/somewhere/outside", has_ensurepip=False)
OLD = dataclasses.replace(FIRST, executable="/somewhere/old", version=[3, 10])
PYPY = dataclasses.replace(FIRST, executable="/somewhere/pypy", implementation="pypy")


@pytest.mark.parametrize(
    ("pythons", "seconds", "best"),
    [
        ([FIRST, OTHER], [1.0, 0.70], OTHER),
        ([FIRST, OTHER], [1.0, 0.92], OTHER),
        ([FIRST, OTHER], [1.0, 0.93], FIRST),
        ([FIRST, OTHER], [0.7, 1.0], FIRST),
        ([FIRST, OTHER, THIRD], [1.0, 0.7, 0.6], THIRD),
        ([FIRST, OTHER, THIRD], [1.0, 0.6, 0.7], OTHER),
        ([FIRST, OTHER, THIRD], [1.0, 0.7, 0.7], OTHER),
        ([FIRST, PIP_OUTSIDE], [1.0, 0.7], PIP_OUTSIDE),
        ([BARE, OTHER, THIRD], [None, 1.0, 0.95], OTHER),
        ([BARE, OTHER, THIRD], [None, 1.0, 0.7], THIRD),
        ([FIRST, OTHER], [1.0, float("inf")], FIRST),
        ([FIRST, OTHER], [float("inf"), 1.0], OTHER),
        ([FIRST, OTHER], [float("inf"), float("inf")], FIRST),
    ],
)
def test_the_first_python_unless_another_is_much_quicker(
    pythons: list[Python], seconds: list[float], best: Python
) -> None:
    assert _make_environment.choose(pythons, lambda python: seconds[pythons.index(python)]) == best


@pytest.mark.parametrize(
    ("pythons", "only"),
    [
        ([FIRST], FIRST),
        ([FIRST, FIRST], FIRST),
        ([FIRST, BARE, WITHOUT_PIP, OLD, PYPY], FIRST),
        ([BARE, OTHER], OTHER),
        ([WITHOUT_PIP, PIP_OUTSIDE], PIP_OUTSIDE),
        ([PYPY, OTHER], OTHER),
        ([WITHOUT_PIP, BARE], WITHOUT_PIP),
        ([PYPY], PYPY),
    ],
)
def test_without_a_choice_nothing_is_measured(pythons: list[Python], only: Python) -> None:
    def seconds_of(python: Python) -> float:
        raise AssertionError(python)

    assert _make_environment.choose(pythons, seconds_of) == only


def test_links_to_one_python_are_no_choice(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    link, real = (dataclasses.replace(FIRST, executable=str(tmp_path / name)) for name in ("link", "real"))
    test_without_a_choice_nothing_is_measured([link, real], link)


def test_one_slow_moment_decides_nothing() -> None:
    answers = {FIRST.executable: chain([1.5, 1.0], repeat(1.4)), OTHER.executable: chain([1.0], repeat(1.5))}
    assert _make_environment.choose([FIRST, OTHER], lambda python: next(answers[python.executable])) == FIRST


def test_one_quick_moment_decides_nothing() -> None:
    answers = {FIRST.executable: chain([0.7], repeat(1.4)), OTHER.executable: repeat(1.0)}
    assert _make_environment.choose([FIRST, OTHER], lambda python: next(answers[python.executable])) == OTHER


def test_whoever_names_a_python_gets_that_one() -> None:
    assert _make_environment.names_to_try({"PYTHON": "/a/python"}) == ()
    assert "/usr/bin/python3" in _make_environment.names_to_try({"PYTHON": ""})
    assert "python3.11" in _make_environment.names_to_try({})


def test_what_a_python_lacks() -> None:
    assert [python.lack() for python in (FIRST, PIP_OUTSIDE)] == [None, None]
    assert BARE.lack() == "/somewhere/bare has no venv module; on Debian: apt-get install python3-venv"
    assert str(WITHOUT_PIP.lack()).startswith("/somewhere/pipless has neither ensurepip nor pip; on Debian: ")


def test_a_python_describes_and_measures_itself(tmp_path: Path) -> None:
    described = _make_environment.described(sys.executable)
    assert described == _make_environment.this_python()
    assert 0 < _make_environment.measured(described) < 60
    assert _make_environment.described(str(tmp_path / "none")) is None
    assert _make_environment.measured(FIRST) == float("inf")


@pytest.mark.parametrize("says", ["exit 1", "echo nonsense", "echo '{}'", "echo 7", ":"])
def test_what_is_no_python_is_passed_over(tmp_path: Path, says: str) -> None:
    script = tmp_path / "python3.11"
    script.write_text(f"#!/bin/sh\n{says}\n")
    script.chmod(0o755)
    assert _make_environment.described(str(script)) is None


def test_an_environment_is_made_with_the_quickest(tmp_path: Path) -> None:
    """It claims to be quicker than any Python of this machine can be, and notes what it is asked to do."""
    checkout, tools = tmp_path / "checkout", tmp_path / "tools"
    shutil.copytree(ROOT / "bin", checkout / "bin")
    (checkout / "requirements.lock").write_text("# nothing\n")
    tools.mkdir()
    real = Path(sys.executable).resolve()
    (tools / "python3").symlink_to(real)
    quick, asked = tools / "python3.14", tmp_path / "asked"
    facts = dataclasses.replace(_make_environment.this_python(), executable=str(quick))
    quick.write_text(
        f"""#!/bin/sh
        echo "$1 $2" >>"{asked}"
        case $2 in
        describe) echo '{json.dumps(dataclasses.asdict(facts))}' ;;
        measure) echo 0.000001 ;;
        *) exec "{real}" "$@" ;;
        esac
        """
    )
    quick.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {"PATH": str(tools)}
    command = [str(tools / "python3"), str(checkout / "bin" / "_make_environment.py"), "runtime"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
        for _ in range(2)
    )
    assert first.stderr.startswith(f"{MAKING} (from requirements.lock, with {quick}) ...\n"), first
    assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")
    questions = asked.read_text().splitlines()
    assert sum(each.endswith(" describe") for each in questions) == 1
    assert questions.count("-m venv") == 1


# ------------------------------------------------------------------------------------- the lock files


def locked(name: str) -> dict[str, str]:
    """The versions in a lock file, each of which has to have hashes."""
    versions = {}
    text = (ROOT / name).read_text().replace("\\\n", "")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            pinned, *hashes = line.split()
            assert hashes, f"{name}: {pinned} has no hash"
            assert all(each.startswith("--hash=sha256:") for each in hashes)
            package, _, version = pinned.partition("==")
            versions[package] = version
    return versions


def test_the_development_lock_has_all_of_the_other() -> None:
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()


@pytest.mark.parametrize(("name", "extras"), [("requirements.lock", []), ("requirements-dev.lock", ["dev"])])
def test_the_lock_satisfies_what_the_project_asks_for(name: str, extras: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [each for extra in extras for each in project["optional-dependencies"][extra]]
    versions = locked(name)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(versions[requirement.name]), requirement
