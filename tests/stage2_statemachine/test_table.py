"""The course's table: each event, in each role, of a lower, equal and higher term.

A server is put into a state and given one event, and everything that changes in it is compared with the table, and
everything that it tells to do. What a row doesn't name stays as it was; alarms are left alone unless a row says so.

The server is number 1 of three, in term 5. Its log has entries of terms 1, 2 and 4, of which two are committed, and
the leader's its first one of term 5 behind them. The follower follows server 2. All is on disk.
"""

from __future__ import annotations

import attrs
import pytest

from statemachine.events import (
    EntriesRun,
    Event,
    HardState,
    PeerConnected,
    Persisted,
    ReadBarrier,
    Receive,
    SnapshotInstalled,
    SnapshotRefused,
    SnapshotTaken,
    Submit,
    Timeout,
    TransferLeadership,
)
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
    Message,
    ReadIndex,
    ReadIndexResult,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)
from statemachine.progress import ProgressState, SnapshotMeta
from statemachine.raft import Raft
from statemachine.ready import BarrierConfirmed, ChunkReceived, LogReset
from statemachine.roles import Role
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import ELECTION_TIMEOUT_US, MS, changes_between, entry, output_of, state_of

F, P, C, L = Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER
LOG = (1, 2, 4)
LATER_US = 10 * MS
"""The event comes so long after the server got into its state."""
NOTHING: dict[str, object] = {}


def server_in(role: Role) -> Raft:
    if role is F:
        raft = states.follower(LOG, term=5, leader=2)
    elif role is P:
        raft = states.pre_candidate(LOG, term=5)
    elif role is C:
        raft = states.candidate(LOG, term=5)
    else:
        raft = states.leader(LOG, term=5)
    raft.commit_index = raft.known_commit_index = 2
    return raft


NOW_US = {F: LATER_US, P: ELECTION_TIMEOUT_US + LATER_US, C: ELECTION_TIMEOUT_US + LATER_US}
NOW_US[L] = NOW_US[C]
ALARM_US = {F: ELECTION_TIMEOUT_US, P: 2 * ELECTION_TIMEOUT_US, C: 2 * ELECTION_TIMEOUT_US}
NEW_ALARM_US = {role: now_us + ELECTION_TIMEOUT_US for role, now_us in NOW_US.items()}


@attrs.frozen
class Row:
    """One cell of the table."""

    role: Role
    event: Event
    changes: dict[str, object] = attrs.field(factory=dict)
    output: dict[str, object] = attrs.field(factory=dict)


def append(
    term: int, previous: int, previous_term: int, *terms: int, commit: int = 0, round_number: int = 9
) -> Message:
    """An AppendEntries of server 2."""
    entries = tuple(entry(index, term_) for index, term_ in enumerate(terms, previous + 1))
    return AppendEntries(term, 2, previous, previous_term, terms[0] if terms else 0, entries, commit, round_number)


def accepted(term: int, match_index: int, round_number: int = 9) -> Message:
    return AppendEntriesResult(term, True, match_index, 0, 0, round_number)


def refused(term: int, previous: int, index: int, index_term: int, round_number: int = 9) -> Message:
    return AppendEntriesResult(term, False, previous, index, index_term, round_number)


def chunk(term: int, index: int, *, offset: int = 0, done: bool = False, index_term: int = 4) -> InstallSnapshot:
    return InstallSnapshot(term, 2, index, index_term, offset, b"data", done, 9)


def followed(role: Role, *, leader: int | None, term: int = 5, contact: bool = True) -> dict[str, object]:
    """What changes when a server follows: another leader, another term, no candidacy or leadership of its own."""
    changes: dict[str, object] = {"leader": leader}
    if term > 5:
        changes |= {"term": term, "vote": None, "leader_contact_us": None, "verified": 0}
    if role is F:
        if term == 5:
            del changes["leader"]
    else:
        changes |= {"role": F, "votes": [], "alarm_us": NEW_ALARM_US[role]}
    if role is L:
        changes |= {"round": None} | {name: None for name in state_of(server_in(L)) if name[0] in "23"}
    if contact:
        changes |= {"alarm_us": NEW_ALARM_US[role], "leader_contact_us": NOW_US[role]}
    return changes


def new_term(vote: int | None = None, term: int = 6) -> dict[str, object]:
    return {"hard_state": HardState(term, vote)}


ROWS: dict[str, list[Row]] = {}

# AppendEntries

ROWS["AppendEntries, lower term: refused, nothing changes"] = [
    Row(role, Receive(2, append(4, 3, 4, 4)), NOTHING, {"send": [(2, refused(5, 3, 3, 4))]}) for role in (F, P, C, L)
]
ROWS["AppendEntries, equal term: a candidate follows, and entries are taken"] = [
    Row(
        role,
        Receive(2, append(5, 3, 4, 5, commit=3)),
        followed(role, leader=2)
        | {"log": [(1, b"1.1"), (2, b"2.2"), (4, b"4.3"), (5, b"5.4")], "verified": 4}
        | {"committed": 3, "known_committed": 3},
        {"runs": [EntriesRun(4, 5, (b"5.4",))], "send_after_save": [(2, accepted(5, 4))]},
    )
    for role in (F, P, C)
]
ROWS["AppendEntries, equal term, heartbeat: answered at once"] = [
    Row(role, Receive(2, append(5, 2, 2)), followed(role, leader=2) | {"verified": 2}, {"send": [(2, accepted(5, 2))]})
    for role in (F, P, C)
]
ROWS["AppendEntries, equal term, of a round heard of before: it may be an old one, so the alarm is left alone"] = [
    Row(F, Receive(2, append(5, 2, 2, round_number=0)), {"verified": 2}, {"send": [(2, accepted(5, 2, 0))]})
]
ROWS["AppendEntries, equal term, beyond the log's end: refused"] = [
    Row(role, Receive(2, append(5, 7, 5, 5)), followed(role, leader=2), {"send": [(2, refused(5, 7, 3, 4))]})
    for role in (F, P, C)
]
ROWS["AppendEntries, equal term, another term at the previous index: refused"] = [
    Row(role, Receive(2, append(5, 3, 3, 5)), followed(role, leader=2), {"send": [(2, refused(5, 3, 2, 2))]})
    for role in (F, P, C)
]
ROWS["AppendEntries, equal term, a conflict: the log is cut there"] = [
    Row(
        role,
        Receive(2, append(5, 2, 2, 5, commit=9)),
        followed(role, leader=2)
        | {"log": [(1, b"1.1"), (2, b"2.2"), (5, b"5.3")], "saved": 2, "verified": 3}
        | {"committed": 3, "known_committed": 9},
        {"runs": [EntriesRun(3, 5, (b"5.3",))], "send_after_save": [(2, accepted(5, 3))]},
    )
    for role in (F, P, C)
]
ROWS["AppendEntries, equal term, all there already: nothing is cut, and the answer needs no save"] = [
    Row(
        role,
        Receive(2, append(5, 1, 1, 2)),
        followed(role, leader=2) | {"verified": 2},
        {"send": [(2, accepted(5, 2))]},
    )
    for role in (F, P, C)
]
ROWS["AppendEntries, higher term: followed, and entries are taken"] = [
    Row(
        role,
        Receive(2, append(6, 3, 4, 6)),
        followed(role, leader=2, term=6)
        | {"log": [(1, b"1.1"), (2, b"2.2"), (4, b"4.3"), (6, b"6.4")], "verified": 4}
        | ({"saved": 3} if role is L else {}),
        new_term() | {"runs": [EntriesRun(4, 6, (b"6.4",))], "send_after_save": [(2, accepted(6, 4))]},
    )
    for role in (F, P, C, L)
]

# AppendEntriesResult

ROWS["AppendEntriesResult, lower term: ignored"] = [
    Row(role, Receive(2, answer)) for role in (F, P, C, L) for answer in (accepted(4, 4), refused(4, 3, 1, 1))
]
ROWS["AppendEntriesResult, equal term, not leading: ignored"] = [
    Row(role, Receive(2, answer)) for role in (F, P, C) for answer in (accepted(5, 4), refused(5, 3, 1, 1))
]
ROWS["AppendEntriesResult, equal term, at the leader: counted, and its own term's entry is committed"] = [
    Row(
        L,
        Receive(2, accepted(5, 4, 0)),
        {
            "committed": 4,
            "known_committed": 4,
            "2.match_index": 4,
            "2.next_index": 5,
            "2.state": ProgressState.REPLICATE,
            "2.progressed_us": NOW_US[L],
            "2.last_contact_us": NOW_US[L],
        },
    )
]
ROWS["AppendEntriesResult, equal term, an earlier term's entry: counted but not committed"] = [
    Row(
        L,
        Receive(2, accepted(5, 3, 0)),
        {
            "2.match_index": 3,
            "2.next_index": 5,
            "2.state": ProgressState.REPLICATE,
            "2.progressed_us": NOW_US[L],
            "2.last_contact_us": NOW_US[L],
            "2.commit_sent": 2,
            "2.inflight": [(4, 0)],
        },
        {"send": [(2, AppendEntries(5, 1, 3, 4, 5, (b"",), 2, 0))]},
    )
]
ROWS["AppendEntriesResult, equal term, refused: skips back"] = [
    Row(
        L,
        Receive(2, refused(5, 3, 1, 1, 0)),
        {"2.next_index": 2, "2.commit_sent": 2, "2.last_contact_us": NOW_US[L]},
        {"send": [(2, AppendEntries(5, 1, 1, 1, 2, (b"2.2",), 2, 0))]},
    )
]
ROWS["AppendEntriesResult, equal term, of an unknown server: ignored"] = [Row(L, Receive(9, accepted(5, 4)))]
ROWS["AppendEntriesResult, higher term: steps down"] = [
    Row(role, Receive(2, refused(6, 3, 1, 1)), followed(role, leader=None, term=6, contact=False), new_term())
    for role in (F, P, C, L)
]

# RequestVote


def vote(term: int, *, last: int = 3, last_term: int = 4, pre_vote: bool = False, transfer: bool = False) -> Message:
    return RequestVote(term, 3, last, last_term, pre_vote, transfer)


def voted(term: int, *, yes: bool, pre_vote: bool = False) -> Message:
    return RequestVoteResult(term, yes, pre_vote)


ROWS["RequestVote, lower term: refused"] = [
    Row(role, Receive(3, vote(4, pre_vote=pre)), NOTHING, {"send": [(3, voted(5, yes=False, pre_vote=pre))]})
    for role in (F, P, C, L)
    for pre in (False, True)
]
ROWS["RequestVote, equal term, vote given or leader known: refused"] = [
    Row(role, Receive(3, vote(5, last=9, last_term=5)), NOTHING, {"send": [(3, voted(5, yes=False))]})
    for role in (F, C, L)
]
ROWS["RequestVote, equal term, vote free: granted, once it is saved"] = [
    Row(
        P,
        Receive(3, vote(5)),
        followed(P, leader=None, contact=False) | {"vote": 3},
        new_term(vote=3, term=5) | {"send_after_save": [(3, voted(5, yes=True))]},
    )
]
ROWS["RequestVote, equal term, vote free, log behind: refused"] = [
    Row(P, Receive(3, vote(5, last=2)), NOTHING, {"send": [(3, voted(5, yes=False))]}),
    Row(P, Receive(3, vote(5, last=9, last_term=3)), NOTHING, {"send": [(3, voted(5, yes=False))]}),
]
ROWS["RequestVote, higher term, but the leader is heard or is this server: not even the term is taken"] = [
    Row(role, Receive(3, vote(6, last=9, last_term=5))) for role in (F, L)
]
ROWS["RequestVote, higher term: granted"] = [
    Row(
        role,
        Receive(3, vote(6)),
        followed(role, leader=None, term=6, contact=False) | {"vote": 3},
        new_term(vote=3) | {"send_after_save": [(3, voted(6, yes=True))]},
    )
    for role in (P, C)
]
ROWS["RequestVote, higher term, log behind: the term is taken, the vote isn't given"] = [
    Row(
        role,
        Receive(3, vote(6, last=2)),
        followed(role, leader=None, term=6, contact=False),
        new_term() | {"send_after_save": [(3, voted(6, yes=False))]},
    )
    for role in (P, C)
]
ROWS["RequestVote, higher term, of a transfer: granted, leader or not"] = [
    Row(
        role,
        Receive(3, vote(6, last=4, last_term=5, transfer=True)),
        followed(role, leader=None, term=6, contact=False) | {"vote": 3, "alarm_us": NEW_ALARM_US[role]},
        new_term(vote=3) | {"send_after_save": [(3, voted(6, yes=True))]},
    )
    for role in (F, P, C, L)
]
ROWS["pre-vote, equal term: refused with the term, so that the sender takes it"] = [
    Row(role, Receive(3, vote(5, pre_vote=True)), NOTHING, {"send": [(3, voted(5, yes=False, pre_vote=True))]})
    for role in (F, P, C, L)
]
ROWS["pre-vote, higher term, the leader is heard or is this server: refused"] = [
    Row(
        role,
        Receive(3, vote(6, last=9, last_term=5, pre_vote=True)),
        NOTHING,
        {"send": [(3, voted(5, yes=False, pre_vote=True))]},
    )
    for role in (F, L)
]
ROWS["pre-vote, higher term: granted in the term asked about, and nothing changes"] = [
    Row(role, Receive(3, vote(6, pre_vote=True)), NOTHING, {"send": [(3, voted(6, yes=True, pre_vote=True))]})
    for role in (P, C)
]
ROWS["pre-vote, higher term, log behind: refused"] = [
    Row(role, Receive(3, vote(9, last=2, pre_vote=True)), NOTHING, {"send": [(3, voted(5, yes=False, pre_vote=True))]})
    for role in (P, C)
]

# RequestVoteResult

ROWS["RequestVoteResult, lower term: ignored"] = [
    Row(role, Receive(3, voted(4, yes=yes, pre_vote=pre)))
    for role in (F, P, C, L)
    for yes in (False, True)
    for pre in (False, True)
]
ROWS["RequestVoteResult, equal term, not asked for: ignored"] = [
    *(Row(role, Receive(3, voted(5, yes=True))) for role in (F, P, L)),
    *(Row(role, Receive(3, voted(6, yes=True, pre_vote=True))) for role in (F, C, L)),
    *(Row(role, Receive(3, voted(5, yes=False, pre_vote=True))) for role in (F, C, L)),
]
ROWS["RequestVoteResult, equal term, yes: a majority makes a leader"] = [
    Row(
        C,
        Receive(3, voted(5, yes=True)),
        {
            "role": L,
            "leader": 1,
            "votes": [1, 3],
            "log": [(1, b"1.1"), (2, b"2.2"), (4, b"4.3"), (5, b"")],
            "alarm_us": NOW_US[C] + 100 * MS,
        }
        | {name: value for name, value in state_of(server_in(L)).items() if name[0] in "23" or name == "round"}
        | {f"{server}.last_contact_us": NOW_US[C] for server in (2, 3)}
        | {f"{server}.commit_sent": 2 for server in (2, 3)},
        {
            "runs": [EntriesRun(4, 5, (b"",))],
            "send": [(server, AppendEntries(5, 1, 3, 4, 5, (b"",), 2, 0)) for server in (2, 3)],
        },
    )
]
ROWS["RequestVoteResult, equal term, no: noted"] = [
    Row(C, Receive(3, voted(5, yes=False)), {"rejections": [3]}),
    Row(P, Receive(3, voted(5, yes=False, pre_vote=True)), {"rejections": [3]}),
]
ROWS["pre-vote's result, yes: a majority begins the election"] = [
    Row(
        P,
        Receive(3, voted(6, yes=True, pre_vote=True)),
        {
            "role": C,
            "term": 6,
            "vote": 1,
            "alarm_us": NEW_ALARM_US[P],
        },
        new_term(vote=1) | {"send_after_save": [(to, RequestVote(6, 1, 3, 4)) for to in (2, 3)]},
    )
]
ROWS["RequestVoteResult, higher term, no: the term is taken"] = [
    Row(
        role,
        Receive(3, voted(6, yes=False, pre_vote=pre)),
        followed(role, leader=None, term=6, contact=False),
        new_term(),
    )
    for role in (F, P, C, L)
    for pre in (False, True)
]

# Submit and Timeout

ROWS["Submit, not leading: refused"] = [
    Row(role, Submit((b"x", b"y")), NOTHING, {"refused": [b"x", b"y"]}) for role in (F, P, C)
]
ROWS["Submit at the leader: appended"] = [
    Row(
        L,
        Submit((b"x",), waiting=frozenset({2, 9})),
        {"log": [(1, b"1.1"), (2, b"2.2"), (4, b"4.3"), (5, b""), (5, b"x")], "2.commit_wanted": 5},
        {"runs": [EntriesRun(5, 5, (b"x",))]},
    )
]
ROWS["Submit, of nothing"] = [Row(role, Submit(())) for role in (F, P, C, L)]
ROWS["Timeout, before the time: nothing"] = [Row(role, Timeout()) for role in (F, P, C, L)]

# The rest

ROWS["Persisted, of what isn't being saved: nothing"] = [
    Row(role, Persisted(4, 3, HardState(5, 1))) for role in (F, P, C, L)
]
ROWS["TimeoutNow, lower term, or not from the leader: ignored"] = [
    *(Row(role, Receive(2, TimeoutNow(4))) for role in (F, P, C, L)),
    *(Row(role, Receive(2, TimeoutNow(5))) for role in (P, C, L)),
    Row(F, Receive(3, TimeoutNow(5))),
]
ROWS["TimeoutNow, equal term, from the leader: campaigns without a pre-vote"] = [
    Row(
        F,
        Receive(2, TimeoutNow(5)),
        {
            "role": C,
            "term": 6,
            "vote": 1,
            "leader": None,
            "votes": [1],
            "alarm_us": NEW_ALARM_US[F],
            "leader_contact_us": None,
        },
        new_term(vote=1)
        | {"send_after_save": [(to, RequestVote(6, 1, 3, 4, leadership_transfer=True)) for to in (2, 3)]},
    )
]
ROWS["TimeoutNow, higher term: the term is taken"] = [
    Row(role, Receive(2, TimeoutNow(6)), followed(role, leader=None, term=6, contact=False), new_term())
    for role in (F, P, C, L)
]
ROWS["ReadBarrier: asked of the leader, if one is known"] = [
    Row(F, ReadBarrier(7), {"asked": {7: NOW_US[F]}}, {"send": [(2, ReadIndex(5, 7))]}),
    *(Row(role, ReadBarrier(7), NOTHING, {"barriers_failed": [7]}) for role in (P, C)),
]
ROWS["ReadIndex, lower or equal term, not leading: answered that it can't"] = [
    Row(role, Receive(3, ReadIndex(term, 7)), NOTHING, {"send": [(3, ReadIndexResult(5, 7, -1))]})
    for role in (F, P, C)
    for term in (4, 5)
]
ROWS["ReadIndex, higher term: the term is taken"] = [
    Row(
        role,
        Receive(3, ReadIndex(6, 7)),
        followed(role, leader=None, term=6, contact=False),
        new_term() | {"send_after_save": [(3, ReadIndexResult(6, 7, -1))]},
    )
    for role in (F, P, C, L)
]
ROWS["ReadIndexResult, lower or equal term, not asked for: ignored"] = [
    Row(role, Receive(2, ReadIndexResult(term, 7, 3))) for role in (F, P, C, L) for term in (4, 5)
]
ROWS["ReadIndexResult, higher term: the term is taken"] = [
    Row(role, Receive(2, ReadIndexResult(6, 7, -1)), followed(role, leader=None, term=6, contact=False), new_term())
    for role in (F, P, C, L)
]
ROWS["InstallSnapshot, lower term: answered with the term"] = [
    Row(role, Receive(2, chunk(4, 8)), NOTHING, {"send": [(2, InstallSnapshotResult(5, 8, 0, False, 9))]})
    for role in (F, P, C, L)
]
ROWS["InstallSnapshot, equal term: a candidate follows, and the chunk is kept"] = [
    Row(
        role,
        Receive(2, chunk(5, 8)),
        followed(role, leader=2)
        | {
            "incoming": {
                "leader_id": 2,
                "leader_term": 5,
                "last_included_index": 8,
                "last_included_term": 4,
                "offset": 4,
                "complete": False,
            }
        },
        {
            "chunks_received": [ChunkReceived(2, chunk(5, 8))],
            "send_after_save": [(2, InstallSnapshotResult(5, 8, 4, False, 9))],
        },
    )
    for role in (F, P, C)
]
ROWS["InstallSnapshot, of what is committed here: answered as installed"] = [
    Row(
        role,
        Receive(2, chunk(5, 2, index_term=2)),
        followed(role, leader=2),
        {"send_after_save": [(2, InstallSnapshotResult(5, 2, 0, True, 9))]},
    )
    for role in (F, P, C)
]
ROWS["InstallSnapshot, higher term: followed"] = [
    Row(
        role,
        Receive(2, chunk(6, 8, offset=4)),
        followed(role, leader=2, term=6)
        | {
            "incoming": {
                "leader_id": 2,
                "leader_term": 6,
                "last_included_index": 8,
                "last_included_term": 4,
                "offset": 0,
                "complete": False,
            }
        },
        new_term() | {"send_after_save": [(2, InstallSnapshotResult(6, 8, 0, False, 9))]},
    )
    for role in (F, P, C, L)
]
ROWS["InstallSnapshotResult, lower or equal term, nothing being sent: ignored"] = [
    *(Row(role, Receive(2, InstallSnapshotResult(4, 2, 0, True, 0))) for role in (F, P, C, L)),
    *(Row(role, Receive(2, InstallSnapshotResult(5, 2, 0, True, 0))) for role in (F, P, C)),
    Row(L, Receive(2, InstallSnapshotResult(5, 2, 0, True, 0)), {"2.last_contact_us": NOW_US[L]}),
]
ROWS["InstallSnapshotResult, higher term: steps down"] = [
    Row(
        role,
        Receive(2, InstallSnapshotResult(6, 2, 0, False, 0)),
        followed(role, leader=None, term=6, contact=False),
        new_term(),
    )
    for role in (F, P, C, L)
]
ROWS["SnapshotTaken: the log begins behind it"] = [
    Row(
        role,
        SnapshotTaken(2, 2, 100, first_index_kept=3),
        {
            "snapshot": SnapshotMeta(2, 2, 100),
            "log": [(4, b"4.3"), (5, b"")] if role is L else [(4, b"4.3")],
            "log_base": (2, 2),
        },
    )
    for role in (F, P, C, L)
]
ROWS["SnapshotInstalled, in the log: what is behind it stays"] = [
    Row(
        role,
        SnapshotInstalled(3, 4, 100),
        {"snapshot": SnapshotMeta(3, 4, 100), "log": [], "log_base": (3, 4), "committed": 3, "known_committed": 3},
    )
    for role in (F, P, C)
]
ROWS["SnapshotInstalled, beyond the log: it begins anew"] = [
    Row(
        role,
        SnapshotInstalled(8, 4, 100),
        {"snapshot": SnapshotMeta(8, 4, 100), "log": [], "log_base": (8, 4)}
        | {"committed": 8, "known_committed": 8, "saved": 8},
        {"log_reset": LogReset(8, 4)},
    )
    for role in (F, P, C)
]
ROWS["SnapshotRefused, of nothing: nothing"] = [Row(role, SnapshotRefused(8)) for role in (F, P, C, L)]
ROWS["TransferLeadership, not leading, or to nobody: ignored"] = [
    *(Row(role, TransferLeadership(2)) for role in (F, P, C)),
    *(Row(L, TransferLeadership(target)) for target in (1, 9)),
]
ROWS["TransferLeadership at the leader: submissions stop until the target has caught up"] = [
    Row(L, TransferLeadership(2), {"transfer": (2, NOW_US[L] + ELECTION_TIMEOUT_US)})
]
ROWS["PeerConnected, not leading, or nobody's: ignored"] = [
    *(Row(role, PeerConnected(2)) for role in (F, P, C)),
    Row(L, PeerConnected(9)),
]
ROWS["PeerConnected at the leader: asked where it stands"] = [
    Row(L, PeerConnected(2), {"2.commit_sent": 2}, {"send": [(2, AppendEntries(5, 1, 3, 4, 5, (b"",), 2, 0))]})
]
ROWS["a confirmed barrier is told"] = [
    Row(
        F,
        Receive(2, ReadIndexResult(5, 6, 3)),
        {"asked": {}, "known_committed": 3},
        {
            "barriers": [BarrierConfirmed(6, 3)],
        },
    )
]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=f"{title} ({row.role.value} {number})")
        for title, rows in ROWS.items()
        for number, row in enumerate(rows)
    ],
)
def test_row(row: Row) -> None:
    raft = server_in(row.role)
    if (
        isinstance(row.event, Receive)
        and isinstance(row.event.message, ReadIndexResult)
        and row.event.message.barrier == 6
    ):
        raft.reads.asked[6] = raft.now_us
    before = state_of(raft)
    raft.step(row.event, raft.now_us + LATER_US)
    ready = raft.ready()
    assert output_of(ready) == row.output
    assert ready.commit_index == raft.commit_index
    expected = {name: value for name, value in row.changes.items() if before.get(name) != value}
    assert changes_between(before, state_of(raft)) == expected
