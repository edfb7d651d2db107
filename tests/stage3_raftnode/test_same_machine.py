"""Connections within one machine aren't paced."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from raftnode import same_machine
from raftnode.links import Address
from raftnode.os_network import OsLink, OsNetwork
from raftnode.same_machine import send_unpaced_if_within
from tests.congestion import control, usual_and_another


@pytest.fixture
def usual(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What connections have by themselves; another takes the part of the plainest, so that a difference shows."""
    usual, another = usual_and_another()
    monkeypatch.setattr(same_machine, "_PLAINEST", another)
    return usual


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def connect(listener: socket.socket, source: str) -> socket.socket:
    return socket.create_connection(listener.getsockname(), source_address=(source, 0))


def test_the_plainest_is_there() -> None:
    usual_and_another()
    with socket.socket() as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, same_machine._PLAINEST)


def test_a_connection_to_the_own_address_is_unpaced_on_the_side_that_asks(
    listener: socket.socket, usual: bytes
) -> None:
    with connect(listener, "127.0.0.1") as dialled, listener.accept()[0] as accepted:
        send_unpaced_if_within(dialled)
        assert (control(dialled), control(accepted)) == (same_machine._PLAINEST, usual)
        send_unpaced_if_within(accepted)
        assert control(accepted) == same_machine._PLAINEST


@pytest.mark.usefixtures("usual")
def test_it_is_so_with_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listener, socket.create_connection(listener.getsockname()[:2]) as dialled:
        send_unpaced_if_within(dialled)
        assert control(dialled) == same_machine._PLAINEST


def test_a_connection_to_another_address_stays_as_it_is(listener: socket.socket, usual: bytes) -> None:
    with connect(listener, "127.0.0.2") as dialled:
        send_unpaced_if_within(dialled)
        assert control(dialled) == usual


@pytest.mark.usefixtures("usual")
async def test_both_ends_of_a_link_between_servers_are_unpaced() -> None:
    listener = await OsNetwork().listen(Address("127.0.0.1", 0))
    dialled = await OsNetwork().dial(listener.address)
    accepted = await listener.accept()
    controls = [control(link.fileno()) for link in (dialled, accepted) if isinstance(link, OsLink)]
    for each in (dialled, accepted, listener):
        each.close()
    assert controls == [same_machine._PLAINEST] * 2


def test_what_can_not_be_had_is_done_without(
    listener: socket.socket, usual: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unconnected:
        send_unpaced_if_within(unconnected)
    left, right = socket.socketpair()
    with left, right:
        send_unpaced_if_within(left)
    with connect(listener, "127.0.0.1") as dialled:
        monkeypatch.setattr(same_machine, "_CONGESTION_CONTROL", None)
        send_unpaced_if_within(dialled)
        assert control(dialled) == usual
        monkeypatch.undo()
        monkeypatch.setattr(same_machine, "_PLAINEST", b"no such control")
        send_unpaced_if_within(dialled)
        assert control(dialled) == usual
