"""One server without any Raft: a store in memory behind the line protocol.

Theory of operation
    :class:`AloneBackend` applies each batch at once, under its own session, with its own clock as the stamp; a second
    task lets files expire on time, and a third takes in big contents piece by piece, so that no step takes long.

Invariants
    The store's clock never passes the backend's. Nothing is kept when the process ends.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping
from heapq import heappop, heappush
from itertools import count
from typing import Final

import structlog
import trio

from fileserver.backend import ChangeBatch, ClockCallback, Failure, ReadBatch, Upload
from fileserver.client_loop import ClientLoop
from fileserver.commands import PART, encode_batch
from fileserver.service import Limits, raise_open_files_limit
from fileserver.store import Store
from raftnode.reactor import Reactor
from raftnode.sleeping import make_sleeper
from raftnode.trio_runtime import monotonic_us

_SESSION: Final = 1
_MICROSECONDS: Final = 1_000_000
_LISTEN_BACKLOG: Final = 1024
_NEVER_US: Final = 2**63

_log: Final = structlog.get_logger(__name__)


class AloneBackend:
    """A backend that is its own cluster; `run` must be running for expiry and big contents."""

    def __init__(self, store: Store | None = None) -> None:
        """Take over a store, a new one by default; its clock goes on from where it stands."""
        self.store: Final = store or Store()
        self._started_us = self.store.clock_us - round(trio.current_time() * _MICROSECONDS)
        self._changes = 0
        self._upload_numbers = count(1)
        self._uploads: deque[Upload] = deque()
        self._upload_wanted = trio.Event()
        self._waiting: list[tuple[int, int, ClockCallback]] = []  # A heap of (deadline, order, callback).
        self._order = count()
        self._alarm_us = _NEVER_US  # When the expiry task wakes by itself.
        self._alarm_changed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let files expire and take in big contents, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expire)
            nursery.start_soon(self._take_uploads)
            task_status.started()

    # What a backend does

    def submit(self, batch: ChangeBatch) -> None:
        """Carry out the changes, at once."""
        results = self.store.apply(self.clock_us(), _SESSION, encode_batch(batch.fields))
        self._changes += 1
        self._check_alarm()
        batch.applied(results)

    def submit_upload(self, upload: Upload) -> None:
        """Carry out one change with a big content, in steps."""
        self._uploads.append(upload)
        self._upload_wanted.set()

    def read(self, batch: ReadBatch) -> None:
        """Have the requests evaluated, at once."""
        batch.ready()

    def begin(self) -> None:
        """Do nothing: all was done at once."""

    def clock_us(self) -> int:
        """Tell the clock: the store's when it was taken over, and the time since then."""
        return self._started_us + round(trio.current_time() * _MICROSECONDS)

    def wait_for_clock(self, deadline_us: int, callback: ClockCallback) -> None:
        """Call back once the store's clock has come to the deadline; at once if it's time."""
        if deadline_us <= self.clock_us():
            self.store.advance(self.clock_us())
            callback(None)
            return
        heappush(self._waiting, (deadline_us, next(self._order), callback))
        self._check_alarm()

    def refusal(self) -> Failure | None:
        """Refuse nothing."""
        return None

    def status(self) -> Mapping[str, object]:
        """Give the values of the `status` reply: those of a leader without followers, without a log."""
        store = self.store
        server = {"id": 1, "client": None, "peer": None, "http": None, "voter": True}
        return {
            "id": 1,
            "cluster": "alone",
            "role": "leader",
            "leader": 1,
            "term": 0,
            "commit_index": self._changes,
            "applied_index": self._changes,
            "first_index": self._changes + 1,
            "last_index": self._changes,
            "version": store.version,
            "files": store.files,
            "bytes": store.bytes,
            "clock": self.clock_us() / _MICROSECONDS,
            "state_hash": store.state_hash(),
            "servers": [server | {"match_index": self._changes, "alive": True}],
        }

    # Its tasks

    def _next_alarm_us(self) -> int:
        expiry_us = self.store.next_deadline_us()
        alarm_us = _NEVER_US if expiry_us is None else expiry_us
        return min(alarm_us, self._waiting[0][0]) if self._waiting else alarm_us

    def _check_alarm(self) -> None:
        """Wake the expiry task if something is due earlier than it knows."""
        if self._next_alarm_us() < self._alarm_us:
            self._alarm_changed.set()

    async def _expire(self) -> None:
        while True:
            self._alarm_us = self._next_alarm_us()
            self._alarm_changed = trio.Event()
            with trio.move_on_at((self._alarm_us - self._started_us) / _MICROSECONDS):
                await self._alarm_changed.wait()
            now_us = self.clock_us()
            self.store.advance(now_us)
            while self._waiting and self._waiting[0][0] <= now_us:
                _, _, callback = heappop(self._waiting)
                callback(None)

    async def _take_uploads(self) -> None:
        while True:
            await self._upload_wanted.wait()
            self._upload_wanted = trio.Event()
            while self._uploads:
                upload = self._uploads.popleft()
                number = next(self._upload_numbers)
                for piece in upload.pieces:
                    self.store.apply(self.clock_us(), _SESSION, encode_batch((PART, b"", number, 0, piece)))
                    await trio.lowlevel.checkpoint()
                results = self.store.apply(self.clock_us(), _SESSION, encode_batch(upload.command(number)))
                self._changes += 1
                self._check_alarm()
                upload.applied(results)
                upload.flush()


def listen(host: str, port: int) -> list[socket.socket]:
    """Open listening sockets on every address of a host; port 0 picks one.

    Raises:
        OSError: the host is unknown, or the port in use.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setblocking(False)
            listener.bind(address)
            listener.listen(_LISTEN_BACKLOG)
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


async def serve_alone(
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve one store without Raft until cancelled.

    Args:
        host: the name or address to listen at.
        port: the client port; 0 picks a free one.
        limits: what clients are allowed.
        task_status: told the port once connections are accepted.

    Raises:
        OSError: the address can't be listened at.
    """
    raise_open_files_limit()
    listeners = listen(host, port)
    backend = AloneBackend()
    reactor = Reactor(now_us=monotonic_us, make_sleeper=make_sleeper)
    loop = ClientLoop(backend, listeners, reactor, limits)
    port = listeners[0].getsockname()[1]
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(backend.run)
            await nursery.start(loop.run)
            nursery.start_soon(reactor.run)
            _log.info("serving alone", host=host, port=port)
            task_status.started(port)
    finally:
        reactor.close()
