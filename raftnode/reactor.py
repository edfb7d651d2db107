"""One task that waits for all that keeps a server busy: clients, other servers, and the node's own deadlines.

Theory of operation
-------------------
A task of Trio's for each poller, and one for the node, would each be woken by itself, though mostly the news are of
one kind: messages and requests that share a turn of the node. So one reactor waits for all of them with one poller. The
links to other servers are its *sources*, each served by itself; all clients are the *crowd*: what is ready of these is
served in one pass. Each takes all there is and hands it to the node; then the node takes one turn for all of it.

A busy server waits for less than a millisecond, and to wait by Trio's scheduler costs several times what the reactor's
own poller takes. So while events come that fast, the reactor *lingers*: it waits in its own poller for up to
``LINGER_US``, during which no other task runs. It does so only when no other task could run now, and when no blocking
call is under way in a thread, whose end only Trio would see. Nothing at all is missed so; what else comes (a timer of
another task, an HTTP request) comes later by that time at most. An idle server waits by Trio alone
(:mod:`raftnode.sleeping`).

Other tasks have their turn when one can run, for which it looks every ``LOOK_US``, and every ``SLICE_US`` in any
case; and whenever the reactor waits by Trio.

Before a busy server looks whether more has come while it was at work, it gives way (:mod:`raftnode.giving_way`). One
that was waiting looks at once; and if it was idle, it waits by Trio again after its turn without another look.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from raftnode.giving_way import give_way
from raftnode.polling import READABLE, Poller, make_poller
from raftnode.sleeping import ScopeSleeper, Sleeper

LINGER_US = 2_000
SLICE_US = 5_000
LOOK_US = 2_000
_NEVER_US = 1 << 62
_READY_MAX = 128
"""More than so many would be served too, later."""

Serve = Callable[[], None]
"""Takes what a source has. It must not wait."""
ServeCrowd = Callable[[list[tuple[int, int]]], None]
"""Takes what these descriptors, each with its mask, have. It must not wait."""


def _nothing() -> None:
    """Take no turn."""


def _nobody(_ready: list[tuple[int, int]]) -> None:
    """Serve no crowd."""


def _never() -> int:
    """Have no deadline."""
    return _NEVER_US


def _always() -> bool:
    """Have nothing to say against it."""
    return True


@attrs.define(slots=True, kw_only=True, eq=False)
class Reactor:
    """See the module's docstring. Waits for nothing until ``run``."""

    now_us: Callable[[], int]
    """The clock that deadlines are read from: microseconds of Trio's."""
    turn: Callable[[], None] = _nothing
    """Called after sources were served, if one of them called ``wake``, and when the deadline has come."""
    deadline_us: Callable[[], int] = _never
    """When a turn is due though nothing comes."""
    may_linger: Callable[[], bool] = _always
    _make_sleeper: Callable[[Poller], Sleeper] = ScopeSleeper
    poller: Poller = attrs.field(init=False)
    """Where the crowd's descriptors are registered, by whoever serves it."""
    _sources: dict[int, Serve] = attrs.field(factory=dict, init=False)
    """By their descriptors."""
    _crowd: ServeCrowd = attrs.field(default=_nobody, init=False)
    _turn_is_due: bool = attrs.field(default=False, init=False)
    _sleeper: Sleeper = attrs.field(init=False)
    _is_busy: bool = attrs.field(default=False, init=False)
    """Events come so fast that it pays to linger."""
    _was_quick: bool = attrs.field(default=False, init=False)
    """The last event that was waited for by Trio came soon."""

    def __attrs_post_init__(self) -> None:
        self.poller = make_poller()
        self._sleeper = self._make_sleeper(self.poller)
        if self._sleeper.descriptor is not None:
            self._sources[self._sleeper.descriptor] = _nothing

    def add(self, fd: int, serve: Serve) -> None:
        """Call ``serve`` whenever that descriptor is readable."""
        self._sources[fd] = serve
        self.poller.register(fd, READABLE)

    def remove(self, fd: int) -> None:
        """No longer look at a source."""
        del self._sources[fd]
        self.poller.unregister(fd)

    def serve_crowd(self, serve: ServeCrowd | None) -> None:
        """Call ``serve`` with all that is ready of what was registered at the poller itself; with None, nobody.

        Among it may be what has just been unregistered.
        """
        self._crowd = serve or _nobody

    def wake(self) -> None:
        """Have a turn taken, soon. May be called from within a turn, and from any task of the same thread."""
        self._turn_is_due = True
        self._sleeper.end()

    def look_again(self) -> None:
        """The deadline may have come closer. May be called as ``wake`` may."""
        self._sleeper.end()

    def close(self) -> None:
        """Let go of its own poller, once all sources are removed."""
        self._sleeper.close()
        self.poller.close()

    async def run(self) -> None:
        """Serve until cancelled."""
        sources = self._sources
        others_ran_us = others_looked_us = self.now_us()
        while True:
            ready: list[tuple[int, int]] = []
            if self._is_busy or self._turn_is_due:
                give_way()
                ready = self._ready_now()
            if not ready and not self._turn_is_due:
                if self._is_busy and self.may_linger():
                    ready = self._linger()
                else:
                    if await self._sleep():
                        others_ran_us = others_looked_us = self.now_us()
                    ready = self._ready_now()
            crowd: list[tuple[int, int]] = []
            for event in ready:
                serve = sources.get(event[0])
                if serve is None:
                    crowd.append(event)
                else:
                    serve()
            if crowd:
                self._crowd(crowd)
            if self._turn_is_due or self.now_us() >= self.deadline_us():
                self._turn_is_due = False
                self.turn()
            now_us = self.now_us()
            if now_us >= others_looked_us + LOOK_US:
                others_looked_us = now_us
                if now_us >= others_ran_us + SLICE_US or _others_can_run():
                    await trio.lowlevel.checkpoint()
                    others_ran_us = now_us

    def _ready_now(self) -> list[tuple[int, int]]:
        return self.poller.poll(0, _READY_MAX)

    def _linger(self) -> list[tuple[int, int]]:
        """Wait in the own poller until a source is ready, or the deadline has come, or for a little while."""
        left_us = self.deadline_us() - self.now_us()
        if left_us <= 0:
            return self._ready_now()
        ready = self.poller.poll(min(left_us, LINGER_US) / 1e6, _READY_MAX)
        self._is_busy = bool(ready)
        return ready

    async def _sleep(self) -> bool:
        """Wait by Trio until a source is ready, a turn is due, or the deadline has come; False if it has already."""
        begun_us = self.now_us()
        deadline_us = self.deadline_us()
        if deadline_us <= begun_us:
            return False
        await self._sleeper.sleep(deadline_us - begun_us)
        # Twice in a row: a single quick event, as the answer to a heartbeat, isn't followed by another.
        was_quick, self._was_quick = self._was_quick, self.now_us() < begun_us + LINGER_US
        self._is_busy = was_quick and self._was_quick
        return True


def _others_can_run() -> bool:
    """Whether a task would run if this one gave way to it."""
    return trio.lowlevel.current_statistics().tasks_runnable > 0
