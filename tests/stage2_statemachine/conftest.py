"""The option that writes the transcripts of scenarios anew."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known when this folder is named on the command line."""
    parser.addoption("--rewrite-transcripts", action="store_true", help="write transcripts/*.txt anew, to be reviewed")
