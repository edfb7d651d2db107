"""Expiry: which files go when, in which order, and that nothing piles up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.expiry import Deadlines
from fileserver.records import crc_of
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import (
    SECOND_US,
    append,
    cas,
    content_of_file,
    delete,
    run,
    touch,
    write,
)


def test_deadlines_come_out_in_order_of_time_then_version() -> None:
    deadlines = Deadlines()
    deadlines.update([(20, 4, b"d"), (10, 3, b"a")])
    deadlines.add(10, 2, b"z")
    deadlines.add(11, 1, b"b")
    assert deadlines.next_us == 10
    assert deadlines.pop_due(9) == []
    assert deadlines.pop_due(11) == [(10, 2, b"z"), (10, 3, b"a"), (11, 1, b"b")]
    assert deadlines.next_us == 20
    deadlines.remove(20, 4, b"d")
    assert deadlines.next_us is None
    assert deadlines.pop_due(100) == []
    assert len(deadlines) == 0


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 99)), unique_by=lambda item: item[1]), st.integers(0, 10))
def test_what_is_due_is_what_a_sort_says(items: list[tuple[int, int]], clock_us: int) -> None:
    deadlines = Deadlines()
    entries = [(deadline_us, version, b"%d" % version) for deadline_us, version in items]
    for entry in entries:
        deadlines.add(*entry)
    assert deadlines.pop_due(clock_us) == sorted(entry for entry in entries if entry[0] <= clock_us)
    assert len(deadlines) == sum(entry[0] > clock_us for entry in entries)


def test_a_file_is_there_until_its_deadline_and_gone_at_it() -> None:
    store = Store()
    run(store, write(b"x", b"1", exptime=2), clock_us=5)
    assert store.next_deadline_us() == 5 + 2 * SECOND_US
    store.advance(4 + 2 * SECOND_US)
    assert content_of_file(store, b"x") == b"1"
    assert store.version == 1
    store.advance(5 + 2 * SECOND_US)
    assert store.lookup(b"x") is None
    assert (store.version, store.files, store.bytes) == (2, 0, 0)
    assert store.next_deadline_us() is None


def test_each_expiry_takes_a_version_before_the_batch_that_comes_with_it() -> None:
    store = Store()
    run(store, write(b"late", exptime=3), write(b"early", exptime=1), write(b"stays"))
    assert run(store, write(b"next"), clock_us=3 * SECOND_US) == [6]
    assert [store.lookup(name) is None for name in (b"late", b"early", b"stays")] == [True, True, False]


def test_an_expired_file_is_absent_for_the_commands_of_the_same_batch() -> None:
    store = Store()
    run(store, write(b"x", b"old", exptime=1))
    assert run(store, cas(b"x", 0, b"new"), append(b"x", b"er"), clock_us=SECOND_US) == [3, 4]
    assert content_of_file(store, b"x") == b"newer"


def test_files_due_at_once_expire_by_deadline_then_version() -> None:
    """An open view is handed the files in the order in which they go."""
    store = Store()
    run(store, write(b"b", exptime=2), write(b"a", exptime=2), write(b"z", exptime=1))
    view = store.view()
    store.advance(2 * SECOND_US)
    assert list(view._overlay) == [b"z", b"b", b"a"]


@pytest.mark.parametrize("others", [0, 100])
def test_few_or_many_expire(others: int) -> None:
    """The names' index is either weeded or made anew; either way it holds what is left."""
    store = Store()
    run(store, *(write(b"other%03d" % number) for number in range(others)))
    run(store, write(b"other050x", exptime=1), write(b"a", exptime=1), write(b"zz", exptime=1), write(b"b"))
    store.advance(SECOND_US)
    names = [name for name, _ in store.view().next_slice(1000)]
    assert names == [b"b", *(b"other%03d" % number for number in range(others))]


def test_the_clock_never_goes_back() -> None:
    store = Store()
    store.advance(5 * SECOND_US)
    store.advance(3 * SECOND_US)
    assert run(store, write(b"x", exptime=1), clock_us=SECOND_US) == [1]
    assert store.clock_us == 5 * SECOND_US
    assert store.next_deadline_us() == 6 * SECOND_US


def test_write_and_cas_replace_the_expiry_also_by_never() -> None:
    store = Store()
    run(store, write(b"x", exptime=1), write(b"x"), write(b"y", exptime=1), cas(b"y", 3))
    assert store.next_deadline_us() is None
    run(store, write(b"x", exptime=9), write(b"x", exptime=4))
    assert store.next_deadline_us() == 4 * SECOND_US


def test_append_keeps_the_expiry_unless_it_gives_one() -> None:
    store = Store()
    run(store, append(b"x", b"1"), append(b"y", b"1", exptime=7), write(b"z", exptime=5))
    assert store.next_deadline_us() == 5 * SECOND_US
    run(store, append(b"y", b"2"), append(b"z", b"2", exptime=0), clock_us=SECOND_US)
    assert store.next_deadline_us() == 7 * SECOND_US
    run(store, append(b"y", b"3", exptime=2), clock_us=SECOND_US)
    assert store.next_deadline_us() == 3 * SECOND_US


def test_touch_changes_the_expiry_and_nothing_else() -> None:
    store = Store()
    run(store, write(b"x", b"content", exptime=5))
    before = store.lookup(b"x")
    assert before is not None
    assert run(store, touch(b"x", 9), clock_us=SECOND_US) == [1]
    after = store.lookup(b"x")
    assert after is not None
    assert after[:4] == (before.version, 10 * SECOND_US, before.size, before.content)
    assert crc_of(b"x", after) == crc_of(b"x", before)
    assert run(store, touch(b"x", 0)) == [1]
    assert store.next_deadline_us() is None
    assert store.version == 1


def test_deadlines_do_not_pile_up_under_rewrites() -> None:
    store = Store()
    for exptime in range(1, 500):
        run(store, write(b"x", exptime=1000 - exptime), touch(b"x", exptime))
        run(store, write(b"y", exptime=exptime), delete(b"y"))
    assert len(store._table.deadlines) == 1
