"""The replicated state: batches of sessions once and in order, cluster time, snapshots of all of it."""

from __future__ import annotations

from collections.abc import Iterator

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftnode.entries import BadEntry, encode_batch, encode_open_session, encode_tick
from raftnode.replica import BatchApplied, BatchOutOfSequence, Outcome, Replica, Session, SessionOpened
from tests.stage3_raftnode.machines import ListMachine


class Log:
    """A replica, and entries that are applied to it one after another."""

    def __init__(self, replica: Replica | None = None) -> None:
        self.machine = ListMachine()
        self.replica = replica or Replica(self.machine)

    def apply(self, entry: bytes) -> Outcome:
        return self.replica.apply(self.replica.applied_index + 1, entry)

    def open(self, server_id: int, nonce: int, stamp_us: int = 0) -> Outcome:
        return self.apply(encode_open_session(stamp_us, server_id, nonce))

    def batch(self, session: int, sequence: int, payload: bytes, acknowledged: int = 0, stamp_us: int = 0) -> Outcome:
        return self.apply(encode_batch(stamp_us, session, sequence, acknowledged, payload))


def copied(replica: Replica) -> Replica:
    """Another one, from a snapshot."""
    other = Replica(ListMachine())
    other.machine.apply(0, 99, b"what was there before")
    restore = other.begin_restore()
    for chunk in replica.snapshot():
        restore.feed(chunk)
    restore.finish()
    return other


def test_a_session_is_known_by_the_index_of_the_entry_that_opened_it() -> None:
    log = Log()
    log.apply(b"")
    assert log.open(3, 77) == SessionOpened(Session(2, 3, 77))
    assert log.replica.session_of(3) == Session(2, 3, 77)
    assert log.replica.session_of(4) is None


def test_opening_again_with_the_same_nonce_changes_nothing() -> None:
    log = Log()
    log.open(3, 77)
    log.batch(1, 1, b"a")
    assert log.open(3, 77) is None
    assert log.batch(1, 2, b"b") == BatchApplied(1, 2, 2)


def test_only_the_awaited_session_is_told_of_if_there_is_one() -> None:
    log = Log()
    log.open(3, 77)
    log.open(4, 77)
    log.replica.awaited_session = 2
    assert log.batch(1, 1, b"a") is None
    assert log.batch(2, 1, b"b") == BatchApplied(2, 1, 2)
    assert log.batch(1, 3, b"c") == BatchOutOfSequence(1), "whoever leads has to know"


def test_a_new_run_ends_the_servers_earlier_session() -> None:
    log = Log()
    log.open(3, 77)
    log.open(4, 77)
    log.batch(1, 1, b"a")
    assert log.open(3, 78) == SessionOpened(Session(4, 3, 78))
    assert log.machine.state.ended_sessions == [1]
    assert log.batch(1, 2, b"late") is None
    assert log.batch(2, 1, b"of the other server") == BatchApplied(2, 1, 2)
    assert log.batch(4, 1, b"b") == BatchApplied(4, 1, 3)
    assert log.machine.items == [b"a", b"of the other server", b"b"]


@pytest.mark.parametrize(
    ("sequence", "outcome"),
    [
        (1, None),
        (2, None),
        (3, BatchApplied(1, 3, 3)),
        (4, BatchOutOfSequence(1)),
        (9, BatchOutOfSequence(1)),
    ],
)
def test_only_the_next_batch_is_applied(sequence: int, outcome: Outcome) -> None:
    log = Log()
    log.open(3, 77)
    log.batch(1, 1, b"a")
    log.batch(1, 2, b"b")
    assert log.batch(1, sequence, b"c") == outcome
    assert len(log.machine.items) == (3 if sequence == 3 else 2)


def test_a_batch_of_an_unknown_session_is_never_applied() -> None:
    log = Log()
    assert log.batch(5, 1, b"a") is None
    assert log.machine.items == []


def test_results_are_kept_until_acknowledged() -> None:
    log = Log()
    log.open(3, 77)
    session = log.replica.sessions[1]
    for sequence, acknowledged, kept in [(1, 0, {1}), (2, 0, {1, 2}), (3, 2, {3}), (4, 2, {3, 4}), (5, 5, set())]:
        log.batch(1, sequence, b"%d" % sequence, acknowledged)
        assert set(session.results) == kept


def test_time_comes_in_the_entries_and_never_goes_back() -> None:
    log = Log()
    log.open(3, 77, stamp_us=100)
    assert log.batch(1, 1, b"in 50 due", stamp_us=90) == BatchApplied(1, 1, 150)
    assert log.replica.clock_us == 100
    log.apply(b"")
    log.apply(encode_tick(149))
    assert log.machine.items == []
    log.apply(encode_tick(150))
    assert log.machine.items == [b"due"]


@pytest.mark.parametrize(
    "entry",
    [
        encode_tick(20),
        encode_open_session(20, 3, 77),
        encode_open_session(20, 3, 78),
        encode_batch(20, 1, 1, 0, b"again"),
        encode_batch(20, 1, 5, 0, b"too early"),
        encode_batch(20, 99, 1, 0, b"of nobody"),
    ],
)
def test_time_passes_with_entries_that_do_nothing_else(entry: bytes) -> None:
    log = Log()
    log.open(3, 77)
    log.batch(1, 1, b"in 20 due")
    log.apply(entry)
    assert log.machine.items == [b"due"]


def test_an_entry_that_cannot_be_read_is_not_passed_over() -> None:
    log = Log()
    with pytest.raises(BadEntry):
        log.apply(b"?")
    assert log.replica.applied_index == 0


def test_entries_are_applied_in_order_each_once() -> None:
    log = Log()
    log.apply(b"")
    for index in (0, 1, 3):
        with pytest.raises(AssertionError):
            log.replica.apply(index, b"")


# Snapshots


def test_a_snapshot_has_sessions_with_their_results() -> None:
    log = Log()
    log.open(3, 77, stamp_us=5)
    log.open(4, 78)
    for sequence in (1, 2, 3):
        log.batch(1, sequence, b"%d" % sequence, acknowledged=1)
    other = copied(log.replica)
    assert (other.applied_index, other.clock_us) == (5, 5)
    assert other.sessions == log.replica.sessions
    assert list(other.sessions[1].results.items()) == [(2, 2), (3, 3)]
    continued = Log(other)
    assert continued.batch(1, 3, b"again") is None
    assert continued.batch(1, 4, b"4", acknowledged=3) == BatchApplied(1, 4, 4)
    assert set(other.sessions[1].results) == {4}


def test_a_snapshot_is_of_its_moment() -> None:
    log = Log()
    log.open(3, 77)
    log.batch(1, 1, b"a")
    chunks = log.replica.snapshot()
    log.batch(1, 2, b"b")
    log.open(3, 78)
    other = Replica(ListMachine())
    restore = other.begin_restore()
    for chunk in chunks:
        restore.feed(chunk)
    restore.finish()
    assert other.applied_index == 2
    assert other.sessions[1].sequence == 1


@pytest.mark.parametrize("drawn", [1, 2, 3])
def test_a_snapshot_that_is_closed_closes_the_machines(drawn: int) -> None:
    """Also when nothing of the machine's has been drawn yet."""
    log = Log()
    log.machine.state.items = [b"%d" % number for number in range(100)]
    chunks = log.replica.snapshot()
    for _ in range(drawn):
        next(chunks)
    assert log.machine.snapshots_open == 1
    getattr(chunks, "close")()  # noqa: B009 - an Iterator need not have one
    assert log.machine.snapshots_open == 0


class PlainMachine(ListMachine):
    """One whose snapshots can't be closed."""

    def snapshot(self) -> Iterator[bytes]:
        return iter(list(super().snapshot()))


def test_a_machine_whose_snapshots_need_no_closing() -> None:
    machine = PlainMachine()
    machine.apply(0, 1, b"a")
    other = copied(Replica(machine))
    assert isinstance(other.machine, ListMachine)
    assert other.machine.items == [b"a"]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        cbor2.dumps(5),
        cbor2.dumps([1, 2]),
        cbor2.dumps([1, 2, 3]),
        cbor2.dumps([1, 2, [[1, 2]]]),
        cbor2.dumps([1, 2, [[1, 2, 3, 4, [[1, b"no number"]]]]]),
        cbor2.dumps(["1", 2, []]),
        cbor2.dumps([1, 2.5, []]),
        cbor2.dumps([True, 2, []]),
        cbor2.dumps([1, 2, [[False, 2, 3, 4, []]]]),
        cbor2.dumps([1, -2, []]),
        cbor2.dumps([1, 2**63, []]),
        cbor2.dumps([2**70, 2, []]),
        cbor2.dumps([1, 2, [[1, 2, 3, cbor2.undefined, []]]]),
        cbor2.dumps([1, 2, [[1, 2, 3, 4, [[-1, b"\x01"]]]]]),
        cbor2.dumps([1, 2, [[1, 2, 3, 4, [[1, [[[]]]]]]]]),
    ],
)
def test_a_head_that_cannot_be_read(head: bytes) -> None:
    log = Log()
    log.open(3, 77)
    restore = log.replica.begin_restore()
    restore.feed(head)
    for chunk in ListMachine().snapshot():
        restore.feed(chunk)
    with pytest.raises(ValueError, match=r"."):
        restore.finish()
    assert log.replica.applied_index == 1
    assert set(log.replica.sessions) == {1}


def test_nothing_is_no_snapshot() -> None:
    with pytest.raises(ValueError, match="without contents"):
        Replica(ListMachine()).begin_restore().finish()


def test_a_snapshot_that_is_cut_off_changes_nothing() -> None:
    log = Log()
    log.machine.state.items = [b"%d" % number for number in range(100)]
    *chunks, _ = log.replica.snapshot()
    other = Replica(ListMachine())
    restore = other.begin_restore()
    for chunk in chunks:
        restore.feed(chunk)
    with pytest.raises(ValueError, match="cut off"):
        restore.finish()
    assert other.applied_index == 0


ENTRIES = st.one_of(
    st.just(b""),
    st.builds(encode_tick, st.integers(0, 50)),
    st.builds(encode_open_session, st.integers(0, 50), st.integers(1, 3), st.integers(1, 2)),
    st.builds(
        encode_batch, st.integers(0, 50), st.integers(1, 8), st.integers(1, 4), st.integers(0, 3), st.binary(max_size=2)
    ),
)


@given(st.lists(ENTRIES), st.integers(0, 50))
def test_a_replica_from_a_snapshot_goes_on_as_the_one_that_was_there_all_the_time(
    entries: list[bytes], taken_at: int
) -> None:
    log = Log()
    for entry in entries[:taken_at]:
        log.apply(entry)
    other = Log(copied(log.replica))
    for entry in entries[taken_at:]:
        assert other.apply(entry) == log.apply(entry)
    assert isinstance(other.replica.machine, ListMachine)
    assert other.replica.machine.state == log.machine.state
    assert other.replica.sessions == log.replica.sessions
    assert other.replica.clock_us == log.replica.clock_us


@given(st.lists(ENTRIES))
def test_sessions_are_one_a_server_and_their_batches_without_gaps(entries: list[bytes]) -> None:
    log = Log()
    applied: dict[int, list[int]] = {}
    for entry in entries:
        outcome = log.apply(entry)
        if isinstance(outcome, BatchApplied):
            applied.setdefault(outcome.session, []).append(outcome.sequence)
        servers = [session.server_id for session in log.replica.sessions.values()]
        assert len(set(servers)) == len(servers)
    for sequences in applied.values():
        assert sequences == list(range(1, len(sequences) + 1))
