"""Health, status and metrics: what each says, and what becomes of requests that are none."""

import json
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from fileserver import http
from fileserver.http import metrics_text, respond, serve_connection, serve_http

STATUS: dict[str, Any] = {
    "id": 2,
    "cluster": 'a "demo"',
    "role": "follower",
    "leader": 1,
    "term": 7,
    "files": 3,
    "clock": 1.5,
    "state_hash": "ab12",
    "servers": [
        {"id": 1, "client": "127.0.0.1:8080", "voter": True, "match_index": 9, "alive": True},
        {"id": 2, "client": "127.0.0.1:8081", "voter": True, "match_index": None, "alive": None},
    ],
    "disk": {"flush_us": 154},
}


def no_leader() -> dict[str, Any]:
    return STATUS | {"leader": None}


def test_health_is_ok_while_a_leader_is_known() -> None:
    assert respond(b"GET", b"/health", lambda: STATUS).status == 200
    response = respond(b"GET", b"/health?verbose", no_leader)
    assert (response.status, response.body) == (503, b"no leader is known\n")


def test_health_says_what_has_failed() -> None:
    response = respond(b"GET", b"/health", lambda: STATUS | {"failure": "a flush failed"})
    assert (response.status, response.body) == (503, b"a flush failed\n")


def test_status_is_the_status() -> None:
    response = respond(b"GET", b"/status", lambda: STATUS)
    assert json.loads(response.body) == STATUS
    assert response.content_type == "application/json"


def test_metrics_have_every_number_and_no_text() -> None:
    lines = metrics_text(STATUS).splitlines()
    assert 'quintet_info{cluster="a \\"demo\\"",id="2",role="follower"} 1' in lines
    assert "quintet_healthy 1" in lines
    assert "quintet_term 7" in lines
    assert "quintet_clock 1.5" in lines
    assert "quintet_disk_flush_us 154" in lines
    assert 'quintet_server_match_index{server="1"} 9' in lines
    assert 'quintet_server_voter{server="2"} 1' in lines
    assert not any("ab12" in line or 'match_index{server="2"}' in line for line in lines)


def test_each_metric_has_its_type_once_and_its_rows_after_it() -> None:
    lines = metrics_text(no_leader()).splitlines()
    types = [line for line in lines if line.startswith("# TYPE ")]
    assert len(types) == len(set(types))
    named = ""
    for line in lines:
        if line.startswith("# TYPE "):
            named = line.split()[2]
        else:
            assert line.split("{")[0].split()[0] == named


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [(b"GET", b"/", 200), (b"GET", b"/nothing", 404), (b"POST", b"/health", 405), (b"DELETE", b"/status", 405)],
)
def test_what_is_not_served(method: bytes, target: bytes, status: int) -> None:
    assert respond(method, target, lambda: pytest.fail("asked for the status")).status == status


@pytest.fixture
async def client(nursery: trio.Nursery) -> trio.abc.Stream:
    """The client's end of a connection that is being served."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(serve_connection, theirs, lambda: STATUS)
    return ours


async def read_response(stream: trio.abc.Stream, *, has_body: bool = True) -> tuple[bytes, bytes]:
    """A whole response: its head and its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some()
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")).split()[1])
    while has_body and len(body) < length:
        body += await stream.receive_some()
    return head, body


async def test_several_requests_on_one_connection_in_any_chunks(client: trio.abc.Stream) -> None:
    for _ in range(3):
        for position in b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n":
            await client.send_all(bytes([position]))
        head, body = await read_response(client)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b"ok\n"


async def test_head_gets_no_body(client: trio.abc.Stream) -> None:
    await client.send_all(b"HEAD /status HTTP/1.1\r\nHost: h\r\n\r\n")
    head, body = await read_response(client, has_body=False)
    assert b"200 OK" in head
    assert body == b""
    await client.send_all(b"GET /health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert (await read_response(client))[1] == b"ok\n"
    assert await client.receive_some() == b""


async def test_a_body_is_read_and_of_no_interest(client: trio.abc.Stream) -> None:
    await client.send_all(b"POST /health HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
    assert (await read_response(client))[0].startswith(b"HTTP/1.1 405 ")
    await client.send_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await read_response(client))[0].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "garbage", [b"\0\0\0\r\n\r\n", b"GET /health HTTP/1.1\r\n\r\n", b"x" * (http.HEAD_BYTES_MAX + 1)]
)
async def test_garbage_is_refused_and_the_connection_closed(client: trio.abc.Stream, garbage: bytes) -> None:
    await client.send_all(garbage)
    assert b" 4" in (await read_response(client))[0]
    assert await client.receive_some() == b""


async def test_a_head_request_with_a_wrong_body_harms_nobody_else(client: trio.abc.Stream) -> None:
    """The answer to it has no body: h11 raises LocalProtocolError for one, which would end the server."""
    await client.send_all(b"HEAD / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
    head, body = await read_response(client, has_body=False)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert body == b""
    assert await client.receive_some() == b""


async def test_a_client_that_goes_away_in_mid_request(client: trio.abc.Stream) -> None:
    await client.send_all(b"GET /hea")
    await client.aclose()


async def test_a_silent_client_is_closed(autojump_clock: MockClock, client: trio.abc.Stream) -> None:
    started_at = trio.current_time()
    assert await client.receive_some() == b""
    assert trio.current_time() - started_at == pytest.approx(http.REQUEST_TIMEOUT_SECONDS)


async def test_over_tcp_with_a_limit_on_connections(nursery: trio.Nursery) -> None:
    (listener,) = await nursery.start(serve_http, "127.0.0.1", 0, lambda: STATUS)
    port = listener.socket.getsockname()[1]
    streams = []
    for _ in range(http.CONNECTIONS_MAX):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
        await read_response(stream)
        streams.append(stream)
    one_too_many = await trio.open_tcp_stream("127.0.0.1", port)
    assert await one_too_many.receive_some() == b""
    for stream in [*streams, one_too_many]:
        await trio.aclose_forcefully(stream)
