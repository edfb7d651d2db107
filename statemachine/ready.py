"""What a server is to do now, drained once per batch of events.

The order in which the caller may do things:

1. ``messages`` may be sent at once, before or while anything is saved. (A leader writes its own disk in
   parallel with its followers', thesis 10.2.1.)
2. ``hard_state`` and ``runs`` are saved together; when they are on disk, a
   :class:`~statemachine.events.Persisted` is stepped.
3. ``messages_after_save`` go only when this ready value, and every one drained before it, is saved.
4. Entries up to ``commit_index`` may be applied in order, at any pace.
5. A confirmed barrier's reads may be answered once the applied index reaches the barrier's read index.
"""

from __future__ import annotations

import attrs

from statemachine.events import EntriesRun, HardState
from statemachine.messages import InstallSnapshot, Message, ServerId
from statemachine.values import value


@value
class Outgoing:
    """One message to one server."""

    to: ServerId
    message: Message
    urgent: bool
    """It may overtake what was sent before: True for votes, heartbeats and answers, False for what relies on order."""


@value
class ChunkToSend:
    """A piece of a snapshot that a follower needs; the caller reads it from disk and sends the InstallSnapshot."""

    to: ServerId
    header: InstallSnapshot
    """Complete but for ``data``."""
    length: int
    """How many bytes of the snapshot's file, from ``header.offset`` on, belong into ``data``."""


@value
class EntriesToRead:
    """Entries that a follower needs and that are on disk alone; the caller reads them and steps EntriesRead.

    They are committed, and saved; reading the first of them is enough, more of them is better.
    """

    to: ServerId
    first_index: int
    last_index: int


@value
class ChunkReceived:
    """A piece of a snapshot that the leader sent; to be written before ``messages_after_save`` go."""

    sender: ServerId
    chunk: InstallSnapshot
    """At offset 0 it begins a new snapshot and whatever was received before is void. When ``done`` the caller
    verifies the whole, loads it, and steps SnapshotInstalled or SnapshotRefused."""


@value
class BarrierConfirmed:
    """Reads behind this barrier may be answered from applied state at or past ``read_index``."""

    barrier: int
    read_index: int


@value
class LogReset:
    """The log is to begin anew behind an installed snapshot; nothing of the old one counts."""

    last_included_index: int
    last_included_term: int


@attrs.define(slots=True)
class Ready:
    """See the module's docstring for the order of things."""

    hard_state: HardState | None = None
    log_reset: LogReset | None = None
    """To be carried out before ``runs`` are saved."""
    runs: list[EntriesRun] = attrs.field(factory=list)
    """In order; a run replaces what stood at its indexes and behind them."""
    messages: list[Outgoing] = attrs.field(factory=list)
    messages_after_save: list[Outgoing] = attrs.field(factory=list)
    commit_index: int = 0
    barriers: list[BarrierConfirmed] = attrs.field(factory=list)
    barriers_failed: list[int] = attrs.field(factory=list)
    """Barriers that could not be confirmed: no leader is known, or it changed. Ask anew, with a new number."""
    refused: list[bytes] = attrs.field(factory=list)
    """Submitted entries that were not taken: this server doesn't lead, or is handing leadership over."""
    chunks_to_send: list[ChunkToSend] = attrs.field(factory=list)
    chunks_received: list[ChunkReceived] = attrs.field(factory=list)
    entries_to_read: list[EntriesToRead] = attrs.field(factory=list)

    @property
    def must_save(self) -> bool:
        """Whether there is anything for the disk."""
        return self.hard_state is not None or bool(self.runs) or self.log_reset is not None
