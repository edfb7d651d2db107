"""A server's own batches: sequence, windows, sending again, and what becomes of them when a session ends."""

from __future__ import annotations

import pytest

from raftnode.proposals import Propose
from raftnode.replica import Session
from raftnode.submissions import WINDOW_BYTES, Lane, Submission, Submissions

SESSION = 10


class Client:
    """Submits batches, and keeps what it is told."""

    def __init__(self, session: int = SESSION) -> None:
        self.submissions = Submissions()
        self.told: list[tuple[bytes, object]] = []
        if session:
            self.submissions.session_opened(session)

    def add(self, payload: bytes, lane: Lane = Lane.SMALL) -> Submission:
        submission = Submission(payload, lane, lambda results: self.told.append((payload, results)))
        self.submissions.add(submission)
        return submission

    def taken(self) -> list[tuple[int, bytes]]:
        return [(proposal.sequence, proposal.payload) for proposal in self.submissions.take()]

    def apply(self, *sequences: int) -> None:
        for sequence in sequences:
            self.submissions.applied(self.submissions.session, sequence, sequence * 100)


def test_batches_are_numbered_as_they_are_first_proposed() -> None:
    client = Client()
    first, second = client.add(b"a"), client.add(b"b")
    assert not first.proposed
    assert client.submissions.can_take
    assert client.submissions.take() == [Propose(SESSION, 1, 0, b"a"), Propose(SESSION, 2, 0, b"b")]
    assert (first.sequence, second.sequence) == (1, 2)
    assert client.submissions.in_flight == 2
    assert not client.submissions.can_take
    assert client.submissions.take() == []


def test_results_are_told_and_acknowledged_with_what_comes_next() -> None:
    client = Client()
    client.add(b"a")
    client.add(b"b")
    client.taken()
    client.apply(1)
    assert client.told == [(b"a", 100)]
    client.add(b"c")
    assert client.submissions.take() == [Propose(SESSION, 3, 1, b"c")]
    client.apply(2, 3)
    assert client.told == [(b"a", 100), (b"b", 200), (b"c", 300)]
    assert len(client.submissions) == client.submissions.pending_bytes == 0
    assert client.submissions.acknowledged == 3


def test_without_a_session_everything_waits() -> None:
    client = Client(session=0)
    client.add(b"a")
    assert not client.submissions.can_take
    assert client.taken() == []
    client.submissions.session_opened(SESSION)
    assert client.taken() == [(1, b"a")]


def test_what_may_be_lost_is_all_sent_again() -> None:
    client = Client()
    for payload in (b"a", b"b", b"c"):
        client.add(payload)
    client.taken()
    client.apply(1)
    client.submissions.send_again()
    assert client.submissions.can_take
    assert client.taken() == [(2, b"b"), (3, b"c")]


def test_what_was_applied_before_it_could_be_sent_again() -> None:
    client = Client()
    client.add(b"a")
    client.add(b"b")
    client.taken()
    client.submissions.send_again()
    client.apply(1)
    client.add(b"c")
    assert client.taken() == [(2, b"b"), (3, b"c")]


def test_other_sessions_batches_are_nobodys_here() -> None:
    client = Client()
    client.add(b"a")
    client.taken()
    client.submissions.applied(SESSION - 1, 1, "results of another")
    assert client.told == []


def test_few_bytes_of_bulk_are_on_their_way_while_small_batches_pass() -> None:
    client = Client()
    piece = bytes(WINDOW_BYTES[Lane.BULK] // 2)
    for _ in range(4):
        client.add(piece, Lane.BULK)
    client.add(b"small")
    assert [sequence for sequence, _ in client.taken()] == [1, 2, 3]
    assert not client.submissions.can_take
    client.add(b"small too")
    assert client.taken() == [(4, b"small too")]
    client.apply(1, 2)
    assert client.submissions.can_take
    assert client.taken() == [(5, piece)]
    assert client.submissions.pending_bytes == 3 * len(piece) + len(b"small too")


def test_a_batch_larger_than_the_window_goes_alone() -> None:
    client = Client()
    big = bytes(WINDOW_BYTES[Lane.SMALL] + 1)
    client.add(big)
    client.add(b"next")
    assert client.taken() == [(1, big)]
    client.apply(1)
    assert client.taken() == [(2, b"next")]


def test_withdrawn_before_it_was_proposed() -> None:
    client = Client()
    withdrawn, kept = client.add(b"withdrawn"), client.add(b"kept")
    assert client.submissions.withdraw(withdrawn)
    assert client.taken() == [(1, b"kept")]
    assert client.submissions.pending_bytes == len(kept.payload)


def test_withdrawn_after_it_was_proposed() -> None:
    client = Client()
    withdrawn = client.add(b"withdrawn")
    client.taken()
    assert not client.submissions.withdraw(withdrawn)
    client.apply(1)
    assert client.told == []
    assert client.submissions.pending_bytes == 0


@pytest.mark.parametrize("reopened_at_once", [True, False])
def test_batches_of_an_ended_session_go_out_again_under_the_next(*, reopened_at_once: bool) -> None:
    """In their order, those that nobody waits for left out, and numbered from 1."""
    client = Client()
    submissions = [client.add(payload) for payload in (b"applied", b"b", b"withdrawn", b"c")]
    client.taken()
    client.add(b"waiting")
    client.add(b"bulk", Lane.BULK)
    client.apply(1)
    client.submissions.withdraw(submissions[2])
    if not reopened_at_once:
        client.submissions.session_ended()
        assert client.submissions.session == 0
        assert client.taken() == []
        assert client.submissions.withdraw(submissions[1]), "it won't ever be applied now"
        client.add(b"b")
        # Withdrawn and submitted anew, it stands behind the others.
        expected = [b"c", b"waiting", b"b", b"bulk"]
    else:
        expected = [b"b", b"c", b"waiting", b"bulk"]
    client.submissions.session_opened(SESSION + 5)
    assert client.taken() == list(enumerate(expected, 1))
    assert client.submissions.pending_bytes == sum(map(len, expected))
    client.submissions.applied(SESSION, 2, "too late")
    client.apply(*range(1, 5))
    assert [payload for payload, _ in client.told] == [b"applied", *expected]


def test_a_snapshot_that_has_results() -> None:
    client = Client()
    for payload in (b"a", b"b", b"c"):
        client.add(payload)
    client.taken()
    client.submissions.restored(Session(SESSION, 1, 1, sequence=2, results={1: "one", 2: "two"}))
    assert client.told == [(b"a", "one"), (b"b", "two")]
    assert client.submissions.in_flight == 1


def test_a_snapshot_that_has_all_results() -> None:
    client = Client()
    client.add(b"a")
    client.taken()
    client.submissions.restored(Session(SESSION, 1, 1, sequence=1, results={1: "one"}))
    assert client.told == [(b"a", "one")]
    assert client.submissions.in_flight == 0


@pytest.mark.parametrize("session", [None, Session(SESSION + 1, 1, 1)])
def test_a_snapshot_in_which_the_session_is_over(session: Session | None) -> None:
    client = Client()
    client.add(b"a")
    client.taken()
    client.submissions.restored(session)
    assert client.submissions.session == 0
    client.submissions.session_opened(SESSION + 2)
    assert client.taken() == [(1, b"a")]


def test_a_snapshot_before_there_is_a_session() -> None:
    client = Client(session=0)
    client.submissions.restored(None)
    assert client.submissions.session == 0
