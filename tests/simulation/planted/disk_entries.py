"""Bugs in what is on disk alone: dropped from memory too early, read from the wrong place, sent at the wrong time."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from tests.simulation.planted.bug import BUSY, SWIFT, Bug, Conditions, bug

_LAGGARDS: Final = Conditions(
    faults=(FaultKind.KILL, FaultKind.PARTITION),
    options={"snapshot_log_bytes": 5_000, "segment_bytes": 1024, "servers": 3},
    load=BUSY,
)
"""Followers miss what no server has in memory, and no snapshot has either."""
_CONFLICTS: Final = Conditions(
    faults=(FaultKind.PARTITION, FaultKind.KILL),
    options={
        "snapshot_log_bytes": 8_000,
        "segment_bytes": 512,
        "servers": 5,
        "pause_between_faults_us": 1_500_000,
    },
    raft=SWIFT,
    load={"think_us": 300_000, "clients": 6, "big": 0.0},
)
"""Old leaders' entries are left on a few servers and written over; and such servers lead later, with laggards. Without
big files: in the smallest chunks, a snapshot with one takes longer than anybody waits."""

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "dropped-from-memory-before-it-is-saved",
        "thesis 10.2.1",
        "What others have saved and this server hasn't is dropped from memory, though it can't be read back.",
        (
            "statemachine.disk_entries:limit_memory",
            "min(event.applied_index, raft.commit_index, raft.persisted_index)",
            "min(event.applied_index, raft.commit_index)",
        ),
        conditions=Conditions(
            faults=(FaultKind.SLOW_DISK, FaultKind.PARTITION),
            options={"snapshot_log_bytes": 200, "servers": 3, "in_place_bytes_max": 0},
            load=BUSY,
        ),
    ),
    bug(
        "dropped-from-memory-before-it-is-applied",
        "thesis 5.1",
        "What isn't applied yet is dropped from memory.",
        (
            "statemachine.disk_entries:limit_memory",
            "min(event.applied_index, raft.commit_index, raft.persisted_index)",
            "raft.persisted_index",
        ),
        conditions=_LAGGARDS,
    ),
    bug(
        "overwritten-entries-read-back",
        "atomix#295",
        "Where entries stood that were truncated is still taken for where they stand.",
        (
            "raftnode.frame_places:FramePlaces.add",
            "del places[bisect_left(places, lowest_index, key=_index_of) :]",
            "pass",
        ),
        conditions=_CONFLICTS,
    ),
    bug(
        "entries-read-back-sent-at-another-index",
        "raft-rs#459",
        "What was read for a follower goes to it though it has got on meanwhile, as if it were what it needs now.",
        (
            "statemachine.disk_entries:entries_read",
            "or not progress.reading_from == progress.next_index == event.first_index",
            "",
        ),
        conditions=_LAGGARDS,
    ),
    bug(
        "entries-below-the-base-sent",
        "async-raft#111",
        "What a snapshot has taken the place of while it was read is sent all the same.",
        (
            "statemachine.disk_entries:entries_read",
            "if event.first_index >= raft.log.first_index:",
            "if event.entries:",
        ),
        conditions=Conditions(
            faults=(FaultKind.KILL, FaultKind.PARTITION, FaultKind.SLOW_DISK),
            options={"snapshot_log_bytes": 300, "segment_bytes": 1024, "servers": 3},
            load={"think_us": 300_000, "clients": 5},
        ),
    ),
    bug(
        "terms-joined-when-read-back",
        "thesis, Figure 3.1",
        "Entries of several terms are read back for one message, which has one term for all.",
        (
            "statemachine.disk_entries:request",
            "last_index = min(raft.log.memory_base, raft.log.last_of_run(first_index))",
            "last_index = raft.log.memory_base",
        ),
        conditions=_LAGGARDS,
    ),
)
