"""Clusters that tests ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stage4_cluster.harness import Cluster

MakeCluster = Callable[..., Cluster]
Figure = Callable[[str], None]
_FIGURE = "figure"


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Notes something measured, to be shown at the end of the run."""

    def note(text: str) -> None:
        record_property(_FIGURE, text)

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured; this works where pytest was given this folder, as by ``bin/test stage4``."""
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    figures = [text for report in reports for name, text in report.user_properties if name == _FIGURE]
    if figures:
        terminalreporter.section("figures measured")
        for text in figures:
            terminalreporter.write_line(text)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes a cluster of the test's own, with any settings; nothing of it runs yet."""
    made: list[Cluster] = []

    def make(nodes: int = 5, **settings: Any) -> Cluster:
        made.append(Cluster(tmp_path / f"cluster-{len(made) + 1}", nodes, **settings))
        return made[-1]

    yield make
    try:
        for cluster in made:
            cluster.check_alive()
            cluster.check_logs()
    finally:
        for cluster in made:
            cluster.close()


@pytest.fixture(scope="session")
def lasting_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five servers with the default settings, for many tests in a row: starting them takes two seconds."""
    cluster = Cluster(tmp_path_factory.mktemp("lasting") / "cluster")
    yield cluster
    cluster.close()


@pytest.fixture
async def five(lasting_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Five servers with the default settings, all running, with a leader. Other tests' files are there too."""
    await lasting_cluster.mend()
    yield lasting_cluster
    lasting_cluster.check_alive()
    lasting_cluster.check_logs()
