"""Which sockets are ready, for many sockets at once.

On Linux this is ``select.epoll`` itself, whose ``poll`` makes its whole list in C; elsewhere :class:`SelectorPoller`
gives ``selectors.DefaultSelector`` the same face, at about half a microsecond more per event. Both have a file
descriptor that is readable whenever a socket is ready, so that Trio can wait for it. Level-triggered.
"""

from __future__ import annotations

import select
import selectors
from typing import Final, Protocol

READABLE: Final = 1
"""There are bytes, a connection to accept, an end or an error; the value is EPOLLIN's."""
WRITABLE: Final = 4
"""There is room in the socket's buffer; the value is EPOLLOUT's."""


class Poller(Protocol):
    """The part of ``select.epoll`` that is used here. A mask is a sum of `READABLE` and `WRITABLE`, or 0."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Begin to watch a file descriptor."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Watch it for something else."""

    def unregister(self, fd: int, /) -> None:
        """Watch it no more."""

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Give at most so many ready descriptors with what they are ready for, other bits than the two included."""

    def fileno(self) -> int:
        """Give a descriptor that is readable when `poll` has something to give."""

    def close(self) -> None:
        """Let go of everything."""


class SelectorPoller:
    """A :class:`Poller` for systems without epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._unwatched: set[int] = set()  # Registered with the mask 0, which selectors don't take.

    def register(self, fd: int, eventmask: int, /) -> None:
        """Begin to watch a file descriptor."""
        if eventmask:
            self._selector.register(fd, _to_selector(eventmask))
        else:
            self._unwatched.add(fd)

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Watch it for something else."""
        self.unregister(fd)
        self.register(fd, eventmask)

    def unregister(self, fd: int, /) -> None:
        """Watch it no more."""
        if fd in self._unwatched:
            self._unwatched.remove(fd)
        else:
            self._selector.unregister(fd)

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Give at most so many ready descriptors with what they are ready for."""
        ready = self._selector.select(timeout)
        return [(key.fd, _from_selector(events)) for key, events in ready[:maxevents]]

    def fileno(self) -> int:
        """Give a descriptor that is readable when `poll` has something to give."""
        fileno: int = self._selector.fileno()
        return fileno

    def close(self) -> None:
        """Let go of everything."""
        self._selector.close()


def _to_selector(mask: int) -> int:
    events = selectors.EVENT_READ if mask & READABLE else 0
    return events | selectors.EVENT_WRITE if mask & WRITABLE else events


def _from_selector(events: int) -> int:
    mask = READABLE if events & selectors.EVENT_READ else 0
    return mask | WRITABLE if events & selectors.EVENT_WRITE else mask


def make_poller() -> Poller:
    """Make the best one that this system has."""
    return select.epoll() if hasattr(select, "epoll") else SelectorPoller()
