"""Which congestion control a TCP connection has, for tests of who chooses it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


def control(of: socket.socket | int) -> bytes:
    """That of a socket, or of one by its descriptor."""
    if isinstance(of, int):
        with socket.fromfd(of, socket.AF_INET, socket.SOCK_STREAM) as same:
            return control(same)
    return of.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def usual_and_another() -> tuple[bytes, bytes]:
    """What connections have by themselves, and one that they may have instead; skips where there is no choice."""
    if not hasattr(socket, "TCP_CONGESTION"):
        pytest.skip("the system has no choice of congestion control")
    with socket.socket() as unconnected:
        usual = control(unconnected)
    for another in _ALLOWED.read_bytes().split():
        if another != usual:
            return usual, another
    pytest.skip("the system has one congestion control alone")
