"""The conversation with one client: order of replies, program order, back-pressure, ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fileserver.backend import Failure, FailureKind
from fileserver.commands import CAS, WRITE
from fileserver.connection import INPUT_BYTES_MAX, OUTPUT_BYTES_MAX, REQUESTS_PER_TURN, SEND_BYTES, UNDER_WAY_MAX
from fileserver.records import PART_BYTES
from tests.stage1_fileserver.fake_backend import Client, ManualBackend

OVERLOAD = Failure(FailureKind.BUSY, "overload", retry_seconds=2)


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_change(client: Client) -> None:
    client.sends(b"write x 3\r\nabc\r\n")
    (batch,) = client.backend.batches
    assert batch.fields == [WRITE, b"x", 0, 0, b"abc"]
    assert len(batch) == 1
    assert batch.content_bytes == 3
    assert client.takes() == b""
    client.backend.complete_changes()
    assert client.touched == [client.connection]
    assert client.takes() == b"OK 1\r\n"
    assert client.connection.idle


def test_a_read(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 0, b"abc")
    client.sends(b"read x\r\nstat x\r\nread y\r\n")
    (batch,) = client.backend.reads
    assert len(batch) == 3
    client.backend.complete_reads()
    assert client.takes() == b"CONTENTS 1 3 0\r\nabc\r\nSTAT 1 3 0\r\nERR_FILE_NOT_FOUND\r\n"


def test_changes_gathered_at_once_are_one_batch(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\ncas x 1 1\r\n2\r\ndelete x 1\r\ndelete x\r\nappend y 1\r\n3\r\ntouch y 9\r\n")
    (batch,) = client.backend.batches
    assert len(batch) == 6
    client.backend.complete_changes()
    assert client.takes() == b"OK 1\r\nOK 2\r\nERR_VERSION 2\r\nOK\r\nOK 4\r\nOK 4\r\n"


def test_the_short_way(client: Client) -> None:
    assert client.sends_whole(b"write x 3\r\nabc\r\n")
    assert client.sends_whole(b"write x 3\r\ndef\r\n")
    assert len(client.backend.batches) == 2
    assert not client.sends_whole(b"read x\r\n")  # not its turn
    client.backend.complete_changes()
    assert client.takes() == b"OK 1\r\nOK 2\r\n"
    assert client.sends_whole(b"read x\r\n")
    client.backend.complete_reads()
    assert client.takes() == b"CONTENTS 2 3 0\r\ndef\r\n"


def test_the_short_way_is_closed_in_mid_request_and_open_again_after(client: Client) -> None:
    client.sends(b"write x 30\r\n")
    assert client.connection.in_request
    assert not client.sends_whole(b"write y 3\r\nabc\r\n")
    client.sends(b"x" * 30 + b"\r\n")
    assert not client.connection.in_request
    assert client.sends_whole(b"write y 3\r\nabc\r\n")
    client.backend.complete_changes()
    assert client.takes() == b"OK 1\r\nOK 2\r\n"


@pytest.mark.parametrize("data", [b"quit\r\n", b"bogus\r\n"])
def test_the_short_way_is_closed_at_the_end(client: Client, data: bytes) -> None:
    client.sends(data)
    assert not client.sends_whole(b"read x\r\n")


def test_a_read_waits_for_the_changes_before_it(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\nread x\r\n")
    assert client.backend.reads == []
    assert client.connection.blocked
    client.backend.complete_changes()
    client.gathers()
    assert not client.connection.blocked
    client.backend.complete_reads()
    assert client.takes() == b"OK 1\r\nCONTENTS 1 1 0\r\n1\r\n"


def test_a_change_waits_for_the_reads_before_it(client: Client) -> None:
    client.sends(b"read x\r\nread x\r\nwrite x 1\r\n1\r\nread x\r\n")
    assert client.backend.batches == []
    client.backend.complete_reads()
    client.gathers()
    client.backend.complete_changes()
    client.gathers()
    client.backend.complete_reads()
    assert client.takes() == b"ERR_FILE_NOT_FOUND\r\n" * 2 + b"OK 1\r\nCONTENTS 1 1 0\r\n1\r\n"


def test_status_waits_for_the_changes_before_it(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\nstatus\r\n")
    assert client.takes() == b""
    client.backend.complete_changes()
    client.gathers()
    assert client.takes() == b'OK 1\r\nSTATUS 9\r\n{"id": 1}\r\n'


def test_more_changes_may_be_under_way_than_one_batch(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\n")
    client.sends(b"write x 1\r\n2\r\n")
    assert len(client.backend.batches) == 2


def test_replies_keep_their_order_when_batches_are_completed_in_another(client: Client) -> None:
    for number in range(3):
        client.sends(b"write x 1\r\n%d\r\nhelp x\r\n" % number)
    first, second, third = client.backend.batches
    second.applied([2])
    assert client.connection.unsent_bytes > 0
    third.failed(OVERLOAD)
    assert client.takes() == b""
    first.applied([1])
    fault = b"ERR_CMD_ERR too many fields\r\n"
    assert client.takes() == b"OK 1\r\n" + fault + b"OK 2\r\n" + fault + b"ERR_BUSY 2 overload\r\n" + fault
    assert client.connection.unsent_bytes == 0
    assert client.touched == [client.connection]


def test_replies_that_need_no_backend_keep_their_place(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\nhelp\r\nbogus\r\n")
    assert client.takes() == b""
    client.backend.complete_changes()
    taken = client.takes()
    assert taken.startswith(b"OK 1\r\nHELP ")
    assert taken.endswith(b"ERR_CMD_ERR unknown command; try help\r\n")
    assert client.connection.finished


def test_failed_batches(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\nwrite x 1\r\n1\r\n")
    client.backend.batches.pop().failed(OVERLOAD)
    assert client.takes() == b"ERR_BUSY 2 overload\r\n" * 2
    client.sends(b"read x\r\nread x\r\n")
    client.backend.reads.pop().failed(Failure(FailureKind.NOT_APPLIED, "no leader"))
    assert client.takes() == b"ERR_INTERNAL not applied: no leader\r\n" * 2


def test_changes_are_refused_where_the_backend_says_so_and_reads_are_not(client: Client) -> None:
    client.backend.refused = OVERLOAD
    client.sends(b"write x 1\r\n1\r\nread x\r\n")
    assert client.backend.batches == []
    client.backend.complete_reads()
    assert client.takes() == b"ERR_BUSY 2 overload\r\nERR_FILE_NOT_FOUND\r\n"


def test_a_big_content_goes_alone(client: Client) -> None:
    content = b"x" * (PART_BYTES + 5)
    client.sends(b"write a 1\r\n1\r\ncas x 0 %d 9\r\n%b\r\nwrite b 1\r\n2\r\n" % (len(content), content))
    assert client.backend.uploads == []
    client.backend.complete_changes()
    client.gathers()
    (upload,) = client.backend.uploads
    assert client.backend.batches == []
    assert upload.pieces == (content[:PART_BYTES], content[PART_BYTES:])
    assert upload.content_bytes == len(content)
    assert upload.command(7) == (CAS, b"x", 0, 9, 7)
    upload.applied([2])
    client.gathers()
    client.backend.complete_changes()
    assert client.takes() == b"OK 1\r\nOK 2\r\nOK 2\r\n"


def test_a_big_content_may_fail(client: Client) -> None:
    content = b"x" * (PART_BYTES + 5)
    request = b"write x %d\r\n%b\r\n" % (len(content), content)
    client.sends(request)
    client.backend.uploads[0].failed(OVERLOAD)
    client.backend.refused = OVERLOAD
    client.sends(request)
    assert len(client.backend.uploads) == 1
    assert client.takes() == b"ERR_BUSY 2 overload\r\n" * 2


def test_a_list_goes_alone(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 0, b"abc")
    client.sends(b"read x\r\nlist\r\nread x\r\n")
    assert len(client.backend.reads[0]) == 1
    client.backend.complete_reads()
    client.gathers()
    assert [len(batch) for batch in client.backend.reads] == [1]
    client.backend.complete_reads()
    client.gathers()
    client.backend.complete_reads()
    contents = b"CONTENTS 1 3 0\r\nabc\r\n"
    assert client.takes() == contents + b"LIST 8\r\nx 1 3 0\n\r\n" + contents


def test_quit_answers_what_was_before_it_and_nothing_after(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\nquit\r\nwrite x 1\r\n2\r\n")
    assert not client.connection.finished
    client.backend.complete_changes()
    assert client.takes() == b"OK 1\r\nOK\r\n"
    assert client.connection.finished
    client.sends(b"read x\r\n")
    assert client.backend.reads == []


def test_end_of_input_is_obeyed_after_the_last_request(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\nread x\r\nwri")
    client.connection.receive_end()
    client.gathers()
    assert not client.connection.closing
    client.backend.complete_changes()
    client.gathers()
    assert client.connection.closing
    assert not client.connection.finished
    client.backend.complete_reads()
    assert not client.connection.finished
    assert client.takes() == b"OK 1\r\nCONTENTS 1 1 0\r\n1\r\n"
    assert client.connection.finished


def test_end_of_input_of_an_idle_client(client: Client) -> None:
    client.connection.receive_end()
    client.gathers()
    assert client.connection.finished


def test_no_more_is_taken_when_the_server_stops(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\n")
    client.connection.take_no_more()
    assert not client.sends_whole(b"read x\r\n")
    client.sends(b"read x\r\n")
    client.backend.complete_changes()
    assert client.takes() == b"OK 1\r\n"
    assert client.connection.finished


def test_others_get_their_turn_after_many_requests(client: Client) -> None:
    assert client.sends(b"\n" * (REQUESTS_PER_TURN + 1))
    assert client.connection.blocked
    assert not client.gathers()
    assert not client.connection.blocked
    assert client.takes() == b"ERR_CMD_ERR empty line\r\n" * (REQUESTS_PER_TURN + 1)


def test_a_bounded_number_of_requests_is_under_way(client: Client) -> None:
    request = b"write x 1\r\n1\r\n"
    while not client.connection.blocked:
        client.sends(request * 10)
    assert sum(len(batch) for batch in client.backend.batches) == UNDER_WAY_MAX
    client.backend.complete_changes()
    client.gathers()
    assert not client.connection.blocked


def test_input_is_bounded_while_blocked(client: Client) -> None:
    client.sends(b"read x\r\nwrite x 1\r\n1\r\n")
    assert client.connection.blocked
    assert not client.connection.input_full
    client.sends(b"#" * INPUT_BYTES_MAX)
    assert client.connection.input_full
    client.backend.complete_reads()
    client.gathers()
    assert not client.connection.input_full
    assert client.connection.closing


def test_nothing_is_parsed_while_the_client_takes_no_replies(client: Client) -> None:
    content = b"x" * PART_BYTES
    client.backend.apply(WRITE, b"x", 0, 0, content)
    reply = b"CONTENTS 1 %d 0\r\n%b\r\n" % (PART_BYTES, content)
    client.sends(b"read x\r\n" * 100)
    client.backend.complete_reads()
    # All were under way; those that didn't fit any more are evaluated later.
    assert OUTPUT_BYTES_MAX < client.connection.unsent_bytes <= OUTPUT_BYTES_MAX + len(reply)
    assert client.connection.blocked
    client.sends(b"read x\r\nquit\r\n")
    client.connection.receive_end()
    client.gathers()
    assert client.backend.reads == []
    taken = b""
    for _ in range(100):
        taken += client.takes()
        client.gathers()
        client.backend.complete_reads()
        assert client.connection.unsent_bytes <= OUTPUT_BYTES_MAX + len(reply)
        if client.connection.finished:
            break
    assert taken == reply * 101 + b"OK\r\n"


def test_deferred_reads_are_answered_though_the_client_has_ended_its_side(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 0, b"x" * PART_BYTES)
    client.sends(b"read x\r\n" * 20)
    client.connection.receive_end()
    client.gathers()
    client.backend.complete_reads()
    assert client.connection.closing
    assert client.connection.blocked
    client.takes()
    client.gathers()
    assert client.connection.blocked
    client.takes()
    client.gathers()
    assert not client.connection.blocked
    client.takes()
    assert client.connection.finished


def test_short_contents_are_deferred_as_well_behind_too_much_that_is_not_taken(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 0, b"x" * PART_BYTES)
    client.backend.apply(WRITE, b"y", 0, 0, b"short")
    client.sends(b"read x\r\n" * 8 + b"read y\r\n" * 2)
    client.backend.complete_reads()
    assert client.connection.unsent_bytes > OUTPUT_BYTES_MAX
    assert client.connection.blocked
    assert client.takes().endswith(b"xx\r\n"), "they aren't answered before there is room"
    client.gathers()
    assert client.takes() == b"CONTENTS 2 5 0\r\nshort\r\n" * 2


def test_output_comes_in_handy_portions(client: Client) -> None:
    client.backend.apply(WRITE, b"x", 0, 0, b"x" * PART_BYTES)
    client.sends(b"read x\r\n" * 5)
    client.backend.complete_reads()
    total = client.connection.unsent_bytes
    sizes = []
    while buffers := client.connection.next_output():
        size = sum(map(len, buffers))
        sizes.append(size)
        client.connection.sent(size)
        assert client.connection.unsent_bytes == total - sum(sizes)
    assert max(sizes) < SEND_BYTES + PART_BYTES
    assert len(sizes) == 3


@given(cuts=st.lists(st.integers(1, 30), min_size=1))
def test_output_may_be_taken_in_any_portions(cuts: list[int]) -> None:
    client = Client()
    client.sends(b"\n" * 3 + b"read x y\n")
    expected = b"ERR_CMD_ERR empty line\r\n" * 3 + b"ERR_CMD_ERR too many fields\r\n"
    taken = b""
    while len(taken) < len(expected):
        for cut in cuts:
            portion = b"".join(client.connection.next_output())[:cut]
            client.connection.sent(len(portion))
            taken += portion
    assert taken == expected
    assert client.connection.unsent_bytes == 0
    assert client.connection.idle


def test_a_lost_client_costs_nothing_more(client: Client) -> None:
    client.sends(b"write x 1\r\n1\r\nwrite y 9")
    client.sends(b"help")
    client.connection.lose()
    client.backend.complete_changes()
    assert client.touched == []
    assert client.takes() == b""
    assert not client.connection.in_request
    assert client.backend.store.lookup(b"x") is not None
    client.gathers()


def test_a_lost_client_in_a_list(client: Client) -> None:
    client.sends(b"list\r\n")
    client.connection.lose()
    client.backend.complete_reads()
    assert client.connection.unsent_bytes == 0


def test_two_connections_share_a_batch() -> None:
    backend = ManualBackend()
    first, second = Client(backend), Client(backend)
    first.connection.receive(b"write x 1\r\n1\r\n")
    second.connection.receive(b"write x 1\r\n2\r\n")
    first.connection.gather(first.gathering)
    second.connection.gather(first.gathering)
    assert first.gathering.requests == 2
    first.gathering.submit()
    assert first.gathering.requests == 0
    assert len(backend.batches) == 1
    backend.complete_changes()
    assert (first.takes(), second.takes()) == (b"OK 1\r\n", b"OK 2\r\n")
