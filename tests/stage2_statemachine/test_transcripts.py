"""Scenarios told as text files; see :mod:`tests.stage2_statemachine.transcript` for the language."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stage2_statemachine.transcript import Transcript

FOLDER = Path(__file__).parent / "transcripts"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    trace = Transcript().play(text)
    if request.config.getoption("--rewrite-transcripts", default=False):
        path.write_text(trace)
    assert trace == path.read_text()


def test_transcripts_are_found() -> None:
    assert len(list(FOLDER.glob("*.txt"))) > 10
