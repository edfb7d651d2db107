"""What monitoring asks a server over HTTP: ``/health``, ``/status`` and ``/metrics``, all read-only.

Nothing here knows how a server works: it is given a function that returns the ``status`` of the line protocol, and
turns that into an answer. :func:`respond` is the pure half; around it h11 speaks HTTP and Trio moves the bytes.

* ``/health`` is 200 while this server can serve (a leader is known, and nothing has failed), else 503, so that a load
  balancer can use it.
* ``/status`` is the status itself, as JSON.
* ``/metrics`` is every number in it, in the text format of Prometheus.

Limits: a request is at most 16 KiB without its body, has to come and be answered within 10 s, and the 65th connection
at a time is closed at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import attrs
import h11
import trio

Status = Callable[[], Mapping[str, Any]]

REQUEST_TIMEOUT_SECONDS = 10
CONNECTIONS_MAX = 64
HEAD_BYTES_MAX = 16 * 1024
_RECEIVE_BYTES = 16 * 1024
_TEXT = "text/plain; charset=utf-8"


@attrs.frozen(slots=True)
class Response:
    """What a request is answered."""

    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT


def respond(method: bytes, target: bytes, status: Status) -> Response:
    """The answer to a request; ``status`` is called only if the answer depends on it."""
    path = target.partition(b"?")[0]
    if path not in {b"/", b"/health", b"/status", b"/metrics"}:
        return Response(HTTPStatus.NOT_FOUND, b"there are /health, /status and /metrics\n")
    if method not in {b"GET", b"HEAD"}:
        return Response(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET and HEAD are served\n")
    if path == b"/":
        return Response(HTTPStatus.OK, b"/health\n/status\n/metrics\n")
    now = status()
    if path == b"/health":
        trouble = trouble_of(now)
        code = HTTPStatus.OK if trouble is None else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(code, f"{trouble or 'ok'}\n".encode())
    if path == b"/status":
        return Response(HTTPStatus.OK, f"{json.dumps(now, indent=1)}\n".encode(), "application/json")
    return Response(HTTPStatus.OK, metrics_text(now).encode(), "text/plain; version=0.0.4; charset=utf-8")


def trouble_of(status: Mapping[str, Any]) -> str | None:
    """Why this server can't serve right now, or None. ``failure`` is what a server that has stopped serving says."""
    failure = status.get("failure")
    if failure:
        return str(failure)
    return None if status.get("leader") is not None else "no leader is known"


def metrics_text(status: Mapping[str, Any]) -> str:
    """Every number of a status as a gauge ``quintet_<key>``; those in ``servers`` have the server's id as a label.

    Texts become labels of ``quintet_info``, whose value is always 1. A state hash is left out: as a label it
    would make a new time series with each change.
    """
    labels = ",".join(f'{key}="{_escaped(status[key])}"' for key in ("cluster", "id", "role") if key in status)
    lines = ["# TYPE quintet_info gauge", f"quintet_info{{{labels}}} 1"]
    lines.append("# TYPE quintet_healthy gauge")
    lines.append(f"quintet_healthy {int(trouble_of(status) is None)}")
    for name, number in _numbers("quintet", status):
        lines += [f"# TYPE {name} gauge", f"{name} {number}"]
    per_server: dict[str, list[str]] = {}
    for each in status.get("servers", ()):
        for name, number in _numbers("quintet_server", {key: each[key] for key in each if key != "id"}):
            per_server.setdefault(name, []).append(f'{name}{{server="{_escaped(each["id"])}"}} {number}')
    for name, rows in per_server.items():
        lines += [f"# TYPE {name} gauge", *rows]
    return "\n".join(lines) + "\n"


def _numbers(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The numbers in a mapping and in the mappings within it, each with its name; true is 1 and false is 0."""
    found: list[tuple[str, float]] = []
    for key, value in values.items():
        name = f"{prefix}_{''.join(character if character.isalnum() else '_' for character in key)}"
        if isinstance(value, Mapping):
            found += _numbers(name, value)
        elif isinstance(value, (int, float)):
            found.append((name, value + 0))
    return found


def _escaped(value: object) -> str:
    """A label's value as Prometheus wants it."""
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# ------------------------------------------------------------------------------------------ the wire


async def serve_http(
    host: str,
    port: int,
    status: Status,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started once it listens.

    Raises:
        OSError: the address can't be listened on.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    connections = 0

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal connections
        if connections >= CONNECTIONS_MAX:
            await trio.aclose_forcefully(stream)
            return
        connections += 1
        try:
            await serve_connection(stream, status)
        finally:
            connections -= 1

    await trio.serve_listeners(serve, listeners, task_status=task_status)


async def serve_connection(stream: trio.abc.Stream, status: Status) -> None:
    """Answer the requests of one connection, until it ends, goes wrong, or is silent for too long; then close it."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    try:
        async with stream:
            while True:
                with trio.fail_after(REQUEST_TIMEOUT_SECONDS):
                    if not await _serve_request(connection, stream, status):
                        return
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
        return  # it harms only itself


async def _serve_request(connection: h11.Connection, stream: trio.abc.Stream, status: Status) -> bool:
    """Answer one request; returns whether another may follow on this connection."""
    request: h11.Request | None = None
    try:
        while not isinstance(event := await _next_event(connection, stream), h11.EndOfMessage):
            if event is None:
                return False
            if isinstance(event, h11.Request):
                request = event
    except h11.RemoteProtocolError as error:
        if connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            # What is wrong may be the body of a HEAD, to which the answer has none.
            method = b"GET" if request is None else request.method
            code = HTTPStatus(error.error_status_hint)
            await _send(connection, stream, Response(code, f"{error}\n".encode("utf-8", "replace")), method)
        return False
    assert request is not None, "h11 gives the head of a request before its end"
    await _send(connection, stream, respond(request.method, request.target, status), request.method)
    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
        return False
    connection.start_next_cycle()
    return True


async def _next_event(
    connection: h11.Connection, stream: trio.abc.Stream
) -> h11.Request | h11.Data | h11.EndOfMessage | None:
    """Read the next part of a request, whose body is of no interest; None when the client is gone.

    Raises:
        h11.RemoteProtocolError: what came is not HTTP.
    """
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_RECEIVE_BYTES)))
        elif isinstance(event, (h11.Request, h11.Data, h11.EndOfMessage)):
            return event
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None


async def _send(connection: h11.Connection, stream: trio.abc.Stream, response: Response, method: bytes) -> None:
    """Send a whole response in one piece; to HEAD, without the body."""
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
    ]
    head = h11.Response(status_code=response.status, headers=headers, reason=response.status.phrase.encode())
    parts = [connection.send(head)]
    if method != b"HEAD":
        parts.append(connection.send(h11.Data(data=response.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    await stream.send_all(b"".join(part for part in parts if part))
