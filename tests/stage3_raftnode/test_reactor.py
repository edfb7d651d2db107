"""The reactor: sources are served, turns taken when they are due, other tasks not held up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import attrs
import pytest
import trio
import trio.lowlevel
import trio.testing

from raftnode import reactor as reactor_module
from raftnode.polling import READABLE, SelectorPoller, make_poller
from raftnode.reactor import LINGER_US, SLICE_US, Reactor
from raftnode.sleeping import make_sleeper
from raftnode.trio_runtime import monotonic_us


@pytest.fixture(params=[make_poller, SelectorPoller], ids=["best poller", "portable poller"], autouse=True)
def _poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor_module, "make_poller", request.param)


@attrs.define
class Pipe:
    """A source: what it was served stands in ``got``."""

    reading: int
    writing: int
    got: list[bytes] = attrs.field(factory=list)

    def serve(self) -> None:
        self.got.append(os.read(self.reading, 100))

    def write(self, data: bytes) -> None:
        os.write(self.writing, data)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe(*os.pipe())
    yield made
    os.close(made.reading)
    os.close(made.writing)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_a_source_is_served_when_it_has_something_and_no_turn_is_taken_for_it(
    nursery: trio.Nursery, pipe: Pipe
) -> None:
    turns: list[int] = []
    reactor = Reactor(now_us=monotonic_us, turn=lambda: turns.append(1))
    reactor.add(pipe.reading, pipe.serve)
    nursery.start_soon(reactor.run)
    pipe.write(b"one")
    await until(lambda: pipe.got == [b"one"])
    pipe.write(b"two")
    await until(lambda: pipe.got == [b"one", b"two"])
    assert not turns


async def test_sources_that_are_ready_together_share_a_turn(nursery: trio.Nursery, pipe: Pipe) -> None:
    other = Pipe(*os.pipe())
    served_at_turn: list[int] = []
    reactor = Reactor(now_us=monotonic_us, turn=lambda: served_at_turn.append(len(pipe.got) + len(other.got)))

    def serve(source: Pipe) -> None:
        source.serve()
        reactor.wake()

    reactor.add(pipe.reading, lambda: serve(pipe))
    reactor.add(other.reading, lambda: serve(other))
    pipe.write(b"x")
    other.write(b"y")
    nursery.start_soon(reactor.run)
    await until(lambda: bool(served_at_turn))
    await trio.testing.wait_all_tasks_blocked()
    assert served_at_turn == [2]
    nursery.cancel_scope.cancel()
    os.close(other.reading)
    os.close(other.writing)


async def test_what_is_ready_of_the_crowd_is_handed_over_together(nursery: trio.Nursery, pipe: Pipe) -> None:
    other, source = Pipe(*os.pipe()), Pipe(*os.pipe())
    passes: list[set[int]] = []
    reactor = Reactor(now_us=monotonic_us)

    def serve(ready: list[tuple[int, int]]) -> None:
        passes.append({fd for fd, mask in ready if mask & READABLE})
        for fd, _ in ready:
            os.read(fd, 100)

    reactor.serve_crowd(serve)
    reactor.add(source.reading, source.serve)
    for each in (pipe, other):
        reactor.poller.register(each.reading, READABLE)
    for each in (pipe, other, source):
        each.write(b"x")
    nursery.start_soon(reactor.run)
    await until(lambda: bool(passes and source.got))
    pipe.write(b"y")
    await until(lambda: len(passes) == 2)
    assert passes == [{pipe.reading, other.reading}, {pipe.reading}]
    for each in (pipe, other):
        reactor.poller.unregister(each.reading)
    reactor.serve_crowd(None)
    nursery.cancel_scope.cancel()
    for each in (other, source):
        os.close(each.reading)
        os.close(each.writing)


async def test_the_crowd_is_not_troubled_by_deadlines(nursery: trio.Nursery) -> None:
    begun_us = monotonic_us()
    turns: list[int] = []
    passes: list[object] = []
    reactor = Reactor(
        now_us=monotonic_us,
        turn=lambda: turns.append(monotonic_us()),
        deadline_us=lambda: begun_us + (len(turns) + 1) * 2 * LINGER_US,
        make_sleeper=make_sleeper,
    )
    reactor.serve_crowd(passes.append)
    nursery.start_soon(reactor.run)
    await until(lambda: len(turns) >= 3)
    assert not passes


async def test_waking_it_interrupts_its_sleep(nursery: trio.Nursery) -> None:
    turns: list[int] = []
    reactor = Reactor(now_us=monotonic_us, turn=lambda: turns.append(1))
    nursery.start_soon(reactor.run)
    await trio.testing.wait_all_tasks_blocked()
    reactor.wake()
    await trio.testing.wait_all_tasks_blocked()
    assert turns == [1]


async def test_a_turn_that_asks_for_another_gets_one(nursery: trio.Nursery) -> None:
    left = [3]

    def turn() -> None:
        left[0] -= 1
        if left[0]:
            reactor.wake()

    reactor = Reactor(now_us=monotonic_us, turn=turn)
    nursery.start_soon(reactor.run)
    reactor.wake()
    await trio.testing.wait_all_tasks_blocked()
    assert left == [0]


async def test_a_turn_is_taken_when_the_deadline_has_come(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    begun_us = monotonic_us()
    deadlines_us = [begun_us + 1_000_000, begun_us + 5_000_000]
    taken_us: list[int] = []

    def turn() -> None:
        taken_us.append(monotonic_us())
        deadlines_us.pop(0)

    reactor = Reactor(
        now_us=monotonic_us, turn=turn, deadline_us=lambda: deadlines_us[0] if deadlines_us else begun_us + 10**12
    )
    nursery.start_soon(reactor.run)
    await trio.sleep(6)
    assert taken_us == [begun_us + 1_000_000, begun_us + 5_000_000]


async def test_a_source_that_another_one_removes_is_not_served(nursery: trio.Nursery, pipe: Pipe) -> None:
    other = Pipe(*os.pipe())
    reactor = Reactor(now_us=monotonic_us)

    def serve(source: Pipe, removed: Pipe) -> None:
        source.serve()
        reactor.remove(removed.reading)

    reactor.add(pipe.reading, lambda: serve(pipe, other))
    reactor.add(other.reading, lambda: serve(other, pipe))
    pipe.write(b"x")
    other.write(b"y")
    nursery.start_soon(reactor.run)
    await until(lambda: bool(pipe.got or other.got))
    await trio.testing.wait_all_tasks_blocked()
    assert len(pipe.got) + len(other.got) == 1
    nursery.cancel_scope.cancel()
    os.close(other.reading)
    os.close(other.writing)


async def test_other_tasks_run_while_it_is_kept_busy(nursery: trio.Nursery, pipe: Pipe) -> None:
    others: list[int] = []
    reactor = Reactor(now_us=monotonic_us, turn=lambda: None)

    def serve() -> None:
        reactor.wake()  # And the pipe is left full: there is always something to do.

    reactor.add(pipe.reading, serve)
    pipe.write(b"x")
    nursery.start_soon(reactor.run)
    for number in range(20):
        await trio.sleep(SLICE_US / 1e6)
        others.append(number)
    assert len(others) == 20


class Clock:
    """Microseconds that pass by a wish of the test's, and none by themselves."""

    def __init__(self) -> None:
        self.us = 0

    def __call__(self) -> int:
        return self.us


async def test_it_lingers_only_while_events_come_fast_and_nothing_speaks_against_it(pipe: Pipe) -> None:
    clock = Clock()
    allowed = [True]
    lingered: list[float] = []
    reactor = Reactor(now_us=clock, may_linger=lambda: allowed[0])
    reactor.add(pipe.reading, pipe.serve)
    poll = reactor.poller.poll

    class Watched:
        """The reactor's poller, with every wait noted."""

        def poll(self, timeout: float, count: int) -> list[tuple[int, int]]:
            if timeout:
                lingered.append(timeout)
            return poll(0, count)

        def fileno(self) -> int:
            return descriptor

    descriptor = reactor.poller.fileno()
    reactor.poller = Watched()  # type: ignore[assignment]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.testing.wait_all_tasks_blocked()
        assert not lingered  # nothing has come yet: it sleeps by Trio
        pipe.write(b"one")
        await until(lambda: pipe.got == [b"one"])
        await trio.testing.wait_all_tasks_blocked()
        assert not lingered  # that came at once, but a single one says nothing
        pipe.write(b"two")
        await until(lambda: len(pipe.got) == 2)
        await until(lambda: lingered == [LINGER_US / 1e6])  # so did the next; then nothing did
        await trio.testing.wait_all_tasks_blocked()
        assert len(lingered) == 1
        allowed[0] = False
        pipe.write(b"three")
        await until(lambda: len(pipe.got) == 3)
        await trio.testing.wait_all_tasks_blocked()
        assert len(lingered) == 1
        nursery.cancel_scope.cancel()


async def test_it_gives_way_before_it_looks_for_more_but_not_when_it_was_idle(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    gave_way: list[int] = []
    turns: list[int] = []
    monkeypatch.setattr(reactor_module, "give_way", lambda: gave_way.append(len(turns)))

    def turn() -> None:
        turns.append(1)
        if len(turns) == 1:
            reactor.wake()

    clock = Clock()
    reactor = Reactor(now_us=clock, turn=turn)
    reactor.add(pipe.reading, pipe.serve)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reactor.run)
        await trio.testing.wait_all_tasks_blocked()
        pipe.write(b"one")
        await until(lambda: pipe.got == [b"one"])
        await trio.testing.wait_all_tasks_blocked()
        assert not gave_way
        clock.us += LINGER_US  # So what comes now hasn't come fast.
        reactor.wake()
        await until(lambda: len(turns) == 2)
        await trio.testing.wait_all_tasks_blocked()
        assert gave_way == [1], "between the turn and the one that it asked for"
        nursery.cancel_scope.cancel()
    reactor.close()
