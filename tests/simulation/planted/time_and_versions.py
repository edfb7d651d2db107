"""Bugs in cluster time, expiry and versions."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from tests.simulation.planted.bug import Bug, Conditions, bug

_EXPIRING: Final = {"think_us": 300_000, "clients": 6, "files": 3, "expires": 0.5}
_LEADERS_CHANGE: Final = (FaultKind.PARTITION, FaultKind.KILL, FaultKind.HAND_OVER)

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "stamps-by-the-leader's-own-clock",
        "LogCabin's SystemClock",
        "Entries are stamped with the leader's own clock, not with cluster time.",
        (
            "raftnode.proposer:Proposer._put_into_log",
            "max(self._clock.now_us(), self._last_stamp_us)",
            "self._clock._monotonic_us()",
        ),
    ),
    bug(
        "time-goes-back-at-a-leader-change",
        "LogCabin, ClusterClock",
        "A new leader's clock is behind, and time goes back to it.",
        (
            "raftnode.proposer:Proposer._put_into_log",
            "max(self._clock.now_us(), self._last_stamp_us)",
            "self._clock.now_us()",
        ),
        (
            "raftnode.cluster_clock:ClusterClock.observe",
            "if reading_us - own_us > self._offset_us:",
            "if False:",
        ),
        (
            "raftnode.replica:Replica.apply",
            "if stamp_us > self.clock_us:",
            "if True:",
        ),
        ("fileserver.store:Store.advance", "if clock_us > self.clock_us:", "if clock_us != self.clock_us:"),
        conditions=Conditions(faults=_LEADERS_CHANGE, options={"servers": 3}, load=_EXPIRING),
    ),
    bug(
        "clock-corrected-for-a-guessed-delay",
        "LogCabin, ClusterClock",
        "A reading that comes over the network is taken for older than it is: time runs ahead of every clock.",
        (
            "raftnode.cluster_clock:ClusterClock.observe",
            "self._offset_us = reading_us - own_us",
            "self._offset_us = reading_us + 500 - own_us",
        ),
    ),
    bug(
        "expiry-by-the-server's-own-clock",
        "etcd#15247",
        "Files expire when a server's clock says so, not where the log does.",
        (
            "raftnode.node:Node._apply_committed",
            "outcome = replica.apply(index, entry)",
            "replica.machine.advance(self.clock.now_us()); outcome = replica.apply(index, entry)",
        ),
        conditions=Conditions(load=_EXPIRING),
    ),
    bug(
        "no-tick-when-idle",
        "LogCabin, ClusterClock",
        "Time stands still while nobody changes anything: what is due stays.",
        ("raftnode.proposer:Proposer._put_into_log", "batch.append(entries.encode_tick(stamp_us))", "return"),
        conditions=Conditions(load=_EXPIRING),
    ),
    bug(
        "expiry-takes-no-version",
        "contract (an expiry is a change)",
        "An expiry has no version of its own.",
        (
            "fileserver.store:Store.advance",
            "self.version += self._table.expire(clock_us)",
            "self._table.expire(clock_us)",
        ),
        conditions=Conditions(load=_EXPIRING),
    ),
    bug(
        "version-used-again-after-a-delete",
        "versions come from one counter",
        "Versions count by file, and begin anew when it does.",
        ("fileserver.store:Store.apply", "if operations.count(WRITE)", "if not operations and operations.count(WRITE)"),
        (
            "fileserver.store:Store._put",
            "self.version = version = self.version + 1",
            (
                "old = self._table.records.get(name)\n    version = old[0] + 1 if old else 1\n"
                "    self.version = max(self.version, version)"
            ),
        ),
    ),
    bug(
        "append-forgets-the-deadline",
        "contract (append without exptime keeps it)",
        "Who appends without an exptime makes the file stay for good.",
        ("fileserver.store:Store._append", "deadline_us = old[1]", "deadline_us = 0"),
        conditions=Conditions(load=_EXPIRING),
    ),
    bug(
        "refused-cas-takes-a-version",
        "contract (a refused change changes nothing)",
        "A cas that is refused uses up a version.",
        (
            "fileserver.store:Store._cas",
            "return Refusal.VERSION, old[0]",
            "self.version += 1\n        return Refusal.VERSION, old[0]",
        ),
    ),
)
