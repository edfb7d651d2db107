"""Views: the files of one instant, read in slices while the store goes on."""

from __future__ import annotations

import pytest

from fileserver.listing import StoreView
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import SECOND_US, Command, append, delete, run, touch, write


@pytest.fixture
def store() -> Store:
    """Files a to h, whose versions are 1 to 8."""
    store = Store()
    run(store, *(write(bytes([letter])) for letter in b"abcdefgh"))
    return store


def read(view: StoreView, limit: int = 3) -> list[tuple[bytes, int]]:
    """All the rest of a view, as names and versions."""
    found = []
    while files := view.next_slice(limit):
        assert len(files) <= limit
        found += [(name, record.version) for name, record in files]
    assert view.closed
    return found


ALL = [(bytes([letter]), version) for version, letter in enumerate(b"abcdefgh", 1)]


@pytest.mark.parametrize("limit", [1, 3, 8, 100])
def test_all_files_come_in_order_of_name(store: Store, limit: int) -> None:
    assert read(store.view(), limit) == ALL


def test_a_prefix_selects(store: Store) -> None:
    run(store, write(b"c/2"), write(b"c/1"), write(b"c0"), write(b"c"))
    assert read(store.view(b"c/"), 1) == [(b"c/1", 10), (b"c/2", 9)]
    assert [name for name, _ in read(store.view(b"c"), 2)] == [b"c", b"c/1", b"c/2", b"c0"]
    assert read(store.view(b"x")) == []
    assert read(store.view(b"\xff")) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param([write(b"e", b"new")], id="rewritten ahead"),
        pytest.param([write(b"a", b"new")], id="rewritten behind"),
        pytest.param([append(b"d", b"more"), append(b"d", b"more")], id="changed twice"),
        pytest.param([touch(b"d", 60)], id="touched"),
        pytest.param([delete(b"d")], id="the next one deleted"),
        pytest.param([delete(b"c")], id="the last one passed deleted"),
        pytest.param([delete(b"h"), delete(b"g")], id="the last ones deleted"),
        pytest.param([delete(letter) for letter in (b"d", b"e", b"f", b"g", b"h")], id="all ahead deleted"),
        pytest.param([delete(b"e"), write(b"e")], id="deleted and made again"),
        pytest.param([write(b"dd")], id="created ahead"),
        pytest.param([write(b"dd"), delete(b"dd")], id="created and deleted"),
        pytest.param([write(b"zz"), write(b"zzz")], id="created behind the last"),
        pytest.param([write(b"aa")], id="created behind the cursor"),
        pytest.param([write(b"d%d" % number) for number in range(20)], id="many created"),
    ],
)
@pytest.mark.parametrize("passed", [0, 3, 8])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_change_after_it_was_made_does_not_show(store: Store, change: list[Command], passed: int, limit: int) -> None:
    view = store.view()
    start = [(name, record.version) for name, record in view.next_slice(passed)] if passed else []
    run(store, *change)
    assert start + read(view, limit) == ALL


def test_a_touched_file_has_its_old_deadline(store: Store) -> None:
    view = store.view()
    run(store, touch(b"a", 60))
    assert view.next_slice(1)[0][1].deadline_us == 0


def test_files_that_expire_meanwhile_are_still_in_it(store: Store) -> None:
    run(store, write(b"d", exptime=1), write(b"bb", exptime=1))
    view = store.view()
    assert len(view.next_slice(2)) == 2
    store.advance(SECOND_US)
    assert [name for name, _ in read(view, 2)] == [b"bb", b"c", b"d", b"e", b"f", b"g", b"h"]


def test_views_of_different_instants_do_not_disturb_each_other(store: Store) -> None:
    first = store.view()
    run(store, delete(b"b"))
    second = store.view()
    run(store, write(b"b"), delete(b"c"))
    third = store.view()
    run(store, write(b"c"))
    assert [version for _, version in read(third)] == [1, 10, 4, 5, 6, 7, 8]
    assert [version for _, version in read(second)] == [1, 3, 4, 5, 6, 7, 8]
    assert read(first) == ALL


def test_only_names_of_the_prefix_are_kept(store: Store) -> None:
    view = store.view(b"c")
    run(store, write(b"a"), write(b"c"), write(b"d"))
    assert list(view._overlay) == [b"c"]
    assert read(view) == [(b"c", 3)]


def test_what_was_kept_is_given_up_as_it_is_passed(store: Store) -> None:
    view = store.view()
    run(store, write(b"a"), write(b"b"), delete(b"c"), write(b"g"), delete(b"h"))
    assert list(view._removed_names) == [b"c", b"h"]
    view.next_slice(3)
    assert list(view._overlay) == [b"g", b"h"]
    assert list(view._removed_names) == [b"h"]
    run(store, write(b"a"), write(b"c"))
    assert list(view._overlay) == [b"g", b"h"]


def test_a_file_that_is_removed_again_and_again_is_given_once(store: Store) -> None:
    view = store.view()
    run(store, delete(b"c"), write(b"c"), delete(b"c"), write(b"new"), delete(b"new"))
    assert list(view._removed_names) == [b"c"]
    assert read(view) == ALL


def test_the_end_or_close_takes_it_off_the_store(store: Store) -> None:
    read_out, closed, held = store.view(), store.view(), store.view()
    read(read_out)
    with closed:
        run(store, delete(b"a"))
    closed.close()
    assert closed.closed
    assert closed.next_slice(5) == []
    assert store._table.views == [held]


def test_a_view_outlives_a_restore(store: Store) -> None:
    view = store.view()
    assert len(view.next_slice(2)) == 2
    other = Store()
    run(other, write(b"other"))
    restore = store.begin_restore()
    for chunk in other.snapshot():
        restore.feed(chunk)
    restore.finish()
    run(store, write(b"c"), delete(b"other"))
    assert read(view) == ALL[2:]
