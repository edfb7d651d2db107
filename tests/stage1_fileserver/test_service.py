"""Limits of a service, and pollers."""

from __future__ import annotations

import resource
import socket

import pytest

from fileserver.service import Limits, max_connections_default, raise_open_files_limit
from raftnode.polling import READABLE, WRITABLE, Poller, SelectorPoller, make_poller


@pytest.mark.parametrize(("limit", "connections"), [(1024, 960), (64, 32), (10, 5), (100_000, 99_936)])
def test_default_number_of_connections(monkeypatch: pytest.MonkeyPatch, limit: int, connections: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert max_connections_default() == Limits().max_connections == connections


INFINITY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "result"),
    [
        (100, 1000, 500, 500),
        (100, 300, 500, 300),
        (100, INFINITY, 500, 500),
        (600, 1000, 500, 600),
        (INFINITY, INFINITY, 500, INFINITY),
    ],
)
def test_raising_the_open_files_limit(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, result: int
) -> None:
    limits = (soft, hard)

    def set_limits(_: int, new: tuple[int, int]) -> None:
        nonlocal limits
        limits = new

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert raise_open_files_limit(wanted) == result
    assert limits == (result, hard)


def test_how_often_timeouts_are_looked_at() -> None:
    assert Limits().watch_seconds == 1.0
    assert Limits(request_progress_timeout_seconds=2.0).watch_seconds == 0.5
    assert Limits(idle_timeout_seconds=1.0).watch_seconds == 0.25


@pytest.mark.parametrize("make", [make_poller, SelectorPoller])
def test_pollers(make: type[SelectorPoller]) -> None:
    poller: Poller = make()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
        assert poller.fileno() >= 0
        poller.register(fd, READABLE)
        assert poller.poll(0, 10) == []
        theirs.send(b"x")
        assert poller.poll(0, 10) == [(fd, READABLE)]
        poller.modify(fd, READABLE | WRITABLE)
        assert poller.poll(0, 10) == [(fd, READABLE | WRITABLE)]
        poller.modify(fd, WRITABLE)
        assert poller.poll(0, 10) == [(fd, WRITABLE)]
        poller.modify(fd, 0)
        assert poller.poll(0, 10) == []
        poller.modify(fd, READABLE)
        assert poller.poll(0, 10) == [(fd, READABLE)]
        poller.unregister(fd)
        assert poller.poll(0, 10) == []
        poller.register(fd, 0)
        poller.unregister(fd)
        poller.close()
