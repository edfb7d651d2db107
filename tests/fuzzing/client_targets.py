"""Fuzz targets for what clients and people write: the line protocol, HTTP, and configuration files."""

from __future__ import annotations

from collections.abc import Coroutine, Hashable
from typing import Any

import h11
import trio

from fileserver import config, http, parser
from fileserver.config import ConfigError, parse_config
from fileserver.parser import RequestParser, parse_whole
from fileserver.requests import BadRequest, Request
from tests.fuzzing.containers import chunks
from tests.fuzzing.target import Target, with_constants

# ---------------------------------------------------------------------------------------- line protocol

MAX_FILE_BYTES = 512
PART_BYTES = 64
"""So small that a short input holds contents of many pieces."""


def _requests_of(pieces: list[bytes]) -> tuple[list[Request | BadRequest], RequestParser]:
    """What a conversation says, up to where it ends."""
    line_parser = RequestParser(MAX_FILE_BYTES)
    requests: list[Request | BadRequest] = []
    for piece in pieces:
        line_parser.feed(piece)
        while (request := line_parser.next_request()) is not None:
            requests.append(request)
            if isinstance(request, BadRequest) and request.close:
                return requests, line_parser
        assert line_parser.unparsed_bytes <= sum(map(len, pieces))
    return requests, line_parser


def run_parser(data: bytes) -> Hashable:
    """First byte: how many of those that follow say how long the chunks are; the rest: the conversation."""
    plan_bytes = data[0] % 8 if data else 0
    plan, conversation = data[1 : 1 + plan_bytes], data[1 + plan_bytes :]
    requests, whole = _requests_of([conversation])
    in_chunks, chunked = _requests_of(chunks(conversation, plan))
    assert requests == in_chunks
    assert whole.in_request == chunked.in_request
    quick = parse_whole(conversation, MAX_FILE_BYTES)
    assert quick is None or [quick] == requests
    kinds = [each.why[:12] if isinstance(each, BadRequest) else each.operation for each in requests[:2]]
    return (min(len(requests), 4), *kinds, whole.in_request)


def parser_examples() -> list[bytes]:
    lines = (
        b"read file\r\n",
        b"write file 5\r\nhello\r\n",
        b"write file 5 100\r\nhello\r\nread file\r\n",
        b"write big 200\r\n" + b"0123456789" * 20 + b"\r\nread big\r\n",
        b"cas file 7 3 10\r\nabc\r\ncas file 0 0\r\n\r\n",
        b"delete file\r\ndelete file 3\r\n",
        b"append file 4 60\nmore\ntouch file 0\n",
        b"stat file\r\nlist\r\nlist pre\r\nstatus\r\nhelp\r\nquit\r\n",
        "write Grüße 2\r\nhi\r\n".encode(),
        b"write " + b"n" * 250 + b" 0\r\n\r\n",
        b"\r\nwrong\r\n",
    )
    return [bytes([len(plan)]) + plan + line for line in lines for plan in (b"", b"\x01", b"\x03\x40")]


PARSER = Target(
    "parser",
    (parser,),
    run_parser,
    (),
    parser_examples,
    tokens=(
        *(b"read ", b"write ", b"cas ", b"delete ", b"append ", b"touch ", b"stat ", b"list ", b"status", b"help"),
        *(b"quit", b"\r\n", b"\n", b"\r", b" ", b"  ", b"\t", b"\0", b"-1", b"0", b"007", b"512", b"513"),
        *(b"9" * 19, b"9" * 20, b"1000000000000", b"+5", b"1_0", "٣".encode(), "\u00a0".encode(), "\u0085".encode()),
        *(b"\xff", b"n" * 251, b"x" * 1024),
    ),
    environment=with_constants((parser, "PART_BYTES", PART_BYTES)),
)

# ----------------------------------------------------------------------------------------------- HTTP

_STATUS = {"cluster": "demo", "id": 1, "role": "leader", "leader": 1, "servers": [{"id": 2, "lag": 5}]}


class _Script(trio.abc.Stream):
    """A client that sends these chunks and then closes; none of the calls ever waits."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces[::-1]
        self.answers: list[bytes] = []
        """The status lines."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self._pieces.pop() if self._pieces else b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.answers.append(bytes(data[:12]))

    async def wait_send_all_might_not_block(self) -> None:
        return

    async def aclose(self) -> None:
        return


def _result_of(coroutine: Coroutine[Any, Any, bool]) -> bool:
    """Runs to its end a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return bool(stop.value)
    raise AssertionError("it waits, though its client is ready")


def run_http(data: bytes) -> Hashable:
    """First byte as in :func:`run_parser`; the rest: what comes on one connection."""
    plan_bytes = data[0] % 8 if data else 0
    plan, conversation = data[1 : 1 + plan_bytes], data[1 + plan_bytes :]
    stream = _Script(chunks(conversation, plan))
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=http.HEAD_BYTES_MAX)
    answered_count = 0
    while _result_of(http._serve_request(connection, stream, lambda: _STATUS)):
        answered_count += 1
    assert answered_count <= len(stream.answers)
    return (min(answered_count, 4), *stream.answers[:2], str(connection.our_state), str(connection.their_state))


def http_examples() -> list[bytes]:
    requests = (
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /status?a=b HTTP/1.1\r\nHost: x\r\n\r\nHEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /none HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
    )
    return [bytes([len(plan)]) + plan + each for each in requests for plan in (b"", b"\x07")]


HTTP = Target(
    "http",
    (http,),
    run_http,
    (),
    http_examples,
    tokens=(
        *(b"GET ", b"HEAD ", b"POST ", b"CONNECT ", b"/health", b"/status", b"/metrics", b"/", b"?", b" HTTP/1.1\r\n"),
        *(b" HTTP/1.0\r\n", b"Host: x\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"\n"),
        *(
            b"Connection: close\r\n",
            b"Upgrade: h2c\r\n",
            b"Expect: 100-continue\r\n",
            b"\0",
            b"\xff",
            b": ",
            b"0\r\n\r\n",
        ),
    ),
)

# --------------------------------------------------------------------------------------- configuration


def run_config(data: bytes) -> Hashable:
    """The text of a file; what isn't UTF-8 is read as Latin-1, since `load_config` refuses it before it is parsed."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    found = parse_config(text)
    assert parse_config(found.to_json()) == found
    for server in found.servers:
        assert found.server(server.server_id) is server
        for address in (server.client, server.http, server.peer):
            assert config.Address.parse(str(address)) == address
            assert str(address).isprintable()
            address.host.encode("idna")
    return len(found.servers), found.forward, found.heartbeat_us == 60_000


_SERVER = '{"id": %d, "client": "127.0.0.1:808%d", "http": "[::1]:818%d", "peer": "host.example:908%d"}'


def config_examples() -> list[bytes]:
    servers = ", ".join(_SERVER % (number, number, number, number) for number in (1, 2, 3))
    whole = (
        f'{{"cluster": "demo", "servers": [{servers}], "election_timeout_ms": [300, 600], "heartbeat_ms": 60,'
        ' "max_file_bytes": 67108864, "request_timeout": 15, "snapshot_log_bytes": 67108864, "forward": true,'
        ' "idle_timeout": 0, "request_progress_timeout": 60.5}'
    )
    return [
        whole.encode(),
        f'{{"cluster": "Größe", "servers": [{_SERVER % (1, 1, 1, 1)}]}}'.encode(),
        b"1 127.0.0.1 8080\n2 127.0.0.1 8081 # the second\n\n3 ::1 8082\n",
    ]


CONFIG = Target(
    "config",
    (config,),
    run_config,
    (ConfigError,),
    config_examples,
    tokens=(
        *(b'"cluster": ', b'"servers": ', b'"election_timeout_ms": ', b'"heartbeat_ms": ', b'"max_file_bytes": '),
        *(b'"request_timeout": ', b'"snapshot_log_bytes": ', b'"forward": ', b'"idle_timeout": ', b'"id": '),
        *(b'"client": ', b'"http": ', b'"peer": ', b"true", b"false", b"null", b"NaN", b"-Infinity", b"1e999", b"-0"),
        *(b"[", b"]", b"{", b"}", b",", b":", b'"', b"[" * 1500, b"1" * 500, b"0.0001", b"1e3", b"\\ud800", b"\\u0000"),
        *(b"#", b"\n", b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"[::1]:80", b"a:b:c", b":80", b"x:65536", b"\xef\xbb\xbf"),
    ),
)
