"""What a node is told when it is made, and what it tells."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from statemachine.configuration import Configuration
from statemachine.events import Event
from statemachine.roles import Options

Step = Callable[[Event], None]
"""Steps an event, now, from outside a turn."""
RunBlocking = Callable[..., Awaitable[Any]]
"""``await run_blocking(function, *arguments)``: a blocking call, in a worker thread unless a test has another way."""
Say = Callable[..., None]
"""``say(event, **details)``: something that an operator may want to know."""


def monotonic_us() -> int:
    """Trio's clock in microseconds: the machine's monotonic clock, or a test's own.

    Rounded, so that who sleeps until a microsecond finds on waking that it has come: cut off, one in a hundred hasn't.
    """
    return round(trio.current_time() * 1_000_000)


def monotonic_clock() -> Callable[[], int]:
    """The same for who reads it often: found once, within the run of Trio that it is used in."""
    read = trio.lowlevel.current_clock().current_time
    return lambda: round(read() * 1_000_000)


class Flag(enum.IntFlag):
    """What every message says of its sender, beside what it says of Raft."""

    DISK_FULL = 1
    """The sender's disk has no room for more than what is under way."""
    REFUSES_CHANGES = 2
    """The sender leads and takes no new changes, for want of room on its disk or on a majority's."""


@attrs.frozen(slots=True, kw_only=True)
class NodeOptions:
    """Who the server is, and its limits."""

    server_id: int
    configuration: Configuration
    raft: Options = attrs.field(factory=Options)
    snapshot_log_bytes: int = 64 << 20
    """So many bytes of entries lead to a snapshot."""


@attrs.frozen(slots=True)
class PeerStatus:
    """A server as the leader sees it; None where this server doesn't lead."""

    match_index: int | None
    alive: bool | None


def _nothing() -> None:
    """Do nothing."""


def _say_nothing(_event: str, **_details: object) -> None:
    """Say nothing."""


@attrs.define(slots=True)
class Observer:
    """Calls that a node makes so that others can follow what it does; all of them return at once."""

    applied: Callable[[], None] = _nothing
    """Entries were applied, or reads let pass: replies can be sent."""
    leader_changed: Callable[[], None] = _nothing
    log: Say = _say_nothing
