"""What a server asks the leader to put in the log on behalf of its clients.

These are this package's own messages beside those of Raft: the pure core never sees them. A proposal may be
sent again, to the same or to the next leader, as often as its sender likes: the replicated state tells by
``session`` and ``sequence`` what it has applied already (thesis 6.3).
"""

from __future__ import annotations

from statemachine.values import value


@value
class Propose:
    """One batch of changes of one server's clients, wanted in the log."""

    session: int
    """The sender's session: one per run of one server, never used by another."""
    sequence: int
    """Counts the session's proposals, from 1."""
    acknowledged: int
    """The sender has the results of all its proposals up to this sequence number: nobody need keep them."""
    payload: bytes
    """The changes, as the application encodes them."""


@value
class Proposals:
    """Several proposals in one message."""

    items: tuple[Propose, ...]
