"""The course's table (see :mod:`tests.stage2_statemachine.table`): everything but appends and votes."""

from __future__ import annotations

from statemachine.events import (
    EntriesRun,
    HardState,
    PeerConnected,
    PeerDisconnected,
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
    InstallSnapshotResult,
    ReadIndex,
    ReadIndexResult,
    RequestVote,
    TimeoutNow,
)
from statemachine.progress import SnapshotMeta
from statemachine.ready import BarrierConfirmed, ChunkReceived, LogReset
from tests.stage2_statemachine.states import ELECTION_TIMEOUT_US
from tests.stage2_statemachine.table import (
    NEW_ALARM_US,
    NOTHING,
    NOW_US,
    C,
    F,
    L,
    P,
    Row,
    cells,
    check_row,
    chunk,
    followed,
    new_term,
)

ROWS: dict[str, list[Row]] = {}

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
ROWS["PeerDisconnected, of another than the leader, or without one: ignored"] = [
    *(Row(role, PeerDisconnected(2)) for role in (P, C, L)),
    Row(F, PeerDisconnected(3)),
]
ROWS["PeerDisconnected, of the leader: it is not held on to, and the alarm goes soon"] = [
    Row(F, PeerDisconnected(2), {"leader_contact_us": None, "alarm_us": NOW_US[F]})
]
ROWS["PeerConnected at the leader: asked where it stands"] = [
    Row(L, PeerConnected(2), {"2.commit_sent": 2}, {"send": [(2, AppendEntries(5, 1, 3, 4, 5, (b"",), 2, 0))]})
]
ROWS["ReadIndexResult, equal term, asked for: the barrier is confirmed, and what it says is committed"] = [
    Row(
        F,
        Receive(2, ReadIndexResult(5, 6, 3)),
        {"asked": {}, "known_committed": 3},
        {"barriers": [BarrierConfirmed(6, 3)]},
        asked={6: 0},
    )
]


@cells(ROWS)
def test_other_events(row: Row) -> None:
    check_row(row)
