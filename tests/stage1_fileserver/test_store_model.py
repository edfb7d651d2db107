"""The store against the dumb model, on any commands that hypothesis thinks of."""

from __future__ import annotations

import attrs
from crc32c import crc32c
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from fileserver.commands import ANY_VERSION, KEEP_EXPTIME, Refusal
from fileserver.listing import StoreView
from fileserver.records import PART_BYTES, crc_of, fingerprint
from fileserver.snapshot import StoreSnapshot
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import (
    SECOND_US,
    Command,
    append,
    cas,
    content_of_file,
    delete,
    drop,
    encode,
    part,
    touch,
    write,
)
from tests.stage1_fileserver.store_model import StoreModel

NAMES = st.sampled_from([b"a", b"ab", b"abc", b"b", b"b/1", b"b/2", b"c", b"\xc3\xa9"])
SESSIONS = st.integers(1, 2)
UPLOADS = st.integers(1, 2)
EXPTIMES = st.sampled_from([0, 0, 0, 1, 2, 3, 5])
VERSIONS = st.integers(0, 12)
LONG_CONTENTS = st.sampled_from([1000, PART_BYTES - 1, PART_BYTES, 4 * PART_BYTES]).map(lambda size: b"x" * size)
CONTENTS = st.binary(max_size=12) | LONG_CONTENTS
LIMITS = st.sampled_from([0, 3, 10, 1 << 26, 1 << 26])

COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(write, NAMES, CONTENTS | UPLOADS, EXPTIMES),
    st.builds(cas, NAMES, VERSIONS, CONTENTS | UPLOADS, EXPTIMES),
    st.builds(delete, NAMES, VERSIONS | st.just(ANY_VERSION)),
    st.builds(append, NAMES, CONTENTS | UPLOADS, EXPTIMES | st.just(KEEP_EXPTIME), LIMITS),
    st.builds(touch, NAMES, EXPTIMES),
    st.builds(part, UPLOADS, CONTENTS),
    st.builds(drop, UPLOADS),
)
Listing = list[tuple[bytes, int, int]]
"""Names, versions and deadlines in order."""


@attrs.define
class OpenView:
    """A view that is being read, and what it must give."""

    view: StoreView
    expected: Listing
    found: Listing = attrs.field(factory=list)


@attrs.define
class OpenSnapshot:
    """A snapshot that is being taken, and the hash that a store restored from it must have."""

    snapshot: StoreSnapshot
    state_hash: str
    chunks: list[bytes] = attrs.field(factory=list)


class StoreMachine(RuleBasedStateMachine):
    """Does the same to a store, to a second store and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.twin = Store()
        self.model = StoreModel()

    views: Bundle[OpenView] = Bundle("views")
    snapshots: Bundle[OpenSnapshot] = Bundle("snapshots")

    @rule(commands=st.lists(COMMANDS, max_size=8), session=SESSIONS, seconds=st.sampled_from([-1, 0, 0, 0.5, 1, 2]))
    def apply(self, commands: list[Command], session: int, seconds: float) -> None:
        self._apply(commands, session, seconds)

    @rule(writes=st.lists(st.builds(write, NAMES, st.binary(max_size=12)), max_size=20))
    def write_many(self, writes: list[Command]) -> None:
        """What the store does by column: often the same name more than once."""
        self._apply(writes, 1, 0)

    def _apply(self, commands: list[Command], session: int, seconds: float) -> None:
        clock_us = max(0, self.model.clock_us + int(seconds * SECOND_US))
        payload = encode(*commands)
        results = self.store.apply(clock_us, session, payload)
        assert self.twin.apply(clock_us, session, payload) == results
        assert results == self.model.apply(clock_us, session, commands)
        assert all(isinstance(result, int) or isinstance(result[0], Refusal) for result in results)

    @rule(microseconds=st.integers(0, 2 * SECOND_US))
    def advance(self, microseconds: int) -> None:
        clock_us = self.model.clock_us + microseconds
        for each in (self.store, self.twin, self.model):
            each.advance(clock_us)

    @rule(session=SESSIONS)
    def end_session(self, session: int) -> None:
        for each in (self.store, self.twin, self.model):
            each.end_session(session)

    @rule(target=views, prefix=st.sampled_from([b"", b"", b"a", b"b/", b"none"]))
    def open_view(self, prefix: bytes) -> OpenView:
        expected = [
            (name, file.version, file.deadline_us or 0)
            for name, file in sorted(self.model.files.items())
            if name.startswith(prefix)
        ]
        return OpenView(self.store.view(prefix), expected)

    @rule(opened=views, limit=st.integers(1, 4))
    def read_view(self, opened: OpenView, limit: int) -> None:
        opened.found += [(name, record.version, record.deadline_us) for name, record in opened.view.next_slice(limit)]
        if opened.view.closed:
            assert opened.found == opened.expected
        else:
            assert opened.found == opened.expected[: len(opened.found)]

    @rule(target=snapshots)
    def begin_snapshot(self) -> OpenSnapshot:
        return OpenSnapshot(self.store.snapshot(), self.store.state_hash())

    @rule(opened=snapshots)
    def take_chunk(self, opened: OpenSnapshot) -> None:
        chunk = next(opened.snapshot, None)
        if chunk is not None:
            opened.chunks.append(chunk)

    @rule(opened=snapshots)
    def restore(self, opened: OpenSnapshot) -> None:
        opened.chunks += opened.snapshot
        copy = Store()
        restore = copy.begin_restore()
        for chunk in opened.chunks:
            restore.feed(chunk)
        restore.finish()
        assert copy.state_hash() == opened.state_hash
        assert list(copy.snapshot()) == opened.chunks

    @rule()
    def replace_by_its_own_snapshot(self) -> None:
        restore = self.store.begin_restore()
        for chunk in self.store.snapshot():
            restore.feed(chunk)
        restore.finish()

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        store, model = self.store, self.model
        assert (store.version, store.clock_us, store.files) == (model.version, model.clock_us, len(model.files))
        assert store.bytes == sum(len(file.content) for file in model.files.values())
        for name, file in model.files.items():
            record = store.lookup(name)
            assert record is not None
            assert (record.version, record.deadline_us) == (file.version, file.deadline_us or 0)
            crc = crc32c(file.content)
            assert (record.size, crc_of(name, record)) == (len(file.content), crc)
            assert record.fingerprint == fingerprint(name, record.version, record.deadline_us, crc)
            assert content_of_file(store, name) == file.content
        deadlines = [file.deadline_us for file in model.files.values() if file.deadline_us is not None]
        assert store.next_deadline_us() == min(deadlines, default=None)

    @invariant()
    def two_stores_with_one_history_are_one(self) -> None:
        assert self.store.state_hash() == self.twin.state_hash()

    @invariant()
    def the_indexes_agree_with_the_files(self) -> None:
        table = self.store._table
        assert list(table.names) == sorted(table.records)
        assert len(table.deadlines) == sum(record[1] != 0 for record in table.records.values())
        assert table.digest == sum(of_file for _, _, _, _, of_file in table.records.values())


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
