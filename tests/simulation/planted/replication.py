"""Bugs in replicating the log and in committing."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from tests.simulation.planted.bug import BUSY, SWIFT, Bug, Conditions, bug

_UNREST: Final = (FaultKind.PARTITION, FaultKind.KILL, FaultKind.ONE_WAY, FaultKind.HAND_OVER)
_OFTEN: Final = {"pause_between_faults_us": 1_500_000}

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "older-term-committed-by-counting",
        "thesis, Figure 3.7",
        "An entry of an earlier term is committed as soon as a majority has it.",
        (
            "statemachine.replication:advance_leader_commit",
            "if raft.log.term_at(index) != raft.current_term:",
            "if index <= raft.commit_index:",
        ),
        conditions=Conditions(
            faults=(FaultKind.KILL, FaultKind.HAND_OVER, FaultKind.PARTITION),
            options={"servers": 5, "pause_between_faults_us": 700_000},
            raft=SWIFT | {"append_bytes_max": 200, "inflight_messages_max": 1},
            weather={"loss": 0.1, "delay_us_max": 150_000},
            load=BUSY,
        ),
    ),
    bug(
        "commit-past-the-match",
        "scylladb#9965",
        "A follower takes the leader's commit index for entries of its own that the leader may not have.",
        (
            "statemachine.replication:learn_commit_index",
            "raft.commit_index < raft.verified_index:",
            "raft.commit_index < raft.log.last_index:",
        ),
        (
            "statemachine.replication:learn_commit_index",
            "min(raft.known_commit_index, raft.verified_index)",
            "min(raft.known_commit_index, raft.log.last_index)",
        ),
        conditions=Conditions(faults=_UNREST, options={"servers": 3}, load=BUSY),
    ),
    bug(
        "commit-index-goes-back",
        "scylladb#9965",
        "A leader's older commit index is taken over.",
        (
            "statemachine.raft:Raft.advance_commit_index",
            "self.commit_index = max(self.commit_index, index)",
            "self.commit_index = index",
        ),
        (
            "statemachine.replication:learn_commit_index",
            "if raft.known_commit_index > raft.commit_index < raft.verified_index:",
            "if raft.commit_index < raft.verified_index or leader_commit < raft.commit_index:",
        ),
        (
            "statemachine.replication:learn_commit_index",
            "min(raft.known_commit_index, raft.verified_index)",
            "min(leader_commit, raft.verified_index)",
        ),
    ),
    bug(
        "stale-append-truncates",
        "hashicorp/raft#113",
        "Entries that stand in the log already are cut off, with all behind them, and appended again.",
        (
            "statemachine.replication:_append_what_is_new",
            "present = raft.log.count_matching(first_index, term, len(entries))",
            "present = 0",
        ),
        (
            "statemachine.raft:Raft.truncate_log",
            'assert last_index >= self.commit_index, "a committed entry would be dropped"',
            "pass",
        ),
        (
            "statemachine.raft:Raft.truncate_log",
            'assert last_index >= self.verified_index, "an entry that the leader has would be dropped"',
            "pass",
        ),
        conditions=Conditions(weather={"repeats": 0.2, "in_order": False}, load=BUSY),
    ),
    bug(
        "only-the-conflicting-entries-replaced",
        "mofa#1150",
        "After a conflict only those entries are replaced, and what stood behind them stays.",
        (
            "statemachine.replication:_append_what_is_new",
            "        raft.truncate_log(first_new - 1)\n    raft.append_to_log(term, entries[present:])",
            (
                "        tail = tuple(raft.log.entries(first_index + len(entries), raft.log.last_index))\n"
                "        raft.truncate_log(first_new - 1)\n"
                "        entries += tail\n"
                "    raft.append_to_log(term, entries[present:])"
            ),
        ),
        conditions=Conditions(faults=_UNREST, options={"servers": 3}, raft={"append_bytes_max": 200}, load=BUSY),
    ),
    bug(
        "previous-term-not-compared",
        "thesis, Figure 3.1",
        "A follower accepts entries behind an entry of another term.",
        (
            "statemachine.replication:append_entries",
            "if raft.log.term_at(message.prev_log_index) != message.prev_log_term:",
            "if raft.log.term_at(message.prev_log_index) is None:",
        ),
        conditions=Conditions(
            faults=(FaultKind.PARTITION, FaultKind.HAND_OVER), options=_OFTEN | {"servers": 3}, raft=SWIFT, load=BUSY
        ),
    ),
    bug(
        "entries-below-the-snapshot-appended-again",
        "RedisLabs/raft#49",
        "Entries that begin below the log's base aren't cut to what lies behind it.",
        ("statemachine.replication:append_entries", "message.entries[covered:]", "message.entries"),
        conditions=Conditions(
            options={"snapshot_log_bytes": 100},
            weather={"repeats": 0.3, "long_delays": 0.05, "long_delay_us_max": 200_000, "in_order": False},
            load=BUSY,
        ),
    ),
    bug(
        "match-index-from-the-log's-length",
        "PySyncObj#167",
        "A follower reports its last index, not that of the last entry that it was asked about.",
        (
            "statemachine.replication:append_entries",
            "match_index = message.prev_log_index + len(message.entries)",
            "match_index = raft.log.last_index",
        ),
        conditions=Conditions(faults=_UNREST, options={"servers": 3}, load=BUSY),
    ),
    bug(
        "answers-of-an-earlier-term-credited",
        "cockroach#106793",
        "An answer to an earlier leadership of this server is taken for one to the present.",
        (
            "statemachine.replication:answered",
            "raft.role is not Role.LEADER or term != raft.current_term or sender",
            "raft.role is not Role.LEADER or sender",
        ),
        conditions=Conditions(
            faults=(FaultKind.PARTITION,),
            options={"pause_between_faults_us": 1_000_000, "servers": 3},
            raft={"election_timeout_us_min": 200_000, "election_timeout_us_max": 400_000, "heartbeat_us": 60_000},
            weather={"long_delays": 0.2, "long_delay_us_max": 4_000_000, "loss": 0.0},
            load={"think_us": 300_000, "clients": 6},
        ),
    ),
    bug(
        "overwritten-entry-counted-as-saved",
        "etcd-io/raft, append ABA",
        "When a save is done, the entry that stands at its index now counts as saved.",
        (
            "statemachine.raft:Raft.saved",
            "if done.good_until > self.persisted_index:\n        self.persisted_index = done.good_until",
            (
                "if min(done.index, self.log.last_index) > self.persisted_index:\n"
                "        self.persisted_index = min(done.index, self.log.last_index)"
            ),
        ),
        test="tests/stage2_statemachine/test_restart.py::test_a_save_of_what_was_overwritten_counts_for_nothing",
    ),
    bug(
        "leader-counts-itself-before-its-flush",
        "etcd#14370",
        "The leader counts for entries that its own disk doesn't have yet.",
        (
            "statemachine.replication:advance_leader_commit",
            "own_index, commit_index = raft.persisted_index, raft.commit_index",
            "own_index, commit_index = raft.log.last_index, raft.commit_index",
        ),
        conditions=Conditions(faults=(FaultKind.SLOW_DISK,), options={"servers": 2}, load=BUSY),
    ),
    bug(
        "follower-acknowledges-before-its-flush",
        "nodedb#161",
        "A follower acknowledges entries that its disk doesn't have yet.",
        ("statemachine.replication:append_entries", "if match_index <= raft.persisted_index:", "if True:"),
        conditions=Conditions(faults=(FaultKind.SLOW_DISK,), options=_OFTEN | {"servers": 3}, load=BUSY),
    ),
    bug(
        "everything-is-sent-before-the-save",
        "thesis, Figure 3.1 (updated on stable storage before responding)",
        "No message waits for the disk.",
        (
            "raftnode.node:Node._carry_out",
            "self._send(ready.messages)",
            "self._send(ready.messages + ready.messages_after_save)",
        ),
        conditions=Conditions(
            faults=(FaultKind.SLOW_DISK, FaultKind.POWER_CUT, FaultKind.KILL_ALL), options=_OFTEN, load=BUSY
        ),
    ),
    bug(
        "lost-entries-never-asked-for",
        "PySyncObj#167",
        "A leader never asks after entries that nothing was heard of.",
        ("statemachine.replication:heartbeat_timeout", "_ask_again(raft, progress)", "pass"),
        conditions=Conditions(options={"servers": 3}, weather={"loss": 0.1}),
    ),
    bug(
        "uncommitted-entries-applied",
        "thesis 3.5 (State Machine Safety)",
        "Entries are applied as they come, committed or not.",
        (
            "raftnode.node:Node._apply_committed",
            "min(raft.commit_index, first_index + APPLY_COUNT - 1)",
            "min(raft.log.last_index, first_index + APPLY_COUNT - 1)",
        ),
        conditions=Conditions(faults=_UNREST, options={"servers": 3}, load=BUSY),
    ),
    bug(
        "transfer-never-given-up",
        "hashicorp/raft#696",
        "A leader that couldn't hand over takes no changes ever after.",
        ("statemachine.transfer:expire", "clear(raft)", "pass"),
        conditions=Conditions(
            faults=(FaultKind.HAND_OVER, FaultKind.PARTITION, FaultKind.ONE_WAY),
            options={"servers": 3},
            weather={"loss": 0.4},
        ),
    ),
)
