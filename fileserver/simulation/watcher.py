"""What a run tells whoever wants to tell of it, or to draw it. To watch changes nothing: a watched run is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fileserver.torture.shapes import Links
from statemachine.roles import Role

if TYPE_CHECKING:
    from fileserver.simulation.oracle import Request


class Watcher:
    """Looks away; to be overridden. Times are true microseconds, servers their numbers."""

    def told(self, now_us: int, kind: str, who: str, what: str) -> None:
        """Something has happened that people may want to read of."""

    # Servers

    def started(self, now_us: int, server_id: int) -> None:
        """A server runs."""

    def ended(self, now_us: int, server_id: int, why: str) -> None:
        """A server has ended, or was stopped."""

    def follows(self, now_us: int, server_id: int, role: Role, term: int, leader_id: int | None) -> None:
        """A server has another term, or another leader, perhaps itself."""

    def paused(self, now_us: int, server_id: int, until_us: int) -> None:
        """A server stands still until then; it goes on at once if that is now."""

    # The network

    def cut(self, now_us: int, links: Links) -> None:
        """These links, and no others, carry nothing from now on."""

    def arrived(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        """A message has come to a server that runs."""

    def lost(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        """A message will not come any more."""

    # Clients

    def asked(self, now_us: int, server_id: int, request: Request) -> None:
        """A client has sent a request."""

    def answered(self, now_us: int, request: Request, line: bytes) -> None:
        """A client has its reply, whose first line is this."""

    def unanswered(self, now_us: int, request: Request) -> None:
        """A client waits for a reply no more."""
