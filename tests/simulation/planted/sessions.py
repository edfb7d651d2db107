"""Bugs in how batches find their way into the log once, and their results back."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from tests.simulation.planted.bug import BUSY, SWIFT, Bug, Conditions, bug

_LEADERS_CHANGE: Final = Conditions(
    faults=(FaultKind.PARTITION, FaultKind.KILL, FaultKind.HAND_OVER),
    options={"servers": 3, "pause_between_faults_us": 2_000_000},
    raft=SWIFT,
    weather={"loss": 0.1},
    load=BUSY,
)

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "repeated-batch-applied-twice",
        "thesis 6.3",
        "A batch that is in the log twice is carried out twice.",
        (
            "raftnode.replica:Replica._apply_batch",
            "if session is None or sequence != session.sequence + 1:",
            "if session is None or sequence > session.sequence + 1:",
        ),
        conditions=_LEADERS_CHANGE,
    ),
    bug(
        "batch-out-of-sequence-applied",
        "thesis 6.3",
        "A batch is carried out though the one before it is missing.",
        (
            "raftnode.replica:Replica._apply_batch",
            "if session is None or sequence != session.sequence + 1:",
            "if session is None or sequence <= session.sequence:",
        ),
        conditions=_LEADERS_CHANGE,
    ),
    bug(
        "batch-of-an-unknown-session-applied",
        "an unknown session is an error",
        "A batch whose session has ended is carried out under the server's next one.",
        (
            "raftnode.replica:Replica._apply_batch",
            "session = self.sessions.get(number)",
            (
                "fitting = [each for each in self.sessions.values() if each.sequence + 1 == sequence]\n"
                "    session = self.sessions.get(number) or (fitting[0] if fitting else None)"
            ),
        ),
        conditions=_LEADERS_CHANGE,
    ),
    bug(
        "waiter-by-sequence-alone",
        "MIT 6.5840, TestRestartSubmit4A",
        "Whoever waits for a sequence number is given the results of any server's batch of that number.",
        (
            "raftnode.replica:Replica._apply_batch",
            "if self.awaited_session in (None, number) else None",
            "",
        ),
        (
            "raftnode.submissions:Submissions.applied",
            'if session != self.session:\n        return\n    assert self._proposed, "a batch that was never proposed"',
            "if not self._proposed or self._proposed[0].sequence != sequence:\n        return",
        ),
        conditions=Conditions(load=BUSY),
    ),
    bug(
        "session-of-an-earlier-run-taken-over",
        "TestRestartSubmit4A",
        "The session that this server's last run opened, seen late, is taken for the present one's.",
        ("raftnode.proposer:Proposer.applied", "if outcome.session.nonce == self._nonce:", "if True:"),
        conditions=Conditions(
            faults=(FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.PARTITION),
            options={"pause_between_faults_us": 1_000_000},
            load=BUSY,
        ),
    ),
    bug(
        "retry-with-another-number",
        "etcd#14890",
        "What is proposed again gets a new sequence number, so that nobody knows it for the same.",
        (
            "raftnode.submissions:Submissions.send_again",
            "self._next_to_send = 0",
            (
                "for submission in self._proposed:\n"
                "        self._sequence += 1\n"
                "        submission.sequence = self._sequence\n"
                "    self._next_to_send = 0"
            ),
        ),
        (
            "raftnode.submissions:Submissions.applied",
            'assert submission.sequence == sequence, "batches of a session are applied in sequence"',
            "pass",
        ),
        (
            "raftnode.replica:Replica._apply_batch",
            "if session is None or sequence != session.sequence + 1:",
            "if session is None or sequence <= session.sequence:",
        ),
        conditions=_LEADERS_CHANGE,
    ),
    bug(
        "proposals-not-sent-again",
        "etcd, DisableProposalForwarding",
        "What was proposed to a leader that is gone is proposed to no other.",
        ("raftnode.submissions:Submissions.send_again", "self._next_to_send = 0", "pass"),
        conditions=_LEADERS_CHANGE,
    ),
    bug(
        "results-dropped-too-early",
        "thesis 6.3",
        "A result is dropped before its asker has said that it has it.",
        ("raftnode.replica:Replica._apply_batch", "while kept and len(kept) > sequence - acknowledged:", "while kept:"),
        conditions=Conditions(
            faults=(FaultKind.PARTITION, FaultKind.ONE_WAY),
            options={"servers": 3, "snapshot_log_bytes": 100},
            load=BUSY,
        ),
    ),
    bug(
        "refused-change-applied",
        "etcd DisableProposalForwarding",
        "A change that was proposed and not seen applied in time is said not to be applied.",
        (
            "raftnode.submissions:Submissions.withdraw",
            "if submission.proposed:\n        return False",
            "if submission.proposed:\n        return True",
        ),
        conditions=Conditions(
            faults=(FaultKind.PARTITION, FaultKind.ONE_WAY),
            options={"request_timeout_us": 2_000_000},
            load=BUSY | {"patience_us": 20_000_000},
        ),
    ),
    bug(
        "given-up-changes-submitted",
        "etcd, DisableProposalForwarding",
        "Changes that waited for too long to be proposed are refused, and proposed later.",
        (
            "fileserver.replicated:ReplicatedBackend._give_up_what_is_late",
            "self._gathered, self._is_told = None, False",
            "pass",
        ),
        conditions=Conditions(
            faults=(FaultKind.PARTITION, FaultKind.ONE_WAY, FaultKind.KILL),
            options={"request_timeout_us": 2_000_000, "servers": 3},
            load=BUSY | {"patience_us": 20_000_000},
        ),
    ),
    bug(
        "waiting-batch-keeps-its-server-awake",
        "found here by the simulator",
        "A batch that waits for those of other servers is due all the time, and its server takes turn after turn.",
        (
            "fileserver.replicated:ReplicatedBackend.has_gathered",
            "    self._is_told = True\n",
            "",
        ),
        conditions=Conditions(options={"servers": 5}, load={"think_us": 2_000, "clients": 10}),
    ),
)
