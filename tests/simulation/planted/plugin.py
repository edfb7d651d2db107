"""``pytest -p tests.simulation.planted.plugin --planted-bug NAME``: a run of tests with a bug planted."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.simulation.planted.catalogue import BUGS
from tests.simulation.planted.patching import planted


def pytest_addoption(parser: pytest.Parser) -> None:
    """Called by pytest."""
    parser.addoption("--planted-bug", choices=list(BUGS), help="Plant this bug for the whole run.")


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest."""
    name = config.getoption("--planted-bug")
    if name is not None:
        stack = ExitStack()
        stack.enter_context(planted(BUGS[name].edits))
        config.add_cleanup(stack.close)
