"""Connections whose two ends are on one machine, and what they don't need.

Nothing lies between their ends that could be congested. Yet the system's congestion control works there, too, and some
of it holds data back: BBR, which many systems use, sends at the pace that it has measured, by a timer, and a connection
that mostly says little gives it little to measure. So these connections get the plainest of all, Reno, which sends at
once whatever its window allows. Connections between machines keep what the administrator has chosen.
"""

from __future__ import annotations

import socket
from typing import Final

_CONGESTION_CONTROL: Final[int | None] = getattr(socket, "TCP_CONGESTION", None)
_PLAINEST: Final = b"reno"
"""Every system that has a choice has this."""


def send_unpaced_if_within(connected: socket.socket) -> None:
    """Have a TCP connection's own side send without pacing, if both ends have the same address.

    It is a help, never a need: where the system has no such choice, or the other side has gone, nothing happens.
    """
    if _CONGESTION_CONTROL is None or connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        if connected.getsockname()[0] == connected.getpeername()[0]:
            connected.setsockopt(socket.IPPROTO_TCP, _CONGESTION_CONTROL, _PLAINEST)
    except OSError:  # The administrator allows others only, or the other side has gone.
        pass
