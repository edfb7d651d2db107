"""Bugs in terms, votes and majorities."""

from __future__ import annotations

from typing import Final

from fileserver.simulation.options import FaultKind
from tests.simulation.planted.bug import SWIFT, Bug, Conditions, bug

_RESTARTS: Final = (FaultKind.KILL, FaultKind.KILL_ALL, FaultKind.POWER_CUT)
_LIGHT: Final = {"think_us": 1_500_000, "clients": 4}
_STRIKES_OFTEN: Final = {"pause_between_faults_us": 1_000_000}

BUGS: Final[tuple[Bug, ...]] = (
    bug(
        "vote-not-saved",
        "hashicorp/raft#661",
        "The vote isn't saved with the term: after a restart a server votes again in the same term.",
        (
            "statemachine.raft:Raft.ready",
            "HardState(self.current_term, self.voted_for)",
            "HardState(self.current_term, None)",
        ),
        conditions=Conditions(faults=_RESTARTS, options=_STRIKES_OFTEN | {"servers": 3}, raft=SWIFT, load=_LIGHT),
    ),
    bug(
        "vote-answered-before-saved",
        "hashicorp/raft#661",
        "A vote is told before it is on disk.",
        ("statemachine.raft:Raft.answer", "if self.hard_state_is_saved:", "if True:"),
        conditions=Conditions(
            faults=(FaultKind.CRASH_IN_CALL, FaultKind.SLOW_DISK, FaultKind.POWER_CUT),
            options=_STRIKES_OFTEN | {"servers": 3},
            raft=SWIFT,
            load=_LIGHT,
        ),
    ),
    bug(
        "candidate-asks-before-saved",
        "valkey#3887",
        "A candidate asks for votes before its own vote and term are on disk.",
        ("statemachine.elections:_ask_for_votes", "raft.send_after_save(voter, request)", "raft.send(voter, request)"),
        conditions=Conditions(
            faults=(FaultKind.CRASH_IN_CALL, FaultKind.SLOW_DISK, FaultKind.POWER_CUT),
            options=_STRIKES_OFTEN | {"servers": 3},
            raft=SWIFT,
            load=_LIGHT,
        ),
    ),
    bug(
        "term-not-saved",
        "PySyncObj#201",
        "A later term that a server only hears of isn't saved.",
        (
            "statemachine.raft:Raft._new_term",
            "self._hard_state_changed = True",
            "self._hard_state_changed = self.voted_for is not None",
        ),
        conditions=Conditions(faults=_RESTARTS),
    ),
    bug(
        "term-forgotten-at-restart",
        "PySyncObj#201",
        "Term and vote aren't read back: terms begin anew after a restart of all.",
        ("raftnode.recovery:_add_frame", "log.hard_state = hard_state", "log.hard_state = log.hard_state"),
        conditions=Conditions(faults=_RESTARTS),
    ),
    bug(
        "two-votes-in-a-term",
        "akka-raft#29",
        "Whoever asks gets the vote, whoever has it already.",
        (
            "statemachine.elections:_is_free_to_vote_for",
            "return raft.voted_for == candidate or (raft.voted_for is None and raft.leader_id is None)",
            "return raft.voted_for != raft.server_id",
        ),
        (
            "statemachine.raft:Raft.vote_for",
            (
                'assert self.voted_for in (None, candidate), "a vote is never changed within a term"\n'
                "    if self.voted_for is None:"
            ),
            "if self.voted_for != candidate:",
        ),
        conditions=Conditions(options={"servers": 5}, raft=SWIFT),
    ),
    bug(
        "vote-for-a-shorter-log",
        "thesis 3.6.1",
        "Only the last terms are compared before a vote, not the lengths.",
        (
            "statemachine.elections:_is_up_to_date",
            "return (message.last_log_term, message.last_log_index) >= (raft.log.last_term, raft.log.last_index)",
            "return message.last_log_term >= raft.log.last_term",
        ),
    ),
    bug(
        "vote-for-the-longer-log",
        "thesis 3.6.1",
        "The length of the logs is compared first, and the last term only if that is equal.",
        (
            "statemachine.elections:_is_up_to_date",
            "return (message.last_log_term, message.last_log_index) >= (raft.log.last_term, raft.log.last_index)",
            "return (message.last_log_index, message.last_log_term) >= (raft.log.last_index, raft.log.last_term)",
        ),
        conditions=Conditions(
            faults=(FaultKind.PARTITION, FaultKind.KILL),
            options=_STRIKES_OFTEN | {"servers": 3},
            raft=SWIFT,
            load=_LIGHT,
        ),
    ),
    bug(
        "votes-of-another-term-counted",
        "xraft#33",
        "A candidate counts votes that come late, of a term in which it stood before.",
        (
            "statemachine.elections:request_vote_result",
            "if not asked or message.term != term:",
            "if not asked:",
        ),
        conditions=Conditions(
            faults=(FaultKind.KILL, FaultKind.HAND_OVER),
            options=_STRIKES_OFTEN | {"servers": 3},
            raft=SWIFT,
            weather={"loss": 0.2, "long_delays": 0.3, "long_delay_us_max": 1_000_000},
            load=_LIGHT,
        ),
    ),
    bug(
        "repeated-votes-counted",
        "akka-raft#29",
        "A vote that the network delivers twice counts for two.",
        (
            "statemachine.elections:request_vote_result",
            "(raft.votes if message.vote_granted else raft.rejections).add(sender)",
            (
                "group = raft.votes if message.vote_granted else raft.rejections\n"
                "    others = raft.configuration.voters - group\n"
                "    group.add(sender if sender not in group else min(others, default=sender))"
            ),
        ),
        conditions=Conditions(options={"servers": 5}, raft=SWIFT, weather={"repeats": 0.3}, load=_LIGHT),
    ),
    bug(
        "half-is-a-majority",
        "thesis 3.4",
        "With an even number of servers, half of them pass for a majority.",
        (
            "statemachine.configuration:Configuration.is_quorum",
            "len(self.voters.intersection(servers)) >= self.majority",
            "2 * len(self.voters.intersection(servers)) >= len(self.voters)",
        ),
        (
            "statemachine.configuration:Configuration.quorum_value",
            "ordered[len(self.voters) // 2]",
            "ordered[(len(self.voters) - 1) // 2]",
        ),
        conditions=Conditions(faults=(FaultKind.PARTITION,), options={"servers": 4}),
    ),
    bug(
        "no-check-quorum",
        "openraft#2080",
        "A leader that no majority answers leads on.",
        (
            "statemachine.replication:heartbeat_timeout",
            "if not raft.configuration.is_quorum(answering | {raft.server_id}):",
            "if not answering and not raft.configuration.is_quorum({raft.server_id}):",
        ),
        test="tests/stage2_statemachine/test_paper_elections.py::test_a_leader_steps_down_when_it_hears_from_no_majority",
    ),
    bug(
        "pre-vote-refusal-of-a-later-term-ignored",
        "openraft#1796, etcd#8501",
        "Who asks for a pre-vote doesn't take up the later term of whoever refuses it.",
        (
            "statemachine.raft:_keeps_term",
            "isinstance(message, RequestVoteResult) and message.pre_vote and message.vote_granted",
            "isinstance(message, RequestVoteResult) and message.pre_vote",
        ),
        test="tests/stage2_statemachine/test_table_votes.py::test_request_vote",
    ),
    bug(
        "pre-vote-for-the-present-term",
        "etcd#8243",
        "The grant of a pre-vote carries the voter's own term, not the one that was asked about.",
        (
            "statemachine.elections:request_vote",
            "term = message.term if granted else raft.current_term",
            "term = raft.current_term",
        ),
    ),
)
