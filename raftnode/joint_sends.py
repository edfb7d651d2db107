"""Sending to many sockets by one system call.

Theory of operation
-------------------
What is sent to another process of the same machine wakes it, and the one that is woken mostly gets the sender's core at
the end of that system call, as it has slept and the sender has worked. So a server that answers many clients by a call
each is interrupted after each reply, and whoever reads the replies gets one at a time. By one call for all of them the
server is through with its replies before anybody else has its core, and they are read together.

Linux takes many requests to read or write by one call, ``io_submit``, and carries those for sockets out at once; a
socket that doesn't block takes what it has room for, as it does of ``send``. ``io_getevents`` then says what came of
each. (It is the interface of libaio, older than io_uring, which administrators often forbid.)

Where the system has none of it, or no more of it to give, :func:`make_joint_sends` says so, and one sends singly.

Source: io_submit(2), io_getevents(2), and ``struct iocb`` and ``struct io_event`` of <linux/aio_abi.h>.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import attrs

from raftnode.buffers import Chunk

SOCKETS_MAX: Final = 128
"""So many sockets go by one call."""
ROOM_BYTES: Final = 512 * 1024
"""How much goes by one call."""

_REQUEST_WORDS: Final = 8
"""``struct iocb`` has so many words of 64 bits: what is told with its outcome, flags, descriptor and operation,
address, size, and three that are 0 here."""
_EVENT_WORDS: Final = 4
"""``struct io_event`` has so many: what was told, the request's address, its outcome, and one more."""
_WRITE: Final = 1
"""IOCB_CMD_PWRITE."""
_DESCRIPTOR_SHIFT: Final = 32


@attrs.frozen(slots=True)
class _Numbers:
    """Of the system calls, which have no functions in the C library."""

    setup: int
    destroy: int
    submit: int
    get_events: int


_GENERIC: Final = _Numbers(setup=0, destroy=1, submit=2, get_events=4)
_NUMBERS: Final = {"x86_64": _Numbers(setup=206, destroy=207, submit=209, get_events=208), "aarch64": _GENERIC}


class JointSends:
    """See the module's docstring. For one thread at a time."""

    def __init__(self) -> None:
        """Have the system get ready.

        Raises:
            OSError: it has no such calls, or others use up what it has.
        """
        numbers = _numbers()
        self._call: Final = ctypes.CDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        context = ctypes.c_ulong(0)
        if self._call(ctypes.c_long(numbers.setup), ctypes.c_long(SOCKETS_MAX), ctypes.byref(context)) < 0:
            raise _last_error("io_setup")
        self._room: Final = mmap.mmap(-1, ROOM_BYTES)
        """What is being sent, one behind the other."""
        self._room_address: Final = ctypes.addressof(ctypes.c_char.from_buffer(self._room))
        self._requests: Final = array("Q", bytes(8 * _REQUEST_WORDS * SOCKETS_MAX))
        first = self._requests.buffer_info()[0]
        self._pointers: Final = array("Q", range(first, first + 8 * _REQUEST_WORDS * SOCKETS_MAX, 8 * _REQUEST_WORDS))
        self._requests[0::_REQUEST_WORDS] = array("Q", range(SOCKETS_MAX))
        self._events: Final = array("q", bytes(8 * _EVENT_WORDS * SOCKETS_MAX))
        self._context: Final = context
        self._destroy: Final = ctypes.c_long(numbers.destroy)
        self._submit: Final = ctypes.c_long(numbers.submit)
        self._get_events: Final = ctypes.c_long(numbers.get_events)
        self._pointers_address: Final = ctypes.c_void_p(self._pointers.buffer_info()[0])
        self._events_address: Final = ctypes.c_void_p(self._events.buffer_info()[0])

    def close(self) -> None:
        """Give back what the system has got ready; nothing is sent afterwards."""
        self._call(self._destroy, self._context)

    def send(self, sockets: Sequence[int], datas: Sequence[Chunk]) -> list[int]:
        """Send each of these data to the socket in the same place, as far as it takes them without waiting.

        Args:
            sockets: descriptors, at least one and at most `SOCKETS_MAX`, none of which blocks.
            datas: as many, of `ROOM_BYTES` together at most.

        Returns:
            How many bytes each has taken. Negative for one that took none: the number of the error, with EAGAIN for one
            that is full. 0 if it wasn't come to, which is so behind a descriptor that is none.
        """
        room = b"".join(datas)
        self._room[: len(room)] = room
        count = len(datas)
        sizes = array("Q", map(len, datas))
        end = count * _REQUEST_WORDS
        requests = self._requests
        requests[2:end:_REQUEST_WORDS] = array("Q", [fd << _DESCRIPTOR_SHIFT | _WRITE for fd in sockets])
        requests[3:end:_REQUEST_WORDS] = array("Q", accumulate(sizes[:-1], initial=self._room_address))
        requests[4:end:_REQUEST_WORDS] = sizes
        submitted = max(self._call(self._submit, self._context, ctypes.c_long(count), self._pointers_address), 0)
        return self._outcomes(count, submitted)

    def _outcomes(self, count: int, submitted: int) -> list[int]:
        """What came of the requests of which so many were taken."""
        sent_bytes = [0] * count
        missing = submitted
        while missing:
            wanted = ctypes.c_long(missing)
            got = self._call(self._get_events, self._context, wanted, wanted, self._events_address, None)
            if got < 0:
                if ctypes.get_errno() == errno.EINTR:
                    continue
                raise _last_error("io_getevents")
            end = got * _EVENT_WORDS
            for place, outcome in zip(self._events[0:end:_EVENT_WORDS], self._events[2:end:_EVENT_WORDS], strict=True):
                sent_bytes[place] = outcome
            missing -= got
        return sent_bytes


def _numbers() -> _Numbers:
    numbers = _NUMBERS.get(platform.machine())
    has_these_words = sys.maxsize == 2**63 - 1 and sys.byteorder == "little"
    if numbers is None or not has_these_words or not sys.platform.startswith("linux"):
        raise OSError(errno.ENOSYS, "io_submit isn't known for this system")
    return numbers


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def make_joint_sends() -> JointSends | None:
    """Make them, if this system has what they need."""
    with contextlib.suppress(OSError, AttributeError):
        return JointSends()
    return None
