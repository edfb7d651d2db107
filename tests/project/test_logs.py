"""Log lines, and a log that can't be written."""

import os
from pathlib import Path

import pytest
import structlog

from fileserver import logs


def test_a_line_has_time_level_context_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    with logs.configure(path, to_stderr=False, context={"server": 3}):
        structlog.get_logger().warning("lost a peer", peer=2, why="two\nlines", known=True)
        structlog.get_logger().debug("not shown")
    time, rest = path.read_text().split(" ", 1)
    assert time.startswith("timestamp=2")
    assert time.endswith("Z")
    assert rest == 'level=warning server=3 event="lost a peer" peer=2 why=two\\nlines known=true\n'


def test_a_log_is_continued(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    for _ in range(2):
        with logs.configure(path, to_stderr=False, context={}):
            structlog.get_logger().info("started")
    assert path.read_text().count("event=started") == 2


def test_lines_go_to_standard_error_as_well(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with logs.configure(tmp_path / "log", to_stderr=True, context={}):
        structlog.get_logger().info("started")
    assert "event=started" in capfd.readouterr().err
    assert "event=started" in (tmp_path / "log").read_text()


def test_an_exception_stays_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    with logs.configure(path, to_stderr=False, context={}):
        try:
            raise ValueError("odd")
        except ValueError:
            structlog.get_logger().exception("failed")
    (line,) = path.read_text().splitlines()
    assert "ValueError: odd" in line


def test_what_nobody_caught_is_logged_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "server.log"
    error = ValueError("odd")
    with logs.configure(path, to_stderr=False, context={}):
        logs.log_uncaught(ValueError, error, None)
    assert "event=crashed" in path.read_text()
    assert "ValueError: odd" in capsys.readouterr().err


def test_lines_that_cannot_be_written_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = logs.LineWriter([descriptor])
    with monkeypatch.context() as patch:

        def full_disk(_descriptor: int, _data: bytes) -> int:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full_disk)
        writer.info("first")
        writer.info("second")
    writer.info("third")
    writer.info("fourth")
    os.close(descriptor)
    assert (tmp_path / "log").read_text().splitlines() == [
        'level=warning event="lines of this log were lost" count=2',
        "third",
        "fourth",
    ]
