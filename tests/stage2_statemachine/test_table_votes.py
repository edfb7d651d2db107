"""The course's table (see :mod:`tests.stage2_statemachine.table`): votes, pre-votes and their answers."""

from __future__ import annotations

from statemachine.events import (
    EntriesRun,
    Receive,
)
from statemachine.messages import (
    AppendEntries,
    Message,
    RequestVote,
    RequestVoteResult,
)
from tests.stage2_statemachine.states import MS, state_of
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
    followed,
    new_term,
    server_in,
)

ROWS: dict[str, list[Row]] = {}

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


@cells(ROWS)
def test_request_vote(row: Row) -> None:
    check_row(row)
