"""The course's table (see :mod:`tests.stage2_statemachine.table`): AppendEntries and its answers."""

from __future__ import annotations

from statemachine.events import (
    EntriesRun,
    Receive,
)
from statemachine.messages import (
    AppendEntries,
)
from statemachine.progress import ProgressState
from tests.stage2_statemachine.table import (
    NOTHING,
    NOW_US,
    C,
    F,
    L,
    P,
    Row,
    accepted,
    append,
    cells,
    check_row,
    followed,
    new_term,
    refused,
)

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
ROWS["AppendEntries, equal term, heartbeat that needs no answer: none is given"] = [
    Row(
        role,
        Receive(2, append(5, 2, 2, may_be_silent=True)),
        followed(role, leader=2) | {"verified": 2},
        NOTHING,
    )
    for role in (F, P, C)
]
ROWS["AppendEntries, equal term, heartbeat that needs no answer if it is agreed with: refused"] = [
    Row(
        role,
        Receive(2, append(5, 7, 5, 5, may_be_silent=True)),
        followed(role, leader=2),
        {"send": [(2, refused(5, 7, 3, 4))]},
    )
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


@cells(ROWS)
def test_append_entries(row: Row) -> None:
    check_row(row)
