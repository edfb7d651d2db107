"""Many sockets, one system call: real ones, full ones, broken ones, and systems that don't have it."""

from __future__ import annotations

import errno
import platform
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from raftnode import joint_sends
from raftnode.joint_sends import SOCKETS_MAX, JointSends, make_joint_sends

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"),
    reason="this system has no such call",
)


class Pairs:
    """Connections over TCP, within this process."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def make(self) -> tuple[socket.socket, socket.socket]:
        """One that sends, and doesn't block, and one that receives, in a hurry."""
        receiver = self._stack.enter_context(socket.create_connection(self._listener.getsockname()))
        receiver.settimeout(30)
        sender = self._stack.enter_context(self._listener.accept()[0])
        sender.setblocking(False)
        return sender, receiver


@pytest.fixture
def pairs() -> Iterator[Pairs]:
    with ExitStack() as stack:
        yield Pairs(stack)


@pytest.fixture
def joint() -> Iterator[JointSends]:
    sends = JointSends()
    yield sends
    sends.close()


def received(receiver: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        piece = receiver.recv(size_bytes - len(data))
        assert piece, "the end came early"
        data += piece
    return data


def test_each_gets_its_own(pairs: Pairs, joint: JointSends) -> None:
    connections = [pairs.make() for _ in range(SOCKETS_MAX)]
    for turn in range(3):
        datas = [b"%d of turn %d" % (number, turn) * (1 + number % 7) for number in range(SOCKETS_MAX)]
        sent = joint.send([sender.fileno() for sender, _ in connections], datas)
        assert sent == [len(data) for data in datas]
        for (_, receiver), data in zip(connections, datas, strict=True):
            assert received(receiver, len(data)) == data


def test_one_and_any_buffer(pairs: Pairs, joint: JointSends) -> None:
    sender, receiver = pairs.make()
    assert joint.send([sender.fileno()], [memoryview(b"abcdef")[2:]]) == [4]
    assert received(receiver, 4) == b"cdef"


def test_a_full_socket_takes_what_it_has_room_for(pairs: Pairs, joint: JointSends) -> None:
    sender, receiver = pairs.make()
    other, other_receiver = pairs.make()
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    data = bytes(range(256)) * 1024
    taken = 0
    counts: list[int] = []
    while -errno.EAGAIN not in counts:
        counts.append(joint.send([sender.fileno(), other.fileno()], [data[taken:], b"x"])[0])
        taken += max(counts[-1], 0)
        assert received(other_receiver, 1) == b"x"
    assert 0 < taken < len(data)
    assert received(receiver, taken) == data[:taken]


def test_broken_ones_have_sent_nothing(pairs: Pairs, joint: JointSends) -> None:
    """What follows a descriptor that is none isn't sent either: who sends it alone will see that it can be."""
    (first, receiver), (broken, vanished), (last, _) = (pairs.make() for _ in range(3))
    vanished.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    vanished.close()
    assert joint.send([broken.fileno(), first.fileno()], [b"nobody", b"abc"]) == [-errno.ECONNRESET, 3]
    assert joint.send([broken.fileno()], [b"nobody"]) == [-errno.EPIPE]
    assert received(receiver, 3) == b"abc"
    closed = last.fileno()
    last.close()
    assert joint.send([first.fileno(), closed, first.fileno()], [b"abc", b"nobody", b"def"]) == [3, 0, 0]
    assert joint.send([closed, first.fileno()], [b"nobody", b"def"]) == [0, 0]
    assert joint.send([first.fileno()], [b"def"]) == [3]
    assert received(receiver, 6) == b"abcdef"


def test_closed_it_sends_nothing(pairs: Pairs) -> None:
    sender, _ = pairs.make()
    sends = JointSends()
    sends.close()
    assert sends.send([sender.fileno()], [b"abc"]) == [0]


@pytest.mark.parametrize(("where", "name", "value"), [(platform, "machine", lambda: "vax"), (sys, "byteorder", "big")])
def test_a_system_that_is_not_known(monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object) -> None:
    monkeypatch.setattr(where, name, value)
    assert make_joint_sends() is None


def test_a_system_that_has_no_more_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint_sends, "SOCKETS_MAX", 1 << 24)
    with pytest.raises(OSError, match="io_setup"):
        JointSends()
    assert make_joint_sends() is None
