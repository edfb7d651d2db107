"""Bugs in what is on disk, and in how it is read back."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from raftnode.simulated_disk import Survival
from tests.simulation.planted.bug import BUSY, SWIFT, Bug, Conditions, bug

_POWER: Final = (FaultKind.POWER_CUT, FaultKind.KILL_ALL)
_NOTHING_SURVIVES: Final = {"survivals": (Survival.NOTHING,)}
_OFTEN: Final = {"pause_between_faults_us": 1_000_000}

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "save-without-a-flush",
        "robustmq#2039",
        "A save is in the page cache when it is spoken of, and nowhere else.",
        (
            "raftnode.segmented_log:SegmentedLog._append",
            "append(position.handle, buffers, position.offset, zeros_behind=zeros_behind)",
            "write(position.handle, buffers, position.offset, flush=False)",
        ),
        conditions=Conditions(faults=_POWER, options=_NOTHING_SURVIVES, load=BUSY),
    ),
    bug(
        "torn-save-accepted",
        "etcd#6515",
        "A frame's checksum isn't looked at when the log is read.",
        (
            "raftnode.recovery:_read_frames",
            "            or checksum(view[offset + CHECKED_FROM : end], salt) != check\n",
            "",
        ),
        conditions=Conditions(
            faults=(FaultKind.CRASH_IN_CALL,), options=_OFTEN | {"survivals": (Survival.RANDOM,)}, load=BUSY
        ),
    ),
    bug(
        "rot-within-the-log-cut-off",
        "CORDS",
        "Damage within the log is taken for its end, and what was acknowledged behind it is forgotten.",
        (
            "raftnode.recovery:find_log",
            'raise LogCorrupt(path, end, "no valid frame stands there, and the log goes on in the next segment")',
            (
                "log.segments.append(Segment(header.number, path, end, log.next_index))\n"
                "            log.leftovers += row[position + 1 :]\n"
                "            break"
            ),
        ),
        conditions=Conditions(faults=(FaultKind.ROT, FaultKind.KILL), options={"segment_bytes": 1024}, load=BUSY),
    ),
    bug(
        "damage-taken-for-a-torn-end",
        "etcd#6515",
        "Whatever isn't valid in the last segment is dropped, also with valid frames behind it.",
        (
            "raftnode.recovery:_judge_rest",
            "follower = find_frame(data, end, header.salt, sequence if header.is_reused else 0, header.checksum)",
            "follower = None",
        ),
        test="tests/stage3_raftnode/test_storage_damage.py::test_a_block_of_zeros_in_the_middle_is_corrupt",
    ),
    bug(
        "chain-not-checked",
        "a record left in a recycled file",
        "A frame that doesn't continue the one before it is accepted.",
        ("raftnode.recovery:_read_frames", "            or previous != chain\n            or number != sequence\n", ""),
        test="tests/stage3_raftnode/test_storage_damage.py::test_a_frame_out_of_its_place_is_corrupt",
    ),
    bug(
        "salt-not-used",
        "etcd#6515",
        "A client's content that looks like a frame passes for one.",
        (
            "raftnode.log_frames:seal",
            "head = _CHECK.pack(checksum(head, salt)) + head",
            "head = _CHECK.pack(checksum(head, 0)) + head; salt = 0",
        ),
        (
            "raftnode.recovery:_read_frames",
            "chain, sequence, salt, checksum = log.chain, log.sequence, header.salt, header.checksum",
            "chain, sequence, salt, checksum = log.chain, log.sequence, 0, header.checksum",
        ),
        (
            "raftnode.log_frames:is_whole",
            "if len(data) - offset < FRAME_HEAD_BYTES:",
            "salt = 0\n    if len(data) - offset < FRAME_HEAD_BYTES:",
        ),
        test="tests/stage3_raftnode/test_log_frames.py::test_a_frame_made_up_by_a_client_is_not_taken_for_one",
    ),
    bug(
        "new-segment-renamed-without-directory-flush",
        "etcd PR#22314",
        "The log goes on in a file whose name isn't on disk.",
        ("raftnode.segmented_log:SegmentedLog._rotate", "self._filesystem.flush_directory(self._directory)", "pass"),
        conditions=Conditions(
            faults=_POWER,
            options=_NOTHING_SURVIVES | {"snapshot_log_bytes": 64 << 20} | {"segment_bytes": 2048},
            load=BUSY,
        ),
    ),
    bug(
        "new-segment-not-flushed",
        "hashicorp/raft#229",
        "The header and the first save of a new segment aren't on disk.",
        (
            "raftnode.segments:write_blank",
            "append(blank.handle, buffers, 0, zeros_behind=end_zeros(end, blank.size_bytes))",
            "write(blank.handle, buffers, 0, flush=False)",
        ),
        conditions=Conditions(
            faults=_POWER,
            options=_NOTHING_SURVIVES | {"segment_bytes": 2048},
            load=BUSY,
        ),
    ),
    bug(
        "hard-state-flushed-by-itself",
        "hashicorp/raft#661",
        "Entries come to disk in one flush and their term in another.",
        (
            "raftnode.storage:Storage.save",
            "self._log.save(hard_state, runs)",
            (
                "if runs:\n            self._log.save(None, runs)\n"
                "        if hard_state is not None:\n            self._log.save(hard_state, ())"
            ),
        ),
        conditions=Conditions(
            faults=(FaultKind.CRASH_IN_CALL,),
            options=_OFTEN,
            raft=SWIFT,
            load=BUSY,
        ),
    ),
    bug(
        "full-disk-taken-for-saved",
        "etcd#2819",
        "A save that found no room counts as done.",
        ("raftnode.saver:Saver._save_in_place", "self._enqueue(ready)", "self._saved(ready)"),
        conditions=Conditions(faults=(FaultKind.FULL_DISK, FaultKind.KILL), load=BUSY),
    ),
    bug(
        "failed-flush-tried-again",
        "Rebello et al., ATC 2020",
        "After a failed flush the file is flushed once more, which works, and nothing is on disk.",
        (
            "raftnode.segmented_log:SegmentedLog._append",
            (
                "raise self._write_error(\n            self._segments[-1].path, error, position.handle,"
                " max(position.offset, position.capacity_bytes)\n        ) from error"
            ),
            "self._filesystem.flush(position.handle)",
        ),
        conditions=Conditions(
            faults=(FaultKind.DISK_ERROR, FaultKind.KILL_ALL, FaultKind.POWER_CUT),
            options=_OFTEN | _NOTHING_SURVIVES,
            load=BUSY,
        ),
    ),
    bug(
        "last-save-trusted-from-the-page-cache",
        "Rebello et al., ATC 2020",
        "After a failed flush and a restart, the last frame is believed though the disk doesn't have it.",
        (
            "raftnode.segmented_log:SegmentedLog.reopen",
            "write_all(filesystem, handle, [frame], offset, flush=True)",
            "pass",
        ),
        conditions=Conditions(
            faults=(FaultKind.DISK_ERROR, FaultKind.KILL_ALL, FaultKind.POWER_CUT),
            options=_OFTEN | _NOTHING_SURVIVES,
            load=BUSY,
        ),
    ),
    bug(
        "truncated-tail-comes-back-at-restart",
        "hashicorp/raft#113",
        "Where entries were replaced, those that stood behind them are read back with the new ones.",
        (
            "raftnode.recovery:FoundLog.add_run",
            "if run.first_index < self.next_index:\n        self._truncate(run.first_index)",
            (
                "tail = []\n    if run.first_index < self.next_index:\n"
                "        tail = self.entries[run.last_index + 1 - self.first_index :]\n"
                "        self._truncate(run.first_index)"
            ),
        ),
        ("raftnode.recovery:FoundLog.add_run", "self.entries += run.entries", "self.entries += [*run.entries, *tail]"),
        test="tests/stage3_raftnode/test_storage.py::test_entries_at_an_index_replace_what_was_there_and_behind",
    ),
    bug(
        "directory-not-locked",
        "etcd#3710",
        "Two servers may work on one directory.",
        ("raftnode.filesystem:OsFileSystem.lock", "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass"),
        test="tests/stage3_raftnode/test_storage.py::test_a_directory_is_opened_once_only",
    ),
)
