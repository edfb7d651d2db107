"""A store as chunks, and back: whole, exact, and refused when damaged."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.records import PART_BYTES
from fileserver.snapshot import CHUNK_BYTES_MAX, FILES_PER_CHUNK
from fileserver.snapshot_chunks import END, FILES, FORMAT, HEADER, PIECES, STAGED, UPLOAD, BadSnapshot
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import (
    SECOND_US,
    append,
    content_of_file,
    delete,
    part,
    restored,
    run,
    touch,
    write,
)

ONE = (1).to_bytes(8, "little")
"""A column with one version."""


def piece(letter: bytes) -> bytes:
    return letter * PART_BYTES


def busy_store() -> Store:
    """A store with something of each kind in it."""
    store = Store()
    run(store, *(write(b"file/%04d" % number, b"%d" % number, exptime=number % 3) for number in range(40)))
    run(store, part(1, piece(b"1")), part(1, piece(b"2")), part(1, b"3"), write(b"file/0005", 1))
    run(store, append(b"file/0005", b"tail"), append(b"file/0006", piece(b"x")), write(b"empty"))
    run(store, part(2, b"staged"), part(4, b""), part(-1, b"below 0"), session=1)
    run(store, *(part(9, piece(b"%d" % number)) for number in range(3)), session=2)
    run(store, delete(b"file/0007"), touch(b"file/0008", 77), clock_us=SECOND_US)
    return store


def test_a_restored_store_is_equal_and_goes_on_equally() -> None:
    original = busy_store()
    copy = restored(list(original.snapshot()))
    for _ in range(2):
        assert copy.state_hash() == original.state_hash()
        assert (copy.version, copy.clock_us, copy.files, copy.bytes, copy.next_deadline_us()) == (
            original.version,
            original.clock_us,
            original.files,
            original.bytes,
            original.next_deadline_us(),
        )
        assert list(copy.snapshot()) == list(original.snapshot())
        assert copy.view().next_slice(1000) == original.view().next_slice(1000)
        for store in (original, copy):
            run(store, append(b"file/0005", 9), write(b"new", 4), clock_us=2 * SECOND_US, session=2)
            run(store, append(b"empty", 2), write(b"new", 4), session=1)
    assert content_of_file(copy, b"empty") == b"staged"


def test_uploads_have_an_order_of_their_own() -> None:
    """In whatever order they were begun: hash and chunks go by session and number."""
    one, other = Store(), Store()
    for session, upload in [(1, 1), (1, 2), (2, 1)]:
        run(one, part(upload, b"piece"), session=session)
    for session, upload in [(2, 1), (1, 2), (1, 1)]:
        run(other, part(upload, b"piece"), session=session)
    assert one.state_hash() == other.state_hash()
    assert list(one.snapshot()) == list(other.snapshot())


def test_an_upload_whose_number_came_as_a_truth_value_is_restored() -> None:
    """A batch may have true for 1."""
    store = Store()
    run(store, part(True, b"piece"))
    copy = restored(list(store.snapshot()))
    assert copy.state_hash() == store.state_hash()


def test_an_empty_store() -> None:
    chunks = list(Store().snapshot())
    assert [cbor2.loads(chunk)[0] for chunk in chunks] == [HEADER, END]
    assert restored(chunks).state_hash() == Store().state_hash()


def test_a_restore_replaces_what_was_there() -> None:
    store = busy_store()
    restore = store.begin_restore()
    before = store.state_hash()
    other = Store()
    run(other, write(b"only", b"this"))
    for chunk in other.snapshot():
        restore.feed(chunk)
        assert store.state_hash() == before
    restore.finish()
    assert store.state_hash() == other.state_hash()
    assert [name for name, _ in store.view().next_slice(9)] == [b"only"]


def test_it_is_of_the_instant_when_it_was_asked_for() -> None:
    store = busy_store()
    unchanged = list(store.snapshot())
    snapshot = store.snapshot()
    chunks = []
    for number, chunk in enumerate(snapshot):
        chunks.append(chunk)
        run(store, delete(b"file/%04d" % (39 - number)), append(b"file/0005", b"more"), write(b"file/new%d" % number))
        run(store, part(9, b"more"), session=2)
    assert chunks == unchanged


def test_closing_takes_it_off_the_store() -> None:
    store = busy_store()
    snapshot = store.snapshot()
    next(snapshot)
    snapshot.close()
    snapshot.close()
    assert list(snapshot) == []
    assert store._table.views == []
    list(store.snapshot())
    assert store._table.views == []


def test_chunks_are_of_bounded_size() -> None:
    store = Store()
    run(store, *(write(b"big%d" % number * 60, piece(b"x")) for number in range(3)))
    run(store, *(write(b"small%d" % number, b"y" * 1000) for number in range(300)))
    run(store, *(write(b"tiny%d" % number) for number in range(2 * FILES_PER_CHUNK)))
    run(store, write(b"a", b"r" * (9 * PART_BYTES + 1)), write(b"z", b"r" * (2 * PART_BYTES)))
    chunks = list(store.snapshot())
    assert max(map(len, chunks)) <= CHUNK_BYTES_MAX
    assert max(len(cbor2.loads(chunk)[1]) for chunk in chunks if cbor2.loads(chunk)[0] == FILES) <= FILES_PER_CHUNK
    assert len(chunks) < 20
    assert restored(chunks).state_hash() == store.state_hash()


class TestBadSnapshots:
    """Whatever is wrong is found, and the store that was to be restored is as before."""

    @pytest.mark.parametrize("missing", ["header", "upload", "pieces", "files", "end"])
    def test_a_missing_chunk(self, missing: str) -> None:
        chunks = list(busy_store().snapshot())
        kinds = [cbor2.loads(chunk)[0] for chunk in chunks]
        place = {
            "header": 0,
            "upload": kinds.index(UPLOAD),
            "pieces": kinds.index(PIECES, kinds.index(FILES)),
            "files": kinds.index(FILES),
            "end": -1,
        }[missing]
        del chunks[place]
        self.check_refused(chunks)

    def test_a_chunk_twice(self) -> None:
        chunks = list(busy_store().snapshot())
        for place in range(len(chunks)):
            self.check_refused([*chunks[: place + 1], *chunks[place:]])

    def test_something_behind_the_end(self) -> None:
        chunks = list(busy_store().snapshot())
        self.check_refused([*chunks, cbor2.dumps((PIECES, b"x"))])

    @given(st.data())
    def test_a_damaged_byte_is_found_or_harmless(self, data: st.DataObject) -> None:
        store = Store()
        run(store, write(b"x", b"", exptime=5), write(b"y", b""), part(1, b"piece"))
        chunks = list(store.snapshot())
        place = data.draw(st.integers(0, len(chunks) - 1))
        damaged = bytearray(chunks[place])
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
        target = busy_store()
        before = target.state_hash()
        restore = target.begin_restore()
        try:
            for number, chunk in enumerate(chunks):
                restore.feed(bytes(damaged) if number == place else chunk)
            restore.finish()
        except BadSnapshot:
            assert target.state_hash() == before

    @pytest.mark.parametrize(
        "chunk",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"\x81" * 1000, id="nested deep"),
            pytest.param(cbor2.dumps(5), id="no array"),
            pytest.param(cbor2.dumps([]), id="an empty array"),
            pytest.param(cbor2.dumps([b"FILES"]), id="a kind of bytes"),
            pytest.param(cbor2.dumps([99]), id="an unknown kind"),
            pytest.param(cbor2.dumps([HEADER, FORMAT, 0, 0, 0, 0, b"0", 0]), id="a second header"),
            pytest.param(cbor2.dumps([PIECES, 5]), id="a piece that is a number"),
            pytest.param(cbor2.dumps([PIECES, b""]), id="an empty piece"),
            pytest.param(cbor2.dumps([PIECES, piece(b"x") + b"x"]), id="a long piece"),
            pytest.param(cbor2.dumps([UPLOAD, 1, 1]), id="an upload with a field too few"),
            pytest.param(cbor2.dumps([UPLOAD, 1, 1, 0, 0]), id="an upload with a field too many"),
            pytest.param(cbor2.dumps([UPLOAD, 1, "upload", 0]), id="an upload with a field of text"),
            pytest.param(cbor2.dumps([UPLOAD, 1, 1, 5]), id="an upload without its pieces"),
            pytest.param(cbor2.dumps([FILES]), id="no columns"),
            pytest.param(cbor2.dumps([FILES, [], b"", 0, []]), id="no files"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE, 0]), id="a column too few"),
            pytest.param(cbor2.dumps([FILES, b"x", ONE, 0, [b""]]), id="names that are no array"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE, 0, b"c"]), id="contents that are no array"),
            pytest.param(cbor2.dumps([FILES, [b"x", b"y"], ONE + ONE, 0, [b""]]), id="a content too few"),
            pytest.param(cbor2.dumps([FILES, ["x"], ONE, 0, [b""]]), id="a name of text"),
            pytest.param(cbor2.dumps([FILES, [b"x"], 1, 0, [b""]]), id="versions that are a number"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE[1:], 0, [b""]]), id="a version of seven bytes"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE, 1, [b""]]), id="deadlines that are another number than 0"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE, False, [b""]]), id="deadlines that are false"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE, 0, ["text"]]), id="a content of text"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE, 0, [7]]), id="a content that is a number"),
            pytest.param(cbor2.dumps([FILES, [b"x"], ONE, 0, [STAGED]]), id="a rope without pieces"),
            pytest.param(
                cbor2.dumps([FILES, [b"x", b"y"], ONE + ONE, 0, [b"", STAGED]]), id="a rope that isn't the first"
            ),
            pytest.param(cbor2.dumps([FILES, [b"y", b"x"], ONE + ONE, 0, [b"", b""]]), id="names out of order"),
            pytest.param(cbor2.dumps([END, 5]), id="an end with something in it"),
        ],
    )
    def test_an_unsound_chunk(self, chunk: bytes) -> None:
        restore = Store().begin_restore()
        restore.feed(next(Store().snapshot()))
        with pytest.raises(BadSnapshot):
            restore.feed(chunk)

    @pytest.mark.parametrize(
        "header",
        [
            pytest.param([HEADER, FORMAT + 1, 0, 0, 0, 0, b"0", 0], id="another format"),
            pytest.param([HEADER, FORMAT, 0, 0, 0, 0, b"0"], id="a field too few"),
            pytest.param([HEADER, FORMAT, -1, 0, 0, 0, b"0", 0], id="a version below 0"),
            pytest.param([HEADER, FORMAT, False, 0, 0, 0, b"0", 0], id="a version that is none"),
            pytest.param([HEADER, FORMAT, 0, 0, 0, 0, b"x", 0], id="a digest that is none"),
            pytest.param([END], id="no header"),
        ],
    )
    def test_an_unsound_header(self, header: list[int | bytes]) -> None:
        with pytest.raises(BadSnapshot):
            Store().begin_restore().feed(cbor2.dumps(header))

    @pytest.mark.parametrize("second", [b"x", b"y"])
    def test_names_out_of_order_over_two_chunks(self, second: bytes) -> None:
        restore = Store().begin_restore()
        restore.feed(next(Store().snapshot()))
        restore.feed(cbor2.dumps([FILES, [b"y"], ONE, 0, [b""]]))
        with pytest.raises(BadSnapshot):
            restore.feed(cbor2.dumps([FILES, [second], ONE, 0, [b""]]))

    def test_a_content_that_is_another(self) -> None:
        """The header's digest is over the contents."""
        store = Store()
        run(store, write(b"x", b"content"))
        chunks = list(store.snapshot())
        self.check_refused([chunk.replace(b"content", b"c0ntent") for chunk in chunks])

    def test_pieces_that_no_file_takes(self) -> None:
        restore = Store().begin_restore()
        restore.feed(next(Store().snapshot()))
        restore.feed(cbor2.dumps([PIECES, b"x"]))
        with pytest.raises(BadSnapshot):
            restore.feed(cbor2.dumps([FILES, [b"x"], ONE, 0, [b""]]))

    def test_nothing_at_all(self) -> None:
        with pytest.raises(BadSnapshot):
            Store().begin_restore().finish()

    def check_refused(self, chunks: list[bytes]) -> None:
        """Restoring from these fails somewhere, and the store is as before."""
        store = Store()
        run(store, write(b"mine"))
        before = store.state_hash()
        restore = store.begin_restore()
        with pytest.raises(BadSnapshot):  # noqa: PT012 - any of them may find it
            for chunk in chunks:
                restore.feed(chunk)
            restore.finish()
        assert store.state_hash() == before
