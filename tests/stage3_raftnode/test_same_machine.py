"""Connections within one machine aren't paced."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftnode import same_machine
from raftnode.same_machine import send_unpaced_if_within

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="the system has no choice")


def control(of: socket.socket) -> bytes:
    """The congestion control of a socket."""
    return of.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def connect(listener: socket.socket, source: str) -> socket.socket:
    return socket.create_connection(listener.getsockname(), source_address=(source, 0))


def test_a_connection_to_the_own_address_is_unpaced_on_the_side_that_asks(listener: socket.socket) -> None:
    with connect(listener, "127.0.0.1") as dialled, listener.accept()[0] as accepted:
        usual = control(accepted)
        send_unpaced_if_within(dialled)
        assert (control(dialled), control(accepted)) == (b"reno", usual)
        send_unpaced_if_within(accepted)
        assert control(accepted) == b"reno"


def test_it_is_so_with_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener, socket.create_connection(listener.getsockname()[:2]) as dialled:
        send_unpaced_if_within(dialled)
        assert control(dialled) == b"reno"


def test_a_connection_to_another_address_stays_as_it_is(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(listener, "127.0.0.2") as dialled:
        usual = control(dialled)
        others = [other for other in ALLOWED.read_bytes().split() if other != usual]
        if not others:
            pytest.skip("the system has one congestion control alone")
        monkeypatch.setattr(same_machine, "_PLAINEST", others[0])
        send_unpaced_if_within(dialled)
        assert control(dialled) == usual
    with connect(listener, "127.0.0.1") as dialled:
        send_unpaced_if_within(dialled)
        assert control(dialled) == others[0]


def test_what_can_not_be_had_is_done_without(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_machine, "_PLAINEST", b"no such control")
    with connect(listener, "127.0.0.1") as dialled:
        usual = control(dialled)
        send_unpaced_if_within(dialled)
        assert control(dialled) == usual
    with socket.socket() as unconnected:
        send_unpaced_if_within(unconnected)
    left, right = socket.socketpair()
    with left, right:
        send_unpaced_if_within(left)
    monkeypatch.setattr(same_machine, "_CONGESTION_CONTROL", None)
    with connect(listener, "127.0.0.1") as dialled:
        send_unpaced_if_within(dialled)
        assert control(dialled) == usual
