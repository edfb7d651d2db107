"""Thrifty replication: entries go at once only to as many followers as a majority takes; to the others soon after.

A leader that sends every entry to everybody at once has all followers write their disks for each of them, though it
waits for the quickest few alone. So it prefers some followers, just enough for a majority with itself; the others
are *spared*: what they lack gathers and goes to them in one message, which costs them one flush for many entries
(:attr:`~statemachine.roles.Options.spare_us`). Nothing about safety changes: a leader may send when it likes, and
commits only what a majority has on disk. (The idea is known as thrifty operation from Moraru et al., "There is more
consensus in egalitarian parliaments", SOSP 2013.)

The rounds of contact that reads wait for (:mod:`statemachine.reads`) go to the preferred followers alone, too, and to
one less if only followers' reads wait, since who asks counts for the majority.

A follower isn't spared when it waits for something: for the outcome of what its own clients submitted, or for the
entries behind a read. Nobody is when too much has gathered, while leadership is handed over, or when a preferred
follower doesn't take entries as they come.

When the time of what has gathered is up and its oldest part isn't committed yet, the preferred followers are too slow:
then everybody is sent everything at once until the next heartbeat, and the slow ones are the last to be preferred
for a while. The same goes for a round that isn't confirmed. So a preferred follower that dies costs one such delay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from statemachine.messages import ServerId
from statemachine.progress import Progress, ProgressState

if TYPE_CHECKING:
    from statemachine.raft import Raft

GATHERED_ENTRIES_MAX = 64
GATHERED_BYTES_MAX = 512 << 10
"""So much is spared a follower at most, however short the time."""
NOT_PREFERRED_US = 5_000_000
"""How long a follower that was too slow is preferred only if there are no others."""
_NOBODY: frozenset[ServerId] = frozenset()


@attrs.define(slots=True)
class Thrift:
    """What one leadership spares whom."""

    preferred: frozenset[ServerId] = _NOBODY
    """Who is sent everything at once; when empty, everybody is."""
    gathering_since_us: int | None = None
    """Since when a follower is being spared something."""
    gathered_bytes: int = 0
    """Of entries submitted since then."""
    first_gathered: int = 0
    """The log's last index when it began."""
    asked_since_us: int | None = None
    """Since when preferred followers alone are asked whether this server still leads."""
    asked: frozenset[ServerId] = _NOBODY
    """Which of them."""
    slow_until_us: dict[ServerId, int] = attrs.field(factory=dict)


def deadline_us(raft: Raft) -> int | None:
    """When what has gathered is to be sent, or others asked."""
    gathering_us, asked_us = raft.thrift.gathering_since_us, raft.thrift.asked_since_us
    if gathering_us is None or asked_us is None:
        since_us = gathering_us if asked_us is None else asked_us
    else:
        since_us = min(gathering_us, asked_us)
    return None if since_us is None else since_us + raft.options.spare_us


def submitted(raft: Raft, size_bytes: int) -> None:
    """Entries of that size were appended."""
    if raft.thrift.gathering_since_us is not None:
        raft.thrift.gathered_bytes += size_bytes


def spares(raft: Raft) -> bool:
    """Whether any follower at all can wait for what it hasn't been sent yet."""
    thrift = raft.thrift
    if not thrift.preferred or thrift.gathered_bytes > GATHERED_BYTES_MAX or raft.transfer_target is not None:
        return False
    since_us = thrift.gathering_since_us
    if since_us is not None and raft.now_us >= since_us + raft.options.spare_us:
        return False
    for preferred in thrift.preferred:  # noqa: SIM110 - no generator: this is asked in each turn
        if raft.progress[preferred].state is not ProgressState.REPLICATE:
            return False
    return True


def is_spared(raft: Raft, server: ServerId, progress: Progress) -> bool:
    """Whether a follower can wait for what it hasn't been sent yet, of which there is some, if anybody can."""
    first_index = progress.next_index
    return (
        server not in raft.thrift.preferred
        and progress.state is ProgressState.REPLICATE
        and first_index > progress.commit_wanted
        and first_index > progress.entries_wanted
        and raft.log.last_index - first_index < GATHERED_ENTRIES_MAX
    )


def sent(raft: Raft, *, spared: bool) -> None:
    """Everything that is due has been sent; somebody was spared something, or nobody."""
    thrift = raft.thrift
    if not spared:
        thrift.gathering_since_us = None
        thrift.gathered_bytes = 0
    elif thrift.gathering_since_us is None:
        thrift.gathering_since_us = raft.now_us
        thrift.first_gathered = raft.log.last_index


def asks(raft: Raft, server: ServerId) -> bool:
    """Whether a round of contact goes to that follower."""
    thrift = raft.thrift
    if not thrift.preferred:
        return True
    if thrift.asked_since_us is None:
        thrift.asked_since_us = raft.now_us
        thrift.asked = _enough_to_ask(raft)
    return server in thrift.asked


def _enough_to_ask(raft: Raft) -> frozenset[ServerId]:
    """The preferred followers without one whose answer isn't needed, if there is such a one."""
    is_quorum, preferred = raft.configuration.is_quorum, raft.thrift.preferred
    askers = {read.requester for read in raft.reads.confirming}
    if raft.server_id in askers:
        return preferred
    for dispensable in sorted(preferred, reverse=True):
        rest = preferred - {dispensable}
        if all(is_quorum(rest | {raft.server_id, asker}) for asker in askers):
            return rest
    return preferred


def confirmed(raft: Raft) -> None:
    """A majority has answered the round."""
    raft.thrift.asked_since_us = None


def expire(raft: Raft) -> None:
    """Send what has gathered, if its time is up; and see whether the preferred followers were quick enough."""
    thrift = raft.thrift
    since_us = raft.now_us - raft.options.spare_us
    if thrift.gathering_since_us is not None and thrift.gathering_since_us <= since_us:
        raft.replication_due = True
        if raft.commit_index < thrift.first_gathered:
            late = {server for server in thrift.preferred if raft.progress[server].match_index < thrift.first_gathered}
            _prefer_nobody(raft, late)
    if thrift.asked_since_us is not None and thrift.asked_since_us <= since_us:
        round_number = raft.reads.confirming_round
        late = {server for server in thrift.asked if raft.progress[server].acknowledged_round < round_number}
        _prefer_nobody(raft, late)


def _prefer_nobody(raft: Raft, late: Iterable[ServerId]) -> None:
    """Rely on no follower in particular until the next heartbeat: all have to be sent, and asked, what isn't yet."""
    thrift = raft.thrift
    for server in late:
        thrift.slow_until_us[server] = raft.now_us + NOT_PREFERRED_US
    thrift.preferred = _NOBODY
    raft.replication_due = True
    if thrift.asked_since_us is not None:
        thrift.asked_since_us = None
        raft.contact_due = True


def choose(raft: Raft) -> None:
    """With a heartbeat: prefer the same followers as before if they are well, or else those that are furthest.

    Those that were too slow come last: when the whole cluster stood still for a moment, that is all of them.
    """
    if not raft.options.spare_us:
        return
    thrift = raft.thrift
    alive_us = raft.now_us - 2 * raft.options.heartbeat_us - raft.options.silence_us
    well = [
        server
        for server, progress in raft.progress.items()
        if progress.state is ProgressState.REPLICATE
        and progress.last_contact_us >= alive_us
        and server in raft.configuration.voters
    ]
    if thrift.preferred and not thrift.slow_until_us and thrift.preferred.issubset(well):
        return  # They are as many as it takes, and well.
    well.sort(
        key=lambda server: (
            thrift.slow_until_us.get(server, 0) > raft.now_us,
            server not in thrift.preferred,
            -raft.progress[server].match_index,
        )
    )
    chosen = {raft.server_id}
    for server in well:
        if raft.configuration.is_quorum(chosen):
            break
        chosen.add(server)
    enough = raft.configuration.is_quorum(chosen)
    thrift.preferred = frozenset(chosen - {raft.server_id}) if enough else _NOBODY


def disconnected(raft: Raft, server: ServerId) -> None:
    """A follower may be gone: rely on it no more."""
    if server in raft.thrift.preferred:
        _prefer_nobody(raft, ())
