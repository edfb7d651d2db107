"""What a node is told when it is made, and what it tells."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

import attrs

from raftnode.expected_batches import PATIENCE_US_MAX
from statemachine.configuration import Configuration
from statemachine.events import Event
from statemachine.roles import Options

Step = Callable[[Event], None]
"""Steps an event, now, from outside a turn."""
Say = Callable[..., None]
"""``say(event, **details)``: something that an operator may want to know."""


class Sender(Protocol):
    """The part of a transport that a node uses."""

    def send(self, to: int, message: bytes, *, urgent: bool = False) -> bool:
        """Send, now or soon, or drop it: then False. An urgent one passes others."""


class Flag(enum.IntFlag):
    """What every message says of its sender, beside what it says of Raft."""

    DISK_FULL = 1
    """The sender's disk has no room for more than what is under way."""
    REFUSES_CHANGES = 2
    """The sender leads and takes no new changes, for want of room on its disk or on a majority's."""


KNOWN_FLAGS = Flag.DISK_FULL | Flag.REFUSES_CHANGES
"""A later version may send others, which mean nothing here."""


@attrs.frozen(slots=True, kw_only=True)
class NodeOptions:
    """Who the server is, and its limits."""

    server_id: int
    configuration: Configuration
    raft: Options = attrs.field(factory=Options)
    snapshot_log_bytes: int = 64 << 20
    """So many bytes of entries lead to a snapshot."""
    in_place_bytes_max: int = 1 << 20
    """Saves of fewer bytes of entries are made without a thread while the disk is quick; 0: all in a thread."""
    round_patience_us_max: int = PATIENCE_US_MAX
    """How long a leader waits for the batches of other servers at most (:mod:`raftnode.expected_batches`)."""


@attrs.frozen(slots=True)
class PeerStatus:
    """A server as the leader sees it; None where this server doesn't lead."""

    match_index: int | None
    alive: bool | None


def _nothing() -> None:
    """Do nothing."""


def _never() -> None:
    """Want nothing at any time."""


def _no() -> bool:
    """Have nothing."""
    return False


def _say_nothing(_event: str, **_details: object) -> None:
    """Say nothing."""


@attrs.define(slots=True)
class Observer:
    """Calls that a node makes so that others can follow what it does; all of them return at once."""

    due_us: Callable[[], int | None] = _never
    """When a turn is wanted though nothing comes."""
    has_gathered: Callable[[], bool] = _no
    """Somebody would submit something if the node proposed now. Who has gathered reads asks for their barrier now."""
    proposes: Callable[[], None] = _nothing
    """The node is about to propose what it was given: who has said that it has gathered something submits that now."""
    applied: Callable[[], None] = _nothing
    """Entries were applied, or reads let pass: replies can be sent."""
    leader_changed: Callable[[], None] = _nothing
    log: Say = _say_nothing
