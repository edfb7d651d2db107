"""The scripts of bin/ in a fresh checkout: they make ``.venv`` by themselves, once, and notice when it is out of date.

These install the locked packages for real, from whatever index this machine's pip is set up to use.
"""

import os
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
