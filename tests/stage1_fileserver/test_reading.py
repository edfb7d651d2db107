"""Reads against the store: due files, long lists, slow clients."""

from __future__ import annotations

import json

import pytest

from fileserver.backend import Failure, FailureKind
from fileserver.commands import DELETE, WRITE
from fileserver.reading import ACTIVE_LISTS_MAX, LIST_SLICE_FILES, ListJobs
from tests.stage1_fileserver.fake_backend import SECOND_US, Client, ManualBackend

NO_LEADER = Failure(FailureKind.NOT_APPLIED, "no leader")


@pytest.fixture
def client() -> Client:
    return Client()


def fill(backend: ManualBackend, files: int) -> bytes:
    """Write so many files and give what `list` says of them."""
    for number in range(files):
        backend.apply(WRITE, b"file-%06d" % number, 0, 0, b"x" * 7)
    return b"".join(b"file-%06d %d 7 0\n" % (number, number + 1) for number in range(files))


def listing(lines: bytes) -> bytes:
    return b"LIST %d\r\n%b\r\n" % (len(lines), lines)


def finish_lists(client: Client) -> None:
    while client.reader.lists.turn():
        pass


def test_remaining_time_is_told_by_the_extrapolated_clock(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 10, b"abc")
    client.backend.now_us = 3 * SECOND_US + 1
    client.sends(b"read x\r\nstat x\r\n")
    client.backend.complete_reads()
    assert client.takes() == b"CONTENTS 1 3 7\r\nabc\r\nSTAT 1 3 7\r\n"


def test_a_due_file_is_not_found_once_the_store_says_so(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 10, b"abc")
    client.backend.now_us = 10 * SECOND_US
    client.sends(b"read x\r\nstat x\r\nread y\r\n")
    client.backend.complete_reads()
    assert client.takes() == b""
    assert [deadline_us for deadline_us, _ in client.backend.waiting] == [10 * SECOND_US] * 2
    client.backend.tick()
    assert client.flushes
    assert client.takes() == b"ERR_FILE_NOT_FOUND\r\n" * 3


def test_a_due_file_may_have_been_written_again_meanwhile(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 10, b"abc")
    client.backend.now_us = 10 * SECOND_US
    client.sends(b"read x\r\n")
    client.backend.complete_reads()
    client.backend.apply(WRITE, b"x", 0, 0, b"new")
    client.backend.tick()
    assert client.takes() == b"CONTENTS 2 3 0\r\nnew\r\n"


def test_waiting_for_the_clock_may_fail(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 10, b"abc")
    client.backend.now_us = 10 * SECOND_US
    client.sends(b"read x\r\n")
    client.backend.complete_reads()
    client.backend.tick(NO_LEADER)
    assert client.takes() == b"ERR_INTERNAL not applied: no leader\r\n"
    client.sends(b"list\r\n")
    client.backend.complete_reads()
    client.backend.tick(NO_LEADER)
    assert client.takes() == b"ERR_INTERNAL not applied: no leader\r\n"


def test_status_is_json(client: Client) -> None:
    client.sends(b"status\r\n")
    head, text, _ = client.takes().split(b"\r\n")
    assert head == b"STATUS %d" % len(text)
    assert json.loads(text) == client.backend.status()


@pytest.mark.parametrize("files", [0, 1, LIST_SLICE_FILES - 1])
def test_a_short_list_is_answered_at_once(client: Client, files: int) -> None:
    lines = fill(client.backend, files)
    client.sends(b"list\r\n")
    client.backend.complete_reads()
    assert client.takes() == listing(lines)
    assert len(client.reader.lists) == 0
    assert client.backend.store._table.views == []


@pytest.mark.parametrize("files", [LIST_SLICE_FILES, LIST_SLICE_FILES + 1, 3 * LIST_SLICE_FILES + 50])
def test_a_long_list_is_made_in_slices(client: Client, files: int) -> None:
    lines = fill(client.backend, files)
    client.sends(b"list file\r\n")
    client.backend.complete_reads()
    assert client.list_wakes == 1
    assert client.takes() == b""
    client.backend.apply(DELETE, b"file-000499", -1, 0, b"")
    client.backend.apply(DELETE, b"file-%06d" % (files - 1), -1, 0, b"")
    client.backend.apply(WRITE, b"file-1", 0, 0, b"late")
    finish_lists(client)
    assert client.takes() == listing(lines)
    assert client.backend.store._table.views == []


def test_a_list_of_a_prefix(client: Client) -> None:
    fill(client.backend, 20)
    client.sends(b"list file-00001\r\n")
    client.backend.complete_reads()
    assert client.takes().count(b"\nfile-00001") == 10


def test_a_slice_of_nothing_but_younger_files_is_not_the_end(client: Client) -> None:
    lines = fill(client.backend, LIST_SLICE_FILES + 10)
    client.sends(b"list\r\n")
    client.backend.complete_reads()
    for number in range(LIST_SLICE_FILES + 20):
        client.backend.apply(WRITE, b"file-%06d-b" % LIST_SLICE_FILES + b"%d" % number, 0, 0, b"")
    finish_lists(client)
    assert client.takes() == listing(lines)


def test_lists_take_turns_and_few_are_made_at_a_time() -> None:
    backend = ManualBackend()
    lines = fill(backend, 2 * LIST_SLICE_FILES)
    client = Client(backend)
    waiters = [Client(backend) for _ in range(ACTIVE_LISTS_MAX + 3)]
    for waiter in waiters:
        waiter.connection.receive(b"list\r\n")
        waiter.connection.gather(client.gathering)
    client.gathering.submit()
    backend.complete_reads()
    lists = client.reader.lists
    assert len(lists) == len(waiters)
    assert len(backend.store._table.views) == ACTIVE_LISTS_MAX
    while lists.turn():
        assert len(backend.store._table.views) <= ACTIVE_LISTS_MAX
    assert len(lists) == 0
    assert [waiter.takes() for waiter in waiters] == [listing(lines)] * len(waiters)


def test_a_turn_with_nothing_to_do_is_no_error() -> None:
    """A list may come, and wake whoever takes the turns, while turns are being taken that finish it."""
    assert not ListJobs(lambda: None).turn()


def test_a_list_whose_client_has_gone_is_given_up(client: Client) -> None:
    fill(client.backend, 3 * LIST_SLICE_FILES)
    client.sends(b"list\r\n")
    client.backend.complete_reads()
    client.connection.lose()
    assert not client.reader.lists.turn()
    assert client.backend.store._table.views == []


def test_a_list_with_a_due_file_starts_again_when_it_is_gone(client: Client) -> None:
    client.backend.apply(WRITE, b"a", 0, 10, b"1")
    client.backend.apply(WRITE, b"b", 0, 12, b"2")
    client.backend.apply(WRITE, b"c", 0, 99, b"3")
    client.backend.now_us = 12 * SECOND_US
    client.sends(b"list\r\n")
    client.backend.complete_reads()
    assert client.takes() == b""
    assert [deadline_us for deadline_us, _ in client.backend.waiting] == [12 * SECOND_US]
    client.backend.tick()
    assert client.takes() == listing(b"c 3 1 87\n")


def test_a_list_waits_only_once(client: Client) -> None:
    client.backend.apply(WRITE, b"a", 0, 10, b"1")
    client.backend.apply(WRITE, b"b", 0, 12, b"2")
    client.backend.now_us = 10 * SECOND_US
    client.sends(b"list\r\n")
    client.backend.complete_reads()
    ((_, callback),) = client.backend.waiting
    client.backend.store.advance(10 * SECOND_US)
    client.backend.now_us = 12 * SECOND_US  # b is due now, by less than a second
    callback(None)
    assert client.takes() == listing(b"b 2 1 1\n")
