"""The load generator: so many clients, each with so many requests in flight, in one thread.

Theory of operation
    One poller serves all clients, as this process must take as little as can be of the cores that it shares with what
    it measures: requests are made beforehand, replies are looked at no more than is needed to judge them, and the
    clock is read once for what one ``recv`` brings.

    *Closed loop* (without a rate): each client keeps a fixed number of requests under way, and sends the next one when
    a reply has come. The system under test sets the pace; a latency is the time from sending a request to having its
    whole reply.

    *Open loop* (with a rate): requests become due at fixed times, whatever the replies do, and the next client that is
    free sends them. A latency is the time from when the request was *due*, so a request that had to wait because all
    clients were waiting for a stalled server counts with its wait. (A closed loop hides that: it asks nothing while the
    server stalls. Gil Tene calls it coordinated omission; wrk2 measures as is done here.)

    A run has a warm-up, of which only the errors are counted, then the measurement, then a drain: nothing more is sent
    and what is under way is waited for, for `DRAIN_SECONDS` at most.

Invariants
    `_under_way` is the number of requests in the clients' `waiting`, summed up.
    With a rate, every client is in `_free` as often as it may send another request.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle

from fileserver.bench.cpu import CpuMeter
from fileserver.bench.load import Kind, Load, NotAReply, Request, end_of_reply, filling, first_word, is_good, prepared
from fileserver.bench.outcome import INTERVAL_US, Interval, Outcome
from fileserver.config import Address
from raftnode.polling import READABLE, WRITABLE, make_poller

CONNECT_SECONDS = 5.0
DRAIN_SECONDS = 20.0
"""More than a server's request timeout, so that a server that is there has said something by then."""
FILES_BESIDE = 200
"""How many files this process may have open beside its clients' sockets."""
_RECEIVE_BYTES = 256 * 1024
_POLL_SECONDS = 0.02
_EVENTS_MAX = 1024
_SECOND_NS = 1_000_000_000
_INTERVAL_NS = INTERVAL_US * 1000

Progress = Callable[[Outcome, float], None]
"""Is given the outcome so far and the seconds since the measurement began, less than 0 during the warm-up; about ten
times a second."""


def _tell_nobody(_outcome: Outcome, _seconds: float) -> None:
    """A :data:`Progress` for when nobody watches."""


def fill(load: Load, progress: Progress = _tell_nobody, *, first: int = 0) -> Outcome:
    """Write every file of the load once, from that number on, so that reads find them.

    Raises:
        OSError: a client can't connect.
    """
    return _Generator(load.to_fill(), filling(load, first), progress, ()).run()


def run(load: Load, progress: Progress = _tell_nobody, pids: Sequence[int] = ()) -> Outcome:
    """Load the servers for the time given.

    Args:
        load: how.
        progress: is told how it goes.
        pids: the servers' processes, if they are known, to measure what processor time they use.

    Raises:
        OSError: a client can't connect.
        ProcessGone: a server has ended before the measurement began.
    """
    return _Generator(load, cycle(prepared(load)), progress, pids).run()


class Client:
    """One client: its socket, what it has yet to send, and what it waits for."""

    __slots__ = ("fd", "missing", "received", "recv", "send", "socket", "unsent", "waiting")

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.fd = connected.fileno()
        self.recv = connected.recv
        self.send = connected.send
        self.unsent = b""
        self.received: list[bytes] = []
        """The reply that has begun to come, and what came behind it."""
        self.missing = 0
        """At least so many bytes have yet to come before it is whole."""
        self.waiting: deque[tuple[Kind, int]] = deque()
        """For each request under way its kind and when it was sent or due, in nanoseconds."""


class _Generator:
    """One run of a load."""

    def __init__(self, load: Load, requests: Iterable[Request], progress: Progress, pids: Sequence[int]) -> None:
        self._load = load
        self._requests: Iterator[Request] = iter(requests)
        self._progress = progress
        self._pids = pids
        self._poller = make_poller()
        self._clients: dict[int, Client] = {}
        self._outcome = Outcome()
        self._interval = Interval(0)
        self._latencies: tuple[array[int], array[int]] = self._interval.latencies_us
        self._under_way = 0
        self._is_over = False
        self._meter: CpuMeter | None = None
        """Is there once the warm-up is over."""
        self._free: deque[Client] = deque()
        self._sent_count = 0
        self._started_ns = self._begins_ns = self._last_reply_ns = 0
        self._ends_ns = float("inf")

    def run(self) -> Outcome:
        """Connect, load, wait for what is under way, close."""
        load = self._load
        clients = connect_all(load.servers, load.clients)
        try:
            for client in clients:
                self._clients[client.fd] = client
                self._poller.register(client.fd, READABLE)
            self._started_ns = now_ns = time.monotonic_ns()
            self._begins_ns = now_ns + round(load.warm_seconds * _SECOND_NS)
            self._ends_ns = self._begins_ns + load.seconds * _SECOND_NS
            if not load.warm_seconds:
                self._begin(now_ns)
            if load.rate is None:
                for client in clients:
                    self._send(client, load.in_flight, now_ns)
            else:
                self._free.extend(clients * load.in_flight)
            self._loop()
        finally:
            for client in clients:
                client.socket.close()
            self._poller.close()
        return self._outcome

    def _loop(self) -> None:
        """Serve the clients until all is answered, or lost."""
        is_open = self._load.rate is not None
        tick_ns = self._started_ns
        while self._under_way or (is_open and self._clients and not self._is_over):
            for fd, mask in self._ready(is_open):
                client = self._clients.get(fd)
                if client is None:
                    continue  # lost in this very pass
                if mask & WRITABLE:
                    self._flush(client)
                if mask != WRITABLE:
                    self._receive(client)
            now_ns = time.monotonic_ns()
            if is_open:
                self._send_due(now_ns)
            if now_ns >= tick_ns:
                tick_ns = self._tick(now_ns)
        self._finish()

    def _ready(self, is_open: bool) -> list[tuple[int, int]]:
        """The sockets that are ready, waited for until the next request is due or the next tick."""
        if is_open:
            # The poller itself counts in whole milliseconds, which is late for a request that is due.
            wait_seconds = _POLL_SECONDS
            if self._free and not self._is_over:
                wait_seconds = min(wait_seconds, max(0.0, (self._due_ns() - time.monotonic_ns()) / _SECOND_NS))
            select.select((self._poller.fileno(),), (), (), wait_seconds)
            return self._poller.poll(0, _EVENTS_MAX)
        return self._poller.poll(_POLL_SECONDS, _EVENTS_MAX)

    def _due_ns(self) -> int:
        """When the next request is due."""
        assert self._load.rate is not None
        return self._started_ns + int(self._sent_count * _SECOND_NS / self._load.rate)

    # Sending

    def _send(self, client: Client, count: int, now_ns: int) -> None:
        """Send so many further requests of one client, unless the time is over or there are no more."""
        if self._is_over:
            return
        datas = []
        for _ in range(count):
            request = next(self._requests, None)
            if request is None:
                self._is_over = True
                break
            client.waiting.append((request[0], now_ns))
            datas.append(request[1])
        if datas:
            self._under_way += len(datas)
            self._put(client, datas[0] if len(datas) == 1 else b"".join(datas))

    def _send_due(self, now_ns: int) -> None:
        """Send what is due, as long as a client is free."""
        while self._free and not self._is_over and (due_ns := self._due_ns()) <= now_ns:
            client = self._free.popleft()
            if client.fd in self._clients:
                self._sent_count += 1
                self._send(client, 1, due_ns)

    def _put(self, client: Client, data: bytes) -> None:
        """Send what the socket takes; the rest when it takes more."""
        if client.unsent:
            client.unsent += data
            return
        try:
            sent = client.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lose(client, error.strerror or str(error))
            return
        if sent < len(data):
            client.unsent = data[sent:]
            self._poller.modify(client.fd, READABLE | WRITABLE)

    def _flush(self, client: Client) -> None:
        """Send more of what is left."""
        data, client.unsent = client.unsent, b""
        self._poller.modify(client.fd, READABLE)
        self._put(client, data)

    # Receiving

    def _receive(self, client: Client) -> None:
        """Take the replies that have come, and send as many requests."""
        try:
            data = client.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(client, error.strerror or str(error))
            return
        if not data:
            self._lose(client, "closed by the server")
            return
        now_ns = time.monotonic_ns()
        if client.missing:
            client.received.append(data)
            client.missing -= len(data)
            if client.missing > 0:
                return
            data = b"".join(client.received)
            client.received.clear()
            client.missing = 0
        try:
            answered = self._take_replies(client, data, now_ns)
        except NotAReply as error:
            self._lose(client, str(error))
            return
        if answered:
            if self._load.rate is None:
                self._send(client, answered, now_ns)
            else:
                self._free.extend([client] * answered)

    def _take_replies(self, client: Client, data: bytes, now_ns: int) -> int:
        """Count the replies that are whole, and keep the rest; gives their number."""
        size_bytes = len(data)
        waiting = client.waiting
        position = answered = good = 0
        while position < size_bytes:
            end = end_of_reply(data, position)
            if end > size_bytes:
                client.received.append(data[position:] if position else data)
                client.missing = end - size_bytes
                break
            if not waiting:
                raise NotAReply(f"a reply that nobody asked for: {first_word(data, position)}")
            kind, sent_ns = waiting.popleft()
            self._under_way -= 1
            answered += 1
            if is_good(kind, data, position):
                self._latencies[kind].append((now_ns - sent_ns) // 1000)
                good += 1
            else:
                self._count_error(first_word(data, position))
            position = end
        if good:
            gap_ns = now_ns - self._last_reply_ns
            self._last_reply_ns = now_ns
            if gap_ns > self._outcome.longest_gap_us * 1000 and self._meter is not None:
                self._outcome.longest_gap_us = gap_ns // 1000
        return answered

    def _lose(self, client: Client, why: str) -> None:
        """Go on without a client whose connection has ended."""
        if self._clients.pop(client.fd, None) is None:
            return
        self._poller.unregister(client.fd)
        client.socket.close()
        self._count_error(f"connection lost: {why}")
        self._under_way -= len(client.waiting)
        client.waiting.clear()

    def _count_error(self, what: str) -> None:
        self._outcome.errors[what] += 1
        self._interval.errors += 1

    # Time

    def _tick(self, now_ns: int) -> int:
        """Look what time it is; gives when to look again."""
        if self._meter is None and now_ns >= self._begins_ns:
            self._begin(now_ns)
        if not self._is_over and now_ns >= self._ends_ns:
            self._is_over = True
        if now_ns >= self._ends_ns + DRAIN_SECONDS * _SECOND_NS:
            for client in list(self._clients.values()):
                if client.waiting:
                    self._lose(client, f"no reply within {DRAIN_SECONDS:.0f} s")
        if self._meter is not None and now_ns >= self._begins_ns + self._interval.at_us * 1000 + _INTERVAL_NS:
            self._begin_interval((now_ns - self._begins_ns) // _INTERVAL_NS * INTERVAL_US)
        self._progress(self._outcome, (now_ns - self._begins_ns) / _SECOND_NS)
        next_ns = now_ns + _INTERVAL_NS - (now_ns - self._begins_ns) % _INTERVAL_NS
        return next_ns if self._is_over else int(min(next_ns, self._ends_ns))

    def _begin(self, now_ns: int) -> None:
        """Count from now on."""
        self._begins_ns = self._last_reply_ns = now_ns
        self._ends_ns = now_ns + self._load.seconds * _SECOND_NS
        self._meter = CpuMeter(self._pids)
        self._begin_interval(0)

    def _begin_interval(self, at_us: int) -> None:
        self._interval = Interval(at_us)
        self._latencies = self._interval.latencies_us
        self._outcome.intervals.append(self._interval)

    def _finish(self) -> None:
        """Note what can be known only now."""
        outcome, meter = self._outcome, self._meter
        if meter is None:  # all was lost, or written, before the measurement began
            return
        outcome.server_cpu_us = meter.servers_us()
        outcome.generator_cpu_us = meter.own_us()
        now_ns = time.monotonic_ns()
        outcome.seconds = (now_ns - self._begins_ns) / _SECOND_NS
        if self._last_reply_ns < self._ends_ns:
            last_gap_ns = min(now_ns, self._ends_ns) - self._last_reply_ns
            outcome.longest_gap_us = max(outcome.longest_gap_us, int(last_gap_ns) // 1000)
        if self._load.rate is not None:
            wanted = int((min(now_ns, self._ends_ns) - self._started_ns) * self._load.rate / _SECOND_NS)
            outcome.unsent = max(0, wanted - self._sent_count)


def connect_all(servers: Sequence[Address], count: int) -> list[Client]:
    """So many connections, spread over the servers in turn.

    Raises:
        OSError: one can't be made; the text names its server. None is left open.
    """
    clients: list[Client] = []
    _allow_files(count + FILES_BESIDE)
    try:
        for number in range(count):
            address = servers[number % len(servers)]
            try:
                connected = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
            except OSError as error:
                raise OSError(error.errno, f"{address}: {error.strerror or error}") from error
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setblocking(False)
            clients.append(Client(connected))
    except OSError:
        for client in clients:
            client.socket.close()
        raise
    return clients


def _allow_files(count: int) -> None:
    """Have so many files open at a time, or as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
