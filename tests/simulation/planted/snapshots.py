"""Bugs in snapshots: what they hold, and what becomes of the log."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from raftnode.simulated_disk import Survival
from tests.simulation.planted.bug import BUSY, SWIFT, Bug, Conditions, bug

_LAGGARDS: Final = (FaultKind.KILL, FaultKind.PARTITION)
_SMALL_LOG: Final = {"snapshot_log_bytes": 50}
_TRANSFERS: Final = Conditions(faults=_LAGGARDS, options=_SMALL_LOG | {"servers": 3}, load=BUSY)

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "snapshot-under-a-conflicting-tail",
        "hashicorp/raft#697",
        "Entries behind an installed snapshot are kept though the entry at its end is another one.",
        (
            "statemachine.snapshots:snapshot_installed",
            "if raft.log.term_at(index) == term:",
            "if raft.log.last_index >= index:",
        ),
        conditions=Conditions(
            faults=(FaultKind.PARTITION,),
            options=_SMALL_LOG | {"servers": 3, "pause_between_faults_us": 1_500_000},
            raft=SWIFT,
            load=BUSY,
        ),
    ),
    bug(
        "older-snapshot-installed",
        "NuRaft#407",
        "A snapshot of what is committed and applied already takes the state's place.",
        (
            "statemachine.snapshots:install_snapshot",
            "if message.last_included_index <= raft.commit_index:",
            "if message.last_included_index <= 0:",
        ),
        (
            "raftnode.snapshot_keeper:SnapshotKeeper._install_when_received",
            "if index <= self._replica.applied_index:",
            "if index <= 0:",
        ),
        conditions=_TRANSFERS,
    ),
    bug(
        "chunks-of-two-snapshots-mixed",
        "thesis, Figure 5.3",
        "A chunk counts by its offset, whichever leader's snapshot it is of.",
        ("statemachine.snapshots:Incoming.is_of", "return (self.leader_id,", "return True or (self.leader_id,"),
        test="tests/stage2_statemachine/test_paper_snapshots.py::test_another_snapshot_begins_anew",
    ),
    bug(
        "log-not-begun-anew-behind-a-snapshot",
        "hashicorp/raft#697",
        "The disk keeps the log of before an installed snapshot.",
        ("statemachine.raft:Raft.reset_log", "self.output.log_reset = LogReset(index, term)", "pass"),
        conditions=_TRANSFERS,
    ),
    bug(
        "stale-log-kept-at-restart",
        "PySyncObj#197",
        "A log that doesn't agree with the snapshot is taken up beside it.",
        (
            "raftnode.recovery:choose_snapshot",
            "return snapshot, log.term_at(snapshot.index) != snapshot.term",
            "return snapshot, False",
        ),
        conditions=Conditions(
            faults=(FaultKind.CRASH_IN_CALL, FaultKind.PARTITION),
            options=_SMALL_LOG | {"servers": 3, "pause_between_faults_us": 1_000_000},
            load=BUSY,
        ),
    ),
    bug(
        "snapshot-loses-sessions",
        "thesis 6.3",
        "The snapshot doesn't know which batches of each server were applied.",
        ("raftnode.replica:Replica.snapshot", "for session in self.sessions.values()", "for session in ()"),
        conditions=_TRANSFERS,
    ),
    bug(
        "snapshot-loses-results",
        "thesis 6.3",
        "The snapshot doesn't hold the results that their askers don't have yet.",
        (
            "raftnode.replica:Replica.snapshot",
            "for number, results in session.results.items()",
            "for number, results in ()",
        ),
        conditions=_TRANSFERS,
    ),
    bug(
        "snapshot-loses-the-version",
        "versions come from one counter",
        "After a snapshot versions go on from the highest that a file has: those of deleted files come again.",
        (
            "fileserver.store:Store.snapshot",
            "StoreState(self.version,",
            "StoreState(max((record[0] for record in table.records.values()), default=0),",
        ),
        conditions=_TRANSFERS,
    ),
    bug(
        "snapshot-loses-the-clock",
        "LogCabin, ClusterClock",
        "The snapshot's time is 0.",
        ("fileserver.store:Store.snapshot", "self.version, self.clock_us,", "self.version, 0,"),
        ("raftnode.replica:Replica.snapshot", "self.clock_us,", "0,"),
        conditions=Conditions(
            faults=(FaultKind.KILL_ALL,),
            options=_SMALL_LOG | {"servers": 3, "survivals": (Survival.NOTHING,), "pause_between_faults_us": 6_000_000},
            load=BUSY | {"expires": 0.5},
        ),
    ),
    bug(
        "snapshot-loses-deadlines",
        "LogCabin, ClusterClock",
        "Files that come back from a snapshot never expire.",
        ("fileserver.file_table:FileTable.load", "self.deadlines.update(deadlines)", "self.deadlines.update([])"),
        conditions=_TRANSFERS,
    ),
    bug(
        "snapshot-loses-uploads",
        "thesis 6.3",
        "The snapshot leaves out the pieces of contents that are on their way.",
        ("fileserver.store:Store.snapshot", "uploads = tuple(self._uploads.staged())", "uploads = ()"),
        conditions=Conditions(
            faults=_LAGGARDS,
            options={"servers": 3, "snapshot_log_bytes": 100_000},
            raft={"append_bytes_max": 1 << 20, "snapshot_chunk_bytes": 240 << 10},
            load=BUSY | {"big": 0.1},
        ),
    ),
    bug(
        "view-changes-under-a-snapshot",
        "hashicorp/raft#248",
        "What changes while a snapshot is being written is in it, in part.",
        ("fileserver.file_table:FileTable._save_for_views", "for view in self.views:", "for view in ():"),
        test="tests/stage1_fileserver/test_store_view.py::test_a_change_after_it_was_made_does_not_show",
    ),
    bug(
        "snapshot-renamed-without-directory-flush",
        "hashicorp/raft#229",
        "The snapshot's name isn't on disk when the log before it is dropped.",
        ("raftnode.snapshots:SnapshotStore.publish", "self._filesystem.flush_directory(self._directory)", "pass"),
        conditions=Conditions(
            faults=(FaultKind.POWER_CUT, FaultKind.KILL_ALL, FaultKind.PARTITION),
            options=_SMALL_LOG | {"servers": 3} | {"segment_bytes": 4096},
            load=BUSY,
        ),
    ),
    bug(
        "received-snapshot-not-flushed",
        "consul#3362",
        "A received snapshot gets its name, and the log is dropped, before its content is on disk.",
        ("raftnode.snapshots:_TemporaryFile.flush", "self._filesystem.flush(self.handle)", "pass"),
        conditions=Conditions(
            faults=(FaultKind.POWER_CUT, FaultKind.KILL_ALL, FaultKind.PARTITION),
            options=_SMALL_LOG | {"servers": 3} | {"segment_bytes": 4096},
            load=BUSY,
        ),
    ),
    bug(
        "one-segment-too-many-removed",
        "consul#3362",
        "Compaction removes a segment that the snapshot doesn't cover.",
        (
            "raftnode.segmented_log:SegmentedLog.compact",
            "self._segments[0].end_index <= first_index_kept:",
            "(self._segments[0].end_index <= first_index_kept or not removable):",
        ),
        conditions=Conditions(
            faults=(FaultKind.KILL, FaultKind.KILL_ALL),
            options=_SMALL_LOG | {"segment_bytes": 1024},
            load=BUSY,
        ),
    ),
)
