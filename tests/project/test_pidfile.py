"""The process id file: one holder at a time, and a file that was left behind is in nobody's way."""

import fcntl
import os
from pathlib import Path

import pytest

from fileserver import pidfile


def test_it_holds_our_process_id_and_goes_with_us(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pidfile.held(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_second_holder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pidfile.held(path):
        with pytest.raises(pidfile.AlreadyRunning, match=f"process {os.getpid()} holds"), pidfile.held(path):
            pytest.fail("held twice")
        assert path.read_text() == f"{os.getpid()}\n"


def test_whether_it_is_held_can_be_asked(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pidfile.check_not_held(path)
    assert not path.exists()
    with pidfile.held(path), pytest.raises(pidfile.AlreadyRunning, match=f"process {os.getpid()} holds {path}"):
        pidfile.check_not_held(path)
    path.write_text("123456789012345\n")
    pidfile.check_not_held(path)
    with pidfile.held(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_left_by_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("123456789012345\n")
    with pidfile.held(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_name_taken_away_between_open_and_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last holder removes the name just as we have opened it: we have to hold the file that has the name."""
    path = tmp_path / "pid"
    really_flock = fcntl.flock
    removals = iter([path])

    def flock(descriptor: int, operation: int) -> None:
        for each in removals:
            each.unlink()
        really_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pidfile.held(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), pidfile.held(tmp_path / "nowhere" / "pid"):
        pytest.fail("held")
