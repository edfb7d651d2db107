"""What a node begins with, by what its disk had. Pure."""

from __future__ import annotations

from raftnode import entries
from raftnode.replica import Replica
from raftnode.storage_values import Recovered
from statemachine.progress import SnapshotMeta
from statemachine.roles import Restored


def restored(recovered: Recovered) -> Restored:
    """What the consensus module begins with."""
    snapshot = recovered.snapshot
    meta = SnapshotMeta(snapshot.index, snapshot.term, snapshot.size_bytes) if snapshot is not None else None
    return Restored(hard_state=recovered.hard_state, snapshot=meta, runs=recovered.runs)


def latest_time_us(recovered: Recovered, replica: Replica) -> int:
    """The latest cluster time that this server knows of: kept beside the log, in the log, or in the state."""
    last_stamp_us = next(
        (entries.stamp_of(entry) for run in reversed(recovered.runs) for entry in reversed(run.entries) if entry), 0
    )
    return max(recovered.clock_us, last_stamp_us, replica.clock_us)
