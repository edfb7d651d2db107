"""What each command does to a store: the contract's table, row by row."""

from __future__ import annotations

import pytest
from crc32c import crc32c

from fileserver.commands import PART, BadBatch, Refusal
from fileserver.records import PART_BYTES, Record, crc_of, fingerprint
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import (
    SECOND_US,
    append,
    cas,
    content_of_file,
    delete,
    drop,
    part,
    run,
    touch,
    write,
)

BIG = bytes(range(256)) * 512 * 5
"""Five full pieces."""


@pytest.fixture
def store() -> Store:
    return Store()


def parts(upload: int, content: bytes) -> list[tuple[int, bytes, int, int, bytes | int]]:
    """The content as commands that stage it."""
    return [part(upload, content[start : start + PART_BYTES]) for start in range(0, len(content), PART_BYTES)]


def file_x(version: int, deadline_us: int, content: bytes) -> Record:
    """The record of the file ``x``."""
    of_file = fingerprint(b"x", version, deadline_us, crc32c(content))
    return Record(version, deadline_us, len(content), content, of_file)


def test_a_new_store_is_empty(store: Store) -> None:
    assert (store.version, store.clock_us, store.files, store.bytes) == (0, 0, 0, 0)
    assert store.lookup(b"x") is None
    assert store.next_deadline_us() is None
    assert store.view().next_slice(10) == []


class TestWrite:
    def test_creates_and_replaces(self, store: Store) -> None:
        assert run(store, write(b"x", b"one")) == [1]
        assert store.lookup(b"x") == file_x(1, 0, b"one")
        assert run(store, write(b"x", b"three", exptime=60), clock_us=7) == [2]
        assert store.lookup(b"x") == file_x(2, 7 + 60 * SECOND_US, b"three")
        assert (store.files, store.bytes) == (1, 5)

    def test_versions_count_all_files_without_gaps(self, store: Store) -> None:
        assert run(store, write(b"x"), write(b"y"), write(b"x")) == [1, 2, 3]
        assert run(store, delete(b"x"), write(b"x")) == [0, 5]
        assert store.version == 5

    def test_takes_any_bytes(self, store: Store) -> None:
        content = bytes(range(256)) + b"\r\n\0"
        run(store, write("naïve/名".encode(), content))
        assert content_of_file(store, "naïve/名".encode()) == content

    def test_of_a_long_content_in_one_piece_is_cut(self, store: Store) -> None:
        run(store, write(b"x", BIG + b"z"))
        record = store.lookup(b"x")
        assert record is not None
        assert (record.size, crc_of(b"x", record)) == (len(BIG) + 1, crc32c(BIG + b"z"))
        assert [len(piece) for piece in record.content if isinstance(piece, bytes)] == [PART_BYTES] * 5 + [1]

    def test_of_exactly_one_piece_is_no_rope(self, store: Store) -> None:
        run(store, write(b"x", b"z" * PART_BYTES))
        record = store.lookup(b"x")
        assert record is not None
        assert record.content == b"z" * PART_BYTES


class TestCas:
    def test_replaces_the_version_named(self, store: Store) -> None:
        run(store, write(b"x", b"one"))
        assert run(store, cas(b"x", 1, b"two", exptime=3)) == [2]
        assert content_of_file(store, b"x") == b"two"
        assert store.next_deadline_us() == 3 * SECOND_US

    def test_with_another_version_is_refused_with_the_current_one(self, store: Store) -> None:
        run(store, write(b"x", b"one"), write(b"x", b"two"))
        assert run(store, cas(b"x", 1, b"three"), cas(b"x", 3, b"three")) == [(Refusal.VERSION, 2)] * 2
        assert content_of_file(store, b"x") == b"two"
        assert store.version == 2

    def test_with_version_0_creates(self, store: Store) -> None:
        assert run(store, cas(b"x", 0, b"one")) == [1]
        assert run(store, cas(b"x", 0, b"two")) == [(Refusal.VERSION, 1)]
        assert content_of_file(store, b"x") == b"one"

    def test_on_a_missing_file_creates_nothing(self, store: Store) -> None:
        assert run(store, cas(b"x", 1, b"one")) == [(Refusal.NOT_FOUND, 0)]
        assert (store.version, store.files) == (0, 0)

    def test_does_not_match_a_file_deleted_and_made_again(self, store: Store) -> None:
        run(store, write(b"x", b"same"), delete(b"x"), write(b"x", b"same"))
        assert run(store, cas(b"x", 1)) == [(Refusal.VERSION, 3)]


class TestDelete:
    def test_takes_a_file_away_and_a_version(self, store: Store) -> None:
        run(store, write(b"x", b"one", exptime=9), write(b"y", b"two"))
        assert run(store, delete(b"x")) == [0]
        assert store.lookup(b"x") is None
        assert (store.version, store.files, store.bytes) == (3, 1, 3)
        assert store.next_deadline_us() is None

    def test_may_name_the_version(self, store: Store) -> None:
        run(store, write(b"x"), write(b"y"))
        assert run(store, delete(b"x", 2), delete(b"x", 0), delete(b"x", 1)) == [
            (Refusal.VERSION, 1),
            (Refusal.VERSION, 1),
            0,
        ]

    def test_of_a_missing_file_changes_nothing(self, store: Store) -> None:
        assert run(store, delete(b"x"), delete(b"x", 5)) == [(Refusal.NOT_FOUND, 0)] * 2
        assert store.version == 0


class TestAppend:
    def test_creates_and_adds(self, store: Store) -> None:
        assert run(store, append(b"x", b"one"), append(b"x", b"two"), append(b"x", b"")) == [1, 2, 3]
        assert store.lookup(b"x") == file_x(3, 0, b"onetwo")
        assert store.bytes == 6

    def test_up_to_the_limit_and_not_beyond(self, store: Store) -> None:
        assert run(store, append(b"x", b"12345", max_file_bytes=4)) == [(Refusal.TOO_LARGE, 0)]
        assert run(store, append(b"x", b"123", max_file_bytes=4), append(b"x", b"4", max_file_bytes=4)) == [1, 2]
        assert run(store, append(b"x", b"5", max_file_bytes=4)) == [(Refusal.TOO_LARGE, 2)]
        assert content_of_file(store, b"x") == b"1234"

    def test_many_small_ones_make_few_pieces(self, store: Store) -> None:
        piece = b"0123456789" * 1000
        for _ in range(100):
            run(store, append(b"x", piece))
        record = store.lookup(b"x")
        assert record is not None
        assert content_of_file(store, b"x") == piece * 100
        assert crc_of(b"x", record) == crc32c(piece * 100)
        assert len(record.content) == 8  # of 13 x 10,000 bytes, and the rest

    def test_of_an_upload(self, store: Store) -> None:
        run(store, write(b"x", b"head"), *parts(1, BIG))
        assert run(store, append(b"x", 1), append(b"x", b"tail")) == [2, 3]
        record = store.lookup(b"x")
        assert record is not None
        assert content_of_file(store, b"x") == b"head" + BIG + b"tail"
        assert crc_of(b"x", record) == crc32c(b"head" + BIG + b"tail")

    def test_leaves_what_was_read_before_alone(self, store: Store) -> None:
        run(store, write(b"x", BIG))
        before = store.lookup(b"x")
        run(store, append(b"x", b"tail"))
        assert before is not None
        assert b"".join(piece for piece in before.content if isinstance(piece, bytes)) == BIG


def test_touch_of_a_missing_file(store: Store) -> None:
    assert run(store, touch(b"x", 5)) == [(Refusal.NOT_FOUND, 0)]
    assert store.version == 0


class TestUploads:
    def test_a_staged_content_is_used_by_its_command(self, store: Store) -> None:
        assert run(store, *parts(9, BIG), write(b"x", 9)) == [0, 0, 0, 0, 0, 1]
        record = store.lookup(b"x")
        assert record is not None
        assert (record.size, crc_of(b"x", record)) == (len(BIG), crc32c(BIG))
        assert content_of_file(store, b"x") == BIG
        assert run(store, write(b"x", 9)) == [(Refusal.UPLOAD_LOST, 0)]

    def test_a_short_one_is_plain_bytes(self, store: Store) -> None:
        run(store, part(1, b"ab"), part(1, b""), part(1, b"cd"), write(b"x", 1))
        assert store.lookup(b"x") == file_x(1, 0, b"abcd")

    def test_an_empty_one_is_empty(self, store: Store) -> None:
        assert run(store, part(1, b""), write(b"x", 1)) == [0, 1]
        assert store.lookup(b"x") == file_x(1, 0, b"")

    def test_sessions_do_not_see_each_others(self, store: Store) -> None:
        run(store, part(1, b"of one"), session=1)
        run(store, part(1, b"of two"), session=2)
        assert run(store, cas(b"x", 0, 1), session=3) == [(Refusal.UPLOAD_LOST, 0)]
        assert run(store, cas(b"x", 0, 1), session=2) == [1]
        assert run(store, append(b"x", 1), session=1) == [2]
        assert content_of_file(store, b"x") == b"of twoof one"

    def test_end_with_their_session(self, store: Store) -> None:
        run(store, part(1, b"a"), part(2, b"b"), session=1)
        run(store, part(1, b"c"), session=2)
        store.end_session(1)
        store.end_session(5)
        assert run(store, append(b"x", 1), write(b"x", 2), session=1) == [(Refusal.UPLOAD_LOST, 0)] * 2
        assert run(store, write(b"x", 1), session=2) == [1]

    def test_are_used_up_by_a_command_that_is_refused(self, store: Store) -> None:
        run(store, part(1, b"a"), part(2, b"b"))
        empty = Store()
        assert run(store, cas(b"x", 7, 1), append(b"x", 2, max_file_bytes=0)) == [
            (Refusal.NOT_FOUND, 0),
            (Refusal.TOO_LARGE, 0),
        ]
        assert store.state_hash() == empty.state_hash()

    def test_can_be_dropped(self, store: Store) -> None:
        run(store, part(1, b"a"))
        assert run(store, drop(1), drop(1), drop(2), write(b"x", 1)) == [0, 0, 0, (Refusal.UPLOAD_LOST, 0)]

    def test_leave_nothing_of_their_session_behind(self, store: Store) -> None:
        for session in range(100):
            run(store, part(1, b"a"), write(b"x", 1), session=session)
        assert store._uploads._sessions == {}

    def test_a_long_piece_is_cut(self, store: Store) -> None:
        run(store, part(1, BIG), write(b"x", 1))
        record = store.lookup(b"x")
        assert record is not None
        assert [len(piece) for piece in record.content if isinstance(piece, bytes)] == [PART_BYTES] * 5

    def test_a_piece_that_is_a_number_is_none(self, store: Store) -> None:
        assert run(store, (PART, b"", 1, 0, 5), write(b"x", 1)) == [0, (Refusal.UPLOAD_LOST, 0)]


class TestApply:
    def test_runs_a_batch_in_order_and_answers_each(self, store: Store) -> None:
        assert run(
            store, write(b"x", b"1"), cas(b"x", 9), append(b"x", b"2"), touch(b"x", 9), delete(b"x", 2), touch(b"x", 9)
        ) == [1, (Refusal.VERSION, 1), 2, 2, 0, (Refusal.NOT_FOUND, 0)]

    def test_of_an_empty_batch_lets_time_pass(self, store: Store) -> None:
        run(store, write(b"x", exptime=1))
        assert run(store, clock_us=SECOND_US) == []
        assert (store.clock_us, store.files) == (SECOND_US, 0)

    def test_of_what_is_no_batch_changes_nothing(self, store: Store) -> None:
        run(store, write(b"x", exptime=1))
        before = store.state_hash()
        with pytest.raises(BadBatch):
            store.apply(5 * SECOND_US, 1, b"\x83\x01\x02\x03")
        assert store.state_hash() == before

    def test_an_exptime_below_never_is_never(self, store: Store) -> None:
        run(store, write(b"x", exptime=-5))
        assert store.next_deadline_us() is None


class TestStateHash:
    def test_is_equal_for_equal_histories(self, store: Store) -> None:
        other = Store()
        for each in (store, other):
            run(each, write(b"x", b"1", exptime=5), part(3, b"piece"), write(b"y"), clock_us=9)
        assert store.state_hash() == other.state_hash()
        assert len(store.state_hash()) == 32

    def test_is_of_the_state_and_not_of_the_way_to_it(self, store: Store) -> None:
        other = Store()
        run(store, write(b"x", b"1"), write(b"y", b"2"), delete(b"x"), write(b"x", b"3"))
        run(other, write(b"z", b"1", exptime=3), write(b"y", b"2"), delete(b"z"), cas(b"x", 0, b"3"))
        assert store.state_hash() == other.state_hash()

    def test_shows_any_difference(self) -> None:
        histories = [
            [],
            [write(b"x", b"1")],
            [write(b"y", b"1")],
            [write(b"x", b"2")],
            [write(b"x", b"1", exptime=1)],
            [write(b"x", b"1", exptime=2)],
            [write(b"x", b"1"), write(b"x", b"1")],
            [write(b"x", b"1"), delete(b"x")],
            [write(b"x", b"1"), write(b"y", b"2")],
            [write(b"x", b"2"), write(b"y", b"1")],
            [write(b"y", b"2"), write(b"x", b"1")],
            [part(1, b"piece")],
            [part(2, b"piece")],
            [part(1, b"piecf")],
            [part(1, b"piece"), part(2, b"")],
        ]
        hashes = set()
        for history in histories:
            store = Store()
            run(store, *history)
            hashes.add(store.state_hash())
        later = Store()
        later.advance(1)
        other_session = Store()
        run(other_session, part(1, b"piece"), session=2)
        assert len(hashes | {later.state_hash(), other_session.state_hash()}) == len(histories) + 2
