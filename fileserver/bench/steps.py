"""What each step of a write and of a read costs, when nothing else is in its way.

One write and one read of a leader's client are taken through the code of the servers, in one process and with nobody
else waking up: client sockets, parser, batch, entry, consensus at the leader and at a follower, messages, the log with
its flush, the store, replies. Each step is timed by itself, for one request and for so many that come together, and
the median of many passes counts. It is the code's own cost, with warm caches, or with cold ones: then so much memory is
read before each step that a processor's own caches (the first and the second level) hold nothing of it any more. What
real servers take lies between the two, as others have used the caches meanwhile; and beyond it there is waking up, and
waiting for a core.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from zlib import adler32

import attrs

from fileserver.client_loop import JOINT_MIN
from fileserver.commands import Field, encode_batch
from fileserver.machine import StoreMachine
from fileserver.parser import parse_whole
from fileserver.replies import change_reply, contents_reply
from fileserver.store import Store
from raftnode import codec, entries
from raftnode.filesystem import OpenMode, OsFileSystem
from raftnode.joint_sends import make_joint_sends
from raftnode.log_frames import encode_body, seal
from raftnode.replica import Replica
from statemachine.configuration import Configuration
from statemachine.events import EntriesRun, Persisted, ReadBarrier, Receive, Submit, Timeout
from statemachine.messages import Message
from statemachine.raft import Raft
from statemachine.ready import Ready
from statemachine.roles import Options, Restored

SERVERS = 5
LEADER = 1
ACKNOWLEDGING = (2, 3)
"""Followers that make a majority with the leader."""
SIZE_BYTES = 256
LOG_BYTES_MAX = 16 << 20
COLD_BYTES = 4 << 20
"""More than a processor's own caches hold, and less than what it shares with others."""
_RECEIVE_BYTES = 65_536
_SESSION = 1
WRITE, READ = "write", "read"
_RECEIVE, _PARSE, _SEND = "receive requests (system calls)", "parse", "send replies (system calls)"
_ENCODE, _APPLY, _LOOK_UP = "encode batch and entry", "apply, make replies", "look up, make replies"
STEPS_OF_ONE_ALONE = frozenset({_RECEIVE, _PARSE, _ENCODE, _APPLY, _LOOK_UP, _SEND})
"""What a server without others and without a disk does, too."""


@attrs.frozen(slots=True)
class StepCost:
    """What a step took in the median pass."""

    path: str
    """WRITE or READ."""
    step: str
    where: str
    """Who takes it: the leader, or one follower."""
    wall_us: float
    """For all requests of the pass together."""
    cpu_us: float


class Stopwatch:
    """Times of steps, by path, step and place, in the order in which they came first."""

    def __init__(self, cold_bytes: int = 0) -> None:
        """So much other memory is read before each step."""
        self.times: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
        self._others = bytes(cold_bytes)

    @contextlib.contextmanager
    def step(self, path: str, step: str, where: str) -> Iterator[None]:
        """Time what is done in a ``with`` block."""
        if self._others:
            adler32(self._others)
        cpu_ns = time.thread_time_ns()
        wall_ns = time.perf_counter_ns()
        yield
        taken_ns = time.perf_counter_ns() - wall_ns
        self.times.setdefault((path, step, where), []).append((taken_ns, time.thread_time_ns() - cpu_ns))

    def costs(self) -> list[StepCost]:
        """The medians."""
        return [
            StepCost(*key, *(statistics.median(column) / 1000 for column in zip(*times, strict=True)))
            for key, times in self.times.items()
        ]


class Cluster:
    """Five Raft objects without a network, of which the first leads; they are carried by whoever measures."""

    def __init__(self) -> None:
        configuration = Configuration(frozenset(range(1, SERVERS + 1)))
        self.rafts = {
            server: Raft(server, configuration, Options(), Random(server), Restored(), 0)
            for server in sorted(configuration.voters)
        }
        self.leader = self.rafts[LEADER]
        self.now_us = self.leader.deadline_us
        self.leader.step(Timeout(), self.now_us)
        self.settle()

    def settle(self) -> None:
        """Carry everything to where it belongs until nothing is left."""
        busy = True
        while busy:
            busy = False
            for server, raft in self.rafts.items():
                ready = raft.ready()
                messages = [*ready.messages, *ready.messages_after_save]
                busy = busy or bool(messages) or ready.must_save
                self.save(raft, ready)
                for outgoing in messages:
                    self.rafts[outgoing.to].step(Receive(server, outgoing.message), self.now_us)

    def save(self, raft: Raft, ready: Ready) -> None:
        """Say that what was to be saved has been."""
        if ready.must_save:
            run = ready.runs[-1] if ready.runs else None
            term, index = (run.term, run.last_index) if run is not None else (0, 0)
            raft.step(Persisted(term, index, ready.hard_state), self.now_us)


class Connections:
    """Clients of one server, each with its own connection over loopback."""

    def __init__(self, count: int) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=count) as listener:
            self.clients = [socket.create_connection(listener.getsockname()) for _ in range(count)]
            self.servers = [listener.accept()[0] for _ in range(count)]
        for each in (*self.clients, *self.servers):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._joint_sends = make_joint_sends() if count >= JOINT_MIN else None
        self._descriptors = [server.fileno() for server in self.servers]

    def reply(self, replies: list[bytes]) -> None:
        """Send each client its reply, as a server does."""
        if self._joint_sends is not None:
            self._joint_sends.send(self._descriptors, replies)
        else:
            for server, reply in zip(self.servers, replies, strict=True):
                server.send(reply)

    def close(self) -> None:
        """Close all of them."""
        for each in (*self.clients, *self.servers):
            each.close()
        if self._joint_sends is not None:
            self._joint_sends.close()


class Walk:
    """Takes so many requests at a time through all steps, again and again."""

    def __init__(self, requests: int, directory: Path, *, is_cold: bool = False) -> None:
        """``directory`` is where the log is written."""
        self.stopwatch = Stopwatch(COLD_BYTES if is_cold else 0)
        self._requests = requests
        self._connections = Connections(requests)
        self._link = Connections(1)
        self._cluster = Cluster()
        self._replica = Replica(StoreMachine(Store()))
        self._replica.apply(1, entries.encode_open_session(1, LEADER, 1))
        self._sequence = 0
        self._filesystem = OsFileSystem()
        name = f"steps-{requests}{'-cold' if is_cold else ''}"
        self._handle = self._filesystem.open(directory / name, OpenMode.CREATE)
        self._filesystem.append(self._handle, [bytes(LOG_BYTES_MAX)], 0)
        self._offset = 0
        self._reads = 0
        self._buffer = bytearray(_RECEIVE_BYTES)

    def close(self) -> None:
        """Close everything; the log's file is left where it is."""
        self._connections.close()
        self._link.close()
        self._filesystem.close(self._handle)

    def write(self) -> None:
        """One pass of writes."""
        step = self.stopwatch.step
        content = bytes(SIZE_BYTES)
        received = self._receive(WRITE, [b"write f%d %d\r\n%b\r\n" % (n, SIZE_BYTES, content) for n in self._numbers()])
        fields: list[Field] = []
        with step(WRITE, _PARSE, "leader"):
            for data in received:
                request = parse_whole(data, SIZE_BYTES)
                assert request is not None, "a whole request"
                fields += request  # type: ignore[arg-type]  # its content is bytes
        self._sequence += 1
        with step(WRITE, _ENCODE, "leader"):
            payload = encode_batch(fields)
            entry = entries.encode_batch(1, _SESSION, self._sequence, self._sequence - 1, payload)
        self._replicate(entry)
        with step(WRITE, _APPLY, "leader"):
            results = self._replica.machine.apply(1, _SESSION, payload)
            replies = [change_reply(result) for result in results]
        self._send(WRITE, replies)

    def read(self) -> None:
        """One pass of reads of what was written."""
        step, raft, now_us = self.stopwatch.step, self._cluster.leader, self._cluster.now_us
        received = self._receive(READ, [b"read f%d\r\n" % number for number in self._numbers()])
        with step(READ, _PARSE, "leader"):
            requests = [parse_whole(data, SIZE_BYTES) for data in received]
        self._reads += 1
        with step(READ, "consensus: a barrier, its round", "leader"):
            raft.step(ReadBarrier(self._reads), now_us)
            ready = raft.ready()
        answers = self._at_followers(READ, ready)
        self._take_answers(READ, answers)
        store = self._replica.machine
        assert isinstance(store, StoreMachine), "made above"
        with step(READ, _LOOK_UP, "leader"):
            replies: list[bytes] = []
            for request in requests:
                record = store.store.records.get(request.name) if request is not None else None
                assert record is not None, "it was written"
                reply = contents_reply(record, 1)
                assert isinstance(reply, bytes), "it is short"
                replies.append(reply)
        self._send(READ, replies)

    def _numbers(self) -> range:
        return range(self._requests)

    def _receive(self, path: str, datas: list[bytes]) -> list[bytes]:
        for client, data in zip(self._connections.clients, datas, strict=True):
            client.sendall(data)
        with self.stopwatch.step(path, _RECEIVE, "leader"):
            return [server.recv(_RECEIVE_BYTES) for server in self._connections.servers]

    def _send(self, path: str, replies: list[bytes]) -> None:
        with self.stopwatch.step(path, _SEND, "leader"):
            self._connections.reply(replies)
        for client in self._connections.clients:
            client.recv(_RECEIVE_BYTES)

    def _replicate(self, entry: bytes) -> None:
        step, cluster = self.stopwatch.step, self._cluster
        raft = cluster.leader
        with step(WRITE, "consensus: append, whom to send to", "leader"):
            raft.step(Submit((entry,), frozenset()), cluster.now_us)
            ready = raft.ready()
        self._save(ready.runs, "leader")
        cluster.save(raft, ready)
        answers = self._at_followers(WRITE, ready)
        self._take_answers(WRITE, answers)
        cluster.settle()

    def _at_followers(self, path: str, ready: Ready) -> list[tuple[int, bytes]]:
        """Encode, send, receive and decode the leader's message once, and have two followers answer it."""
        step, cluster = self.stopwatch.step, self._cluster
        messages = {outgoing.to: outgoing.message for outgoing in ready.messages}
        message = messages[ACKNOWLEDGING[0]]
        with step(path, "encode the message", "leader"):
            data = codec.encode(message, 1, 0)
        with step(path, "send it to two followers (system calls)", "leader"):
            for _ in ACKNOWLEDGING:
                self._link.clients[0].sendall(data)
        missing_bytes = len(data) * len(ACKNOWLEDGING)
        with step(path, "receive the messages of both (system call)", "follower"):
            while missing_bytes:
                missing_bytes -= self._link.servers[0].recv_into(self._buffer)
        answers = []
        for number, server in enumerate(ACKNOWLEDGING):
            is_timed = not number
            watch = self.stopwatch if is_timed else Stopwatch()
            answers.append((server, self._answer(path, server, data, watch)))
        for server in self._cluster.rafts:
            if server not in (LEADER, *ACKNOWLEDGING):
                cluster.rafts[server].step(Receive(LEADER, messages[server]), cluster.now_us)
        return answers

    def _answer(self, path: str, server: int, data: bytes, watch: Stopwatch) -> bytes:
        """What a follower does with a message."""
        raft, now_us = self._cluster.rafts[server], self._cluster.now_us
        with watch.step(path, "decode the message", "follower"):
            message: Message = codec.decode(data).message  # type: ignore[assignment]  # no proposals
        with watch.step(path, "consensus: check, append", "follower"):
            raft.step(Receive(LEADER, message), now_us)
            ready = raft.ready()
        if ready.runs and watch is self.stopwatch:
            self._save(ready.runs, "follower")
        with watch.step(path, "consensus: it is saved; encode and send the answer (system call)", "follower"):
            self._cluster.save(raft, ready)
            outgoing = [*ready.messages, *ready.messages_after_save, *raft.ready().messages][0]
            answer = codec.encode(outgoing.message, 1, 0)
            self._link.servers[0].send(answer)
        self._link.clients[0].recv(_RECEIVE_BYTES)
        return answer

    def _take_answers(self, path: str, answers: list[tuple[int, bytes]]) -> None:
        raft, now_us = self._cluster.leader, self._cluster.now_us
        with self.stopwatch.step(path, "two answers: decode, consensus", "leader"):
            for server, answer in answers:
                message: Message = codec.decode(answer).message  # type: ignore[assignment]  # no proposals
                raft.step(Receive(server, message), now_us)
                raft.ready()

    def _save(self, runs: list[EntriesRun], where: str) -> None:
        with self.stopwatch.step(WRITE, "lay out the log's frame", where):
            body = encode_body(None, runs)
            _, buffers = seal(body, 1, 2, 3)
        with self.stopwatch.step(WRITE, "write and flush the log (system call)", where):
            self._filesystem.append(self._handle, buffers, self._offset)
        self._offset += body.frame_bytes
        if self._offset > LOG_BYTES_MAX - (1 << 20):
            self._offset = 0


def costs(requests: int, passes: int, directory: Path, *, is_cold: bool = False) -> list[StepCost]:
    """The cost of every step for so many requests at a time, with warm or cold caches. Raises OSError."""
    walk = Walk(requests, directory, is_cold=is_cold)
    try:
        for _ in range(passes):
            walk.write()
            walk.read()
    finally:
        walk.close()
    return walk.stopwatch.costs()
