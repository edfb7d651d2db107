"""Times, limits and deadlines: what the thesis leaves to an implementation."""

from __future__ import annotations

import attrs
import pytest

from statemachine.events import (
    Submit,
    Timeout,
)
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
)
from statemachine.roles import Options
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import (
    OPTIONS,
    accept,
    receive,
    save_all,
    saved,
    sent,
    step,
)


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ({"election_timeout_us_min": 500, "election_timeout_us_max": 400, "heartbeat_us": 100}, "range is empty"),
        ({"election_timeout_us_min": 0, "election_timeout_us_max": 0, "heartbeat_us": 100}, "range is empty"),
        ({"election_timeout_us_min": 100, "election_timeout_us_max": 200, "heartbeat_us": 100}, "shorter"),
        ({"heartbeat_us": 0}, "shorter"),
    ],
)
def test_times_that_could_never_work_are_refused(times: dict[str, int], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Options(**times)


def test_a_probe_that_is_repeated_carries_no_big_entry() -> None:
    big = b"a" * 11
    raft = states.leader(term=4, options=attrs.evolve(OPTIONS, probe_bytes_max=10))
    accept(raft, 2)
    save_all(raft)
    saved(raft, step(raft, Submit((b"small", big))))
    # A refusal of what was sent: the first entry that may be missing is small.
    ready = receive(raft, 2, AppendEntriesResult(4, False, 3, 1, 4, 0))
    assert sent(ready) == [(2, AppendEntries(4, 1, 1, 4, 4, (b"small",), 1, 0))]
    accept(raft, 2, index=2)
    assert sent(raft.ready()) == [(2, AppendEntries(4, 1, 2, 4, 4, (big,), 2, 0))]
    ready = receive(raft, 2, AppendEntriesResult(4, False, 3, 2, 4, 0))
    assert sent(ready) == [(2, AppendEntries(4, 1, 2, 4, 0, (), 2, 0))]
    accept(raft, 2, index=2)
    assert sent(raft.ready()) == [(2, AppendEntries(4, 1, 2, 4, 4, (big,), 2, 0))]


def test_heartbeats_go_at_their_time_even_when_entries_go_too() -> None:
    """Entries may be a long while on their way, behind others; heartbeats may pass them."""
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    save_all(raft)
    raft.step(Submit((b"x",)), raft.deadline_us)
    raft.step(Timeout(), raft.deadline_us)
    to_2 = [outgoing for outgoing in raft.ready().messages if outgoing.to == 2]
    assert [(isinstance(o.message, AppendEntries) and len(o.message.entries), o.urgent) for o in to_2] == [
        (1, False),
        (0, True),
    ]


def test_those_who_wait_are_told_the_commit_index_at_once() -> None:
    raft = states.leader(term=4)
    accept(raft, 2, 3)
    save_all(raft)
    ready = step(raft, Submit((b"x",), waiting=frozenset({3})))
    saved(raft, ready)
    accept(raft, 2)
    assert sent(raft.ready()) == [(3, AppendEntries(4, 1, 2, 4, 0, (), 2, 0, may_be_silent=True))]


def test_a_step_that_times_out_moves_the_deadline_past_now() -> None:
    """Otherwise the caller would be busy for ever; at any time, however late it comes."""
    for make in (states.server, states.follower, states.pre_candidate, states.candidate, states.leader):
        raft = make(term=4)
        for late_us in (0, 1, 10**9):
            raft.step(Timeout(), raft.deadline_us + late_us)
            raft.ready()
            assert raft.deadline_us > raft.now_us


def test_time_does_not_go_back() -> None:
    raft = states.follower(term=4)
    step(raft, Timeout(), 10)
    raft.step(Timeout(), 5)
    assert raft.now_us == 10
