"""Bugs in reads: what isn't fresh is shown."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from tests.simulation.planted.bug import Bug, Conditions, bug

_SWIFT: Final = {"election_timeout_us_min": 200_000, "election_timeout_us_max": 3_000_000, "heartbeat_us": 60_000}
"""Others may lead long before a leader that isn't heard steps down."""
_READS: Final = {"think_us": 500_000, "clients": 5, "files": 1, "weights": (8, 2, 6, 1, 1, 1, 1), "expires": 0.0}
_LEADERS_CHANGE: Final = (FaultKind.PARTITION, FaultKind.KILL, FaultKind.PAUSE, FaultKind.HAND_OVER)

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "leader-reads-without-a-round",
        "aphyr.com/posts/316",
        "A leader answers from its own state without asking whether it still leads.",
        (
            "statemachine.reads:read_barrier",
            "_add(raft, raft.server_id, event.barrier)",
            "raft.output.barriers.append(BarrierConfirmed(event.barrier, raft.commit_index))",
        ),
        conditions=Conditions(
            faults=(FaultKind.PARTITION, FaultKind.PAUSE), options={"servers": 3}, raft=_SWIFT, load=_READS
        ),
    ),
    bug(
        "read-before-an-entry-of-the-own-term-is-committed",
        "etcd#7331, redisraft#19",
        "A new leader reads at its commit index before it knows how far earlier leaders came.",
        ("statemachine.reads:_add", "if not raft.committed_in_term:", "if False:"),
        conditions=Conditions(faults=_LEADERS_CHANGE, options={"servers": 3}, raft=_SWIFT, load=_READS),
    ),
    bug(
        "any-answer-confirms-a-read",
        "etcd#20418",
        "The round that an answer belongs to isn't looked at: an old answer confirms a new read.",
        (
            "statemachine.replication:answered",
            "progress.acknowledged_round = max(progress.acknowledged_round, round_number)",
            "progress.acknowledged_round = raft.round_number",
        ),
        test="tests/stage2_statemachine/test_paper_reads.py::test_a_read_waits_for_a_round_begun_after_it",
    ),
    bug(
        "barrier-number-used-again",
        "etcd#21375",
        "A read that is tried again has the number of the first attempt: the answer to that confirms it.",
        ("raftnode.barriers:Barriers.begin", "self._next_number += 1", "self._next_number += 0"),
        conditions=Conditions(
            faults=(FaultKind.KILL,),
            options={"servers": 3},
            raft=_SWIFT | {"election_timeout_us_min": 400_000},
            weather={"delay_us_max": 100_000, "long_delays": 0.2, "long_delay_us_max": 1_000_000},
            load=_READS | {"clients": 8},
        ),
    ),
    bug(
        "barrier-numbers-begin-anew-at-restart",
        "etcd#3879",
        "An answer to what a server asked before it was restarted confirms a read of now.",
        (
            "statemachine.raft:Raft.__init__",
            "self.reads = reads.Reads(generator.getrandbits(62))",
            "self.reads = reads.Reads(0 * generator.getrandbits(62))",
        ),
        test="tests/stage2_statemachine/test_paper_reads.py::test_an_answer_from_before_a_restart_confirms_nothing",
    ),
    bug(
        "read-before-the-state-is-there",
        "thesis 6.4, step 4",
        "A confirmed read is answered before its index is applied.",
        (
            "raftnode.barriers:Barriers.release",
            "while self._confirmed and self._confirmed[0][0] <= applied_index:",
            "while self._confirmed:",
        ),
        conditions=Conditions(load=_READS),
    ),
    bug(
        "follower-reads-its-own-state",
        "etcd#3879",
        "A read is answered from the state of whichever server is asked.",
        (
            "fileserver.replicated:ReplicatedBackend._ask_for_barrier",
            "self._node.read_barrier(partial(self._fresh, number), wake=False)",
            "self._fresh(number)",
        ),
        conditions=Conditions(options={"servers": 3}, load=_READS),
    ),
    bug(
        "read-rides-on-a-batch-under-way",
        "thesis 6.4, reads through the log",
        "A read is answered when changes are applied that were proposed before it came.",
        (
            "fileserver.replicated:ReplicatedBackend.read",
            "self._may_ride()",
            "self._under_way",
        ),
        (
            "fileserver.replicated:ReplicatedBackend.read",
            "self._riders.append(batch)\n        self._rider_count += len(batch)\n        self._tell_if_ready()",
            "next(each for each in reversed(self._pending.values()) if each.submission).riders.append(batch)",
        ),
        conditions=Conditions(options={"servers": 3, "pass_us": 30_000}, load=_READS),
    ),
    bug(
        "due-file-called-missing-by-the-own-clock",
        "expiry is decided in the log",
        "A read says that a file is gone because the own clock says so, before the log does.",
        (
            "fileserver.reading:StoreReader.evaluate",
            "backend.wait_for_clock(deadline_us, self._evaluate_again(waiter, number, request))",
            "waiter.answer(number, FILE_NOT_FOUND)",
        ),
        conditions=Conditions(load=_READS | {"expires": 0.5}),
    ),
)
