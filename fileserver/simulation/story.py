"""Tells a run in lines: what happened when, in simulated milliseconds, to whom.

A message has one line, where it arrives or is lost; how long it took stands behind it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection

from fileserver.simulation.describe import describe, describe_request
from fileserver.simulation.oracle import Request
from fileserver.simulation.watcher import Watcher
from fileserver.torture.shapes import Links
from statemachine.roles import Role


class Topic(enum.Enum):
    """What one may want to read of."""

    FAULTS = "faults"
    """And what comes of them: ends and starts, and what servers say in their logs."""
    LEADERS = "leaders"
    CLIENTS = "clients"
    MESSAGES = "messages"


class Story(Watcher):
    """See the module's docstring."""

    def __init__(
        self,
        tell: Callable[[str], None],
        topics: Collection[Topic] = tuple(Topic),
        from_us: int = 0,
        to_us: int | None = None,
    ) -> None:
        """``tell`` gets each line; only those on the topics, and from the time between."""
        self._tell = tell
        self._topics = frozenset(topics)
        self._from_us = from_us
        self._to_us = to_us

    def _line(self, topic: Topic, now_us: int, who: str, what: str) -> None:
        if topic in self._topics and self._from_us <= now_us and (self._to_us is None or now_us <= self._to_us):
            self._tell(f"{now_us / 1_000:12.3f} ms  {who:14}  {what}")

    def told(self, now_us: int, kind: str, who: str, what: str) -> None:
        """See Watcher."""
        if kind == "leader":
            return  # told with its parts in follows
        if kind in ("fault", "phase"):
            self._line(Topic.FAULTS, now_us, "* fault" if kind == "fault" else "* healed", f"{who} {what}".strip())
        elif kind == "log":
            self._line(Topic.FAULTS, now_us, who, f"says: {what}")
        else:
            self._line(Topic.FAULTS, now_us, who, f"{kind}: {what}")

    def follows(self, now_us: int, server_id: int, role: Role, term: int, leader_id: int | None) -> None:
        """See Watcher."""
        if role is Role.LEADER:
            what = f"LEADS term {term}"
        elif leader_id is None:
            what = f"{role.value} in term {term}, without a leader"
        else:
            what = f"follows server {leader_id} in term {term}"
        self._line(Topic.LEADERS, now_us, f"server {server_id}", what)

    def paused(self, now_us: int, server_id: int, until_us: int) -> None:
        """See Watcher."""
        what = f"stands still until {until_us / 1_000:.3f} ms" if until_us > now_us else "goes on"
        self._line(Topic.FAULTS, now_us, f"server {server_id}", what)

    def cut(self, now_us: int, links: Links) -> None:
        """See Watcher."""
        broken = ", ".join(f"{sender} to {receiver}" for sender, receiver in sorted(links))
        self._line(Topic.FAULTS, now_us, "network", f"cut: {broken}" if links else "no link is cut")

    def arrived(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        """See Watcher."""
        self._carried(f"{sender} -> {receiver}", left_us, now_us, message)

    def lost(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        """See Watcher."""
        self._carried(f"{sender} -x {receiver}", left_us, now_us, message)

    def _carried(self, who: str, left_us: int, now_us: int, message: bytes) -> None:
        if Topic.MESSAGES in self._topics:
            # Lost at once, it may have been about to leave a server that was still writing.
            took_ms = max(now_us - left_us, 0) / 1_000
            self._line(Topic.MESSAGES, now_us, f"  {who}", f"{describe(message)} ({took_ms:.1f} ms)")

    def asked(self, now_us: int, server_id: int, request: Request) -> None:
        """See Watcher."""
        self._line(Topic.CLIENTS, now_us, _client(request), f"asks server {server_id}: {describe_request(request)}")

    def answered(self, now_us: int, request: Request, line: bytes) -> None:
        """See Watcher."""
        took_ms = (now_us - request.called_us) / 1_000
        told = f"{line.decode()} <- {describe_request(request)} ({took_ms:.1f} ms)"
        self._line(Topic.CLIENTS, now_us, _client(request), told)

    def unanswered(self, now_us: int, request: Request) -> None:
        """See Watcher."""
        self._line(Topic.CLIENTS, now_us, _client(request), f"gives up: {describe_request(request)}")


def _client(request: Request) -> str:
    return f"client {request.client}"
