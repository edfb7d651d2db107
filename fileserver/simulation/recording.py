"""What happened in a run, kept to be drawn: who was when in which state, and what went from whom to whom."""

from __future__ import annotations

import enum
from collections import defaultdict

import attrs

from fileserver.simulation.describe import describe_request
from fileserver.simulation.oracle import Request
from fileserver.simulation.watcher import Watcher
from fileserver.torture.shapes import Links
from statemachine.roles import Role


class Condition(enum.Enum):
    """What a server can be in for a while."""

    DOWN = "down"
    PAUSED = "paused"
    LEADING = "leading"


class End(enum.Enum):
    """How a request ended for its client."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@attrs.frozen(slots=True)
class Span:
    """A server in a condition; ``what`` tells more."""

    server_id: int
    condition: Condition
    from_us: int
    to_us: int
    what: str


@attrs.frozen(slots=True)
class Flight:
    """A message on its way, to its arrival or its loss."""

    sender: int
    receiver: int
    left_us: int
    ended_us: int
    is_lost: bool
    message: bytes


@attrs.frozen(slots=True)
class Cut:
    """Links that carried nothing for a while."""

    links: Links
    from_us: int
    to_us: int


@attrs.frozen(slots=True)
class Note:
    """A fault, or what else concerns all."""

    at_us: int
    what: str


@attrs.frozen(slots=True)
class Exchange:
    """A request from its sending to its end."""

    client: int
    server_id: int
    from_us: int
    to_us: int
    what: str
    end: End


class Recording(Watcher):
    """See the module's docstring. Of messages and requests only those between the two times are kept."""

    def __init__(self, from_us: int = 0, to_us: int | None = None) -> None:
        """From the beginning to the end, if nothing else is said."""
        self.from_us = from_us
        self.to_us = to_us
        self.spans: list[Span] = []
        self.flights: list[Flight] = []
        self.cuts: list[Cut] = []
        self.notes: list[Note] = []
        self.exchanges: list[Exchange] = []
        self._open: dict[tuple[int, Condition], tuple[int, str]] = {}
        self._paused_until_us: dict[int, int] = {}
        self._cut: tuple[Links, int] = frozenset(), 0
        self._asked: defaultdict[int, list[tuple[Request, int]]] = defaultdict(list)
        """By client: requests without an end yet, and which server was asked."""

    def finish(self, now_us: int) -> None:
        """The run is over: what goes on ends here."""
        for server_id, condition in [*self._open]:
            self._end(now_us, server_id, condition)
        self.cut(now_us, frozenset())
        for waiting in [*self._asked.values()]:
            for request, _ in [*waiting]:
                self._ended(now_us, request, End.UNKNOWN, "nothing yet")
        if self.to_us is None:
            self.to_us = now_us

    def _begin(self, now_us: int, server_id: int, condition: Condition, what: str) -> None:
        self._end(now_us, server_id, condition)
        self._open[server_id, condition] = now_us, what

    def _end(self, now_us: int, server_id: int, condition: Condition) -> None:
        begun = self._open.pop((server_id, condition), None)
        if begun is not None:
            # Nobody tells of the end of a pause.
            to_us = min(now_us, self._paused_until_us[server_id]) if condition is Condition.PAUSED else now_us
            self.spans.append(Span(server_id, condition, begun[0], to_us, begun[1]))

    def _is_within(self, from_us: int, to_us: int) -> bool:
        return to_us >= self.from_us and (self.to_us is None or from_us <= self.to_us)

    # See Watcher

    def told(self, now_us: int, kind: str, who: str, what: str) -> None:
        """Faults, and the time of healing."""
        if kind in ("fault", "phase"):
            self.notes.append(Note(now_us, f"{who} {what}".strip()))

    def started(self, now_us: int, server_id: int) -> None:
        """It is not down any more."""
        self._end(now_us, server_id, Condition.DOWN)

    def ended(self, now_us: int, server_id: int, why: str) -> None:
        """It is down, and nothing else."""
        self._end(now_us, server_id, Condition.LEADING)
        self._end(now_us, server_id, Condition.PAUSED)
        self._begin(now_us, server_id, Condition.DOWN, why)

    def follows(self, now_us: int, server_id: int, role: Role, term: int, leader_id: int | None) -> None:
        """It leads, or doesn't any more."""
        if role is Role.LEADER:
            self._begin(now_us, server_id, Condition.LEADING, f"term {term}")
        else:
            self._end(now_us, server_id, Condition.LEADING)

    def paused(self, now_us: int, server_id: int, until_us: int) -> None:
        """It stands still until a time that is known already, if nothing comes before it."""
        self._end(now_us, server_id, Condition.PAUSED)
        if until_us > now_us:
            self._begin(now_us, server_id, Condition.PAUSED, "stands still")
            self._paused_until_us[server_id] = until_us

    def cut(self, now_us: int, links: Links) -> None:
        """Other links carry nothing than until now."""
        before, since_us = self._cut
        if before:
            self.cuts.append(Cut(before, since_us, now_us))
        self._cut = links, now_us

    def arrived(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        """An arrow."""
        if self._is_within(left_us, now_us):
            self.flights.append(Flight(sender, receiver, left_us, now_us, False, message))

    def lost(self, left_us: int, now_us: int, sender: int, receiver: int, message: bytes) -> None:
        """Half of an arrow."""
        if self._is_within(left_us, now_us):
            self.flights.append(Flight(sender, receiver, left_us, max(now_us, left_us), True, message))

    def asked(self, now_us: int, server_id: int, request: Request) -> None:
        """A client waits."""
        self._asked[request.client].append((request, server_id))

    def answered(self, now_us: int, request: Request, line: bytes) -> None:
        """And waits no more."""
        end = End.DONE
        if line.startswith(b"ERR_INTERNAL outcome unknown"):
            end = End.UNKNOWN
        elif line.startswith(b"ERR"):
            end = End.REFUSED
        self._ended(now_us, request, end, line.decode())

    def unanswered(self, now_us: int, request: Request) -> None:
        """Or has waited in vain."""
        self._ended(now_us, request, End.UNKNOWN, "no reply")

    def _ended(self, now_us: int, request: Request, end: End, told: str) -> None:
        waiting = self._asked[request.client]
        position = next(place for place, (each, _) in enumerate(waiting) if each is request)
        _, server_id = waiting.pop(position)
        if self._is_within(request.called_us, now_us):
            what = f"client {request.client} to server {server_id}: {describe_request(request)}: {told}"
            self.exchanges.append(Exchange(request.client, server_id, request.called_us, now_us, what, end))
