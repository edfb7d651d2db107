"""Fuzz targets for what is replicated: log entries, batches of commands, contents in pieces."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import chain, pairwise
from random import Random
from typing import Final

import cbor2
from crc32c import crc32c

from fileserver import columns, commands, file_table, machine, records, store, uploads
from fileserver.commands import (
    ANY_VERSION,
    APPEND,
    CAS,
    DELETE,
    DROP,
    KEEP_EXPTIME,
    MAX_EXPTIME_SECONDS,
    PART,
    TOUCH,
    WRITE,
    BadBatch,
    Field,
    decode_batch,
    encode_batch,
)
from fileserver.machine import StoreMachine
from fileserver.records import Content, add_piece, combine_crcs, content_of, cut, join_contents, pieces_of
from fileserver.store import Store
from raftnode import entries, replica
from raftnode.entries import BadEntry
from raftnode.replica import Replica
from tests.fuzzing.cbor_changes import with_one_change
from tests.fuzzing.containers import join_parts, split_parts
from tests.fuzzing.peer_targets import CBOR_TOKENS
from tests.fuzzing.target import Target, with_constants

SECOND_US: Final = 1_000_000

BATCHES: Final[tuple[tuple[Field, ...], ...]] = (
    (),
    (WRITE, b"a", 0, 0, b"hello"),
    (
        WRITE,
        b"a",
        0,
        100,
        b"hello",
        CAS,
        b"a",
        1,
        5,
        b"other",
        TOUCH,
        b"a",
        0,
        3,
        b"",
        DELETE,
        b"a",
        ANY_VERSION,
        0,
        b"",
    ),
    (
        PART,
        b"",
        7,
        0,
        b"x" * 40,
        PART,
        b"",
        7,
        0,
        b"y" * 40,
        WRITE,
        b"big",
        0,
        9,
        7,
        APPEND,
        b"big",
        500,
        KEEP_EXPTIME,
        b"z",
    ),
    (APPEND, b"new", 10, 4, b"content", APPEND, b"new", 10, 4, b"content", DELETE, b"none", 9, 0, b""),
    (PART, b"", 3, 0, b"staged and left", PART, b"", 4, 0, b"staged and dropped", DROP, b"", 4, 0, b""),
    (WRITE, b"late", 0, MAX_EXPTIME_SECONDS, b"", CAS, b"late", 0, 0, 99, CAS, b"fresh", 0, 0, b"x" * 100),
)

# ------------------------------------------------------------------------------------------- commands


def copied(original: Store) -> Store:
    """Another store, from a snapshot."""
    other = Store()
    restore = other.begin_restore()
    for chunk in original.snapshot():
        restore.feed(chunk)
    restore.finish()
    return other


def run_commands(data: bytes) -> Hashable:
    """A batch: decoded, run on two stores, which are equal then and have results for each command."""
    columns = decode_batch(data)
    again: tuple[Field, ...] = tuple(chain.from_iterable(zip(*columns, strict=True)))
    assert decode_batch(encode_batch(again)) == columns
    one, two = Store(), Store()
    for each in (one, two):
        each.apply(SECOND_US, 1, _PREPARATION)
    version = one.version
    results = one.apply(2 * SECOND_US, 1, data)
    assert results == two.apply(2 * SECOND_US, 1, memoryview(data)), "as it comes in a big entry"
    assert len(results) == len(columns[0])
    assert version <= one.version <= version + len(results) + 1, "the file that is due takes a version, too"
    assert one.state_hash() == two.state_hash() == copied(one).state_hash()
    one.advance(2**62)
    return len(results), columns[0][:4], one.files, tuple(type(result).__name__ for result in results[:4])


_PREPARATION: Final = encode_batch(
    (WRITE, b"a", 0, 0, b"before", WRITE, b"due", 0, 1, b"expires", PART, b"", 7, 0, b"p" * 50)
)

COMMANDS = Target(
    "commands",
    (commands, columns, store, uploads, file_table),
    run_commands,
    (BadBatch,),
    lambda: [encode(batch) for batch in BATCHES for encode in (encode_batch, cbor2.dumps)],
    tokens=(*(encode_batch(batch)[1:] for batch in BATCHES), *CBOR_TOKENS),
    repair=with_one_change,
    environment=with_constants((records, "PART_BYTES", 32), (uploads, "PART_BYTES", 32), (store, "PART_BYTES", 32)),
)

# -------------------------------------------------------------------------------------------- entries


def run_entries(data: bytes) -> Hashable:
    """Entries in a row, as :func:`split_parts` takes them apart: applied to a replica that has a session already."""
    state = Replica(StoreMachine(Store()))
    state.apply(1, entries.encode_open_session(SECOND_US, 1, 5))
    outcomes = []
    for entry in split_parts(data):
        stamp_us = entries.stamp_of(entry)
        outcome = state.apply(state.applied_index + 1, entry)
        assert state.clock_us >= stamp_us
        outcomes.append(type(outcome).__name__)
    other = Replica(StoreMachine(Store()))
    restore = other.begin_restore()
    for chunk in state.snapshot():
        restore.feed(chunk)
    restore.finish()
    assert (other.applied_index, other.clock_us) == (state.applied_index, state.clock_us)
    assert [each.sequence for each in other.sessions.values()] == [each.sequence for each in state.sessions.values()]
    return tuple(outcomes[:6])


def entries_examples() -> list[bytes]:
    batches = [
        entries.encode_batch(2 * SECOND_US, 1, at + 1, at, encode_batch(each)) for at, each in enumerate(BATCHES)
    ]
    return [
        join_parts([b"", entries.encode_tick(2 * SECOND_US)]),
        join_parts(batches),
        join_parts([batches[0], batches[2], batches[0], batches[1]]),
        join_parts(
            [entries.encode_open_session(3 * SECOND_US, 1, 6), batches[0], entries.encode_open_session(0, 2, 1)]
        ),
    ]


def repair_sequences(data: bytes, random: Random) -> bytes:
    """Lengths that are true, and batches that are the next of the session: without that few are run."""
    return join_parts(_in_sequence(split_parts(data), random))


def _in_sequence(parts: list[bytes], random: Random) -> Iterator[bytes]:
    sequence = 1
    for part in parts:
        if len(part) > entries.HEADER_BYTES and part[0] == entries.EntryKind.BATCH and random.random() < 0.9:
            stamp_us = int.from_bytes(part[1:9], "big") & (2**63 - 1)
            payload = part[entries.HEADER_BYTES :]
            if random.random() < 0.3:
                payload = with_one_change(payload, random)
            yield entries.encode_batch(stamp_us, 1, sequence, max(sequence - 2, 0), payload)
            sequence += 1
        else:
            yield part


ENTRIES = Target(
    "entries",
    (entries, replica, machine, store, uploads, file_table),
    run_entries,
    (BadEntry,),
    entries_examples,
    tokens=(entries.encode_tick(1)[:1], entries.encode_tick(2**40), *(encode_batch(batch) for batch in BATCHES)),
    repair=repair_sequences,
    environment=COMMANDS.environment,
)

# ------------------------------------------------------------------------------------------- contents

PART_BYTES: Final = 16


def _whole(content: Content) -> bytes:
    return b"".join(pieces_of(content))


def _check(content: Content) -> None:
    """The invariants of the module: see there."""
    if isinstance(content, bytes):
        assert len(content) <= PART_BYTES
        return
    assert len(content) >= 2
    assert all(0 < len(piece) <= PART_BYTES for piece in content)
    assert all(len(left) + len(right) > PART_BYTES for left, right in pairwise(content))


def run_records(data: bytes) -> Hashable:
    """Byte strings in a row: cut, joined from both ends and piece by piece, with checksums kept up to date."""
    parts = split_parts(data)
    joined: Content = b""
    pieces: list[bytes] = []
    crc = 0
    for part in parts:
        content = content_of(cut(part))
        _check(content)
        joined = join_contents(joined, content)
        _check(joined)
        for piece in cut(part):
            add_piece(pieces, piece)
        crc = combine_crcs(crc, crc32c(part), len(part))
    whole = b"".join(parts)
    assert _whole(joined) == b"".join(pieces) == whole
    _check(content_of(pieces))
    assert crc == crc32c(whole)
    first = records.fingerprint(whole[:9], 1, 0, crc)
    assert first == records.fingerprint(whole[:9], 1, 0, crc32c(whole))
    return min(len(parts), 9), min(len(pieces), 9), min(len(pieces_of(joined)), 9)


RECORDS = Target(
    "records",
    (records,),
    run_records,
    (),
    lambda: [join_parts(parts) for parts in ((b"",), (b"abc", b"", b"x" * 16), (b"x" * 40, b"y" * 17), (b"z",) * 20)],
    tokens=(join_parts([b"0123456789abcdef"]), join_parts([b""]), join_parts([b"0123456789abcdefg"])),
    environment=with_constants((records, "PART_BYTES", PART_BYTES)),
    size_bytes_max=600,
)
