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
    Event,
    HardState,
)
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    Message,
)
from statemachine.raft import Raft
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
    asked: dict[int, int] = attrs.field(factory=dict)
    """Barriers that it has asked its leader about, and when."""


def append(
    term: int,
    previous: int,
    previous_term: int,
    *terms: int,
    commit: int = 0,
    round_number: int = 9,
    may_be_silent: bool = False,
) -> Message:
    """An AppendEntries of server 2."""
    entries = tuple(entry(index, term_) for index, term_ in enumerate(terms, previous + 1))
    entries_term = terms[0] if terms else 0
    return AppendEntries(
        term, 2, previous, previous_term, entries_term, entries, commit, round_number, may_be_silent=may_be_silent
    )


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


def check_row(row: Row) -> None:
    """Put a server into the row's state, give it the event, and compare everything."""
    raft = server_in(row.role)
    raft.reads.asked |= row.asked
    before = state_of(raft)
    raft.step(row.event, raft.now_us + LATER_US)
    ready = raft.ready()
    assert output_of(ready) == row.output
    assert ready.commit_index == raft.commit_index
    expected = {name: value for name, value in row.changes.items() if before.get(name) != value}
    assert changes_between(before, state_of(raft)) == expected


def cells(rows: dict[str, list[Row]]) -> pytest.MarkDecorator:
    """The rows of a part of the table as a test's parameters."""
    return pytest.mark.parametrize(
        "row",
        [
            pytest.param(row, id=f"{title} ({row.role.value} {number})")
            for title, under_title in rows.items()
            for number, row in enumerate(under_title)
        ],
    )
