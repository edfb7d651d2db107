"""Sleeping beside a poller: whatever there is to wake for ends it, and nothing else."""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from raftnode.polling import READABLE, Poller, SelectorPoller, make_poller
from raftnode.sleeping import ScopeSleeper, Sleeper, TimerSleeper, make_sleeper

LONG_US = 3_600_000_000
SHORT_US = 1_000
has_timers = hasattr(select, "epoll")


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = make_poller()
    yield made
    made.close()


@pytest.fixture(params=["scope", pytest.param("timer", marks=pytest.mark.skipif(not has_timers, reason="no timers"))])
def sleeper(request: pytest.FixtureRequest, poller: Poller) -> Iterator[Sleeper]:
    made: Sleeper = ScopeSleeper(poller) if request.param == "scope" else TimerSleeper(poller)
    yield made
    made.close()


async def test_it_ends_when_the_time_has_passed_again_and_again(sleeper: Sleeper) -> None:
    with trio.fail_after(30):
        for _ in range(5):
            begun = trio.current_time()
            await sleeper.sleep(SHORT_US)
            assert trio.current_time() >= begun + SHORT_US / 1e6


async def test_it_ends_when_the_poller_has_something(poller: Poller, sleeper: Sleeper, nursery: trio.Nursery) -> None:
    reading, writing = os.pipe()
    poller.register(reading, READABLE)
    nursery.start_soon(sleeper.sleep, LONG_US)
    await trio.testing.wait_all_tasks_blocked()
    os.write(writing, b"x")
    with trio.fail_after(30):
        while nursery.child_tasks:
            await trio.testing.wait_all_tasks_blocked()
    assert (reading, READABLE) in poller.poll(0, 10)
    poller.unregister(reading)
    os.close(reading)
    os.close(writing)


async def test_another_task_ends_it(sleeper: Sleeper, nursery: trio.Nursery) -> None:
    sleeper.end()  # Nobody sleeps: it has no meaning, not even for the next time.
    nursery.start_soon(sleeper.sleep, LONG_US)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert nursery.child_tasks
    sleeper.end()
    with trio.fail_after(30):
        while nursery.child_tasks:
            await trio.testing.wait_all_tasks_blocked()


async def test_it_can_be_cancelled_and_used_again(sleeper: Sleeper, nursery: trio.Nursery) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await sleeper.sleep(LONG_US)
    assert scope.cancelled_caught
    with trio.fail_after(30):
        await sleeper.sleep(SHORT_US)


@pytest.mark.skipif(not has_timers, reason="no timers")
async def test_a_timer_that_has_run_out_is_told_of_once_and_runs_again_when_it_is_set_again(poller: Poller) -> None:
    sleeper = TimerSleeper(poller)
    for _ in range(2):
        with trio.fail_after(30):
            await sleeper.sleep(SHORT_US)
        assert len(poller.poll(0, 10)) == 1
        assert poller.poll(0, 10) == [], "else whoever is busy would be told of it for ever"
    sleeper.close()


async def test_scopes_run_by_the_clock_of_a_test(poller: Poller, autojump_clock: trio.testing.MockClock) -> None:
    begun = trio.current_time()
    await ScopeSleeper(poller).sleep(LONG_US)
    assert trio.current_time() - begun == LONG_US / 1e6


class TestMaking:
    def test_timers_are_the_best(self, poller: Poller) -> None:
        made = make_sleeper(poller)
        assert isinstance(made, TimerSleeper if has_timers else ScopeSleeper)
        made.close()

    def test_where_there_are_none_it_goes_by_scopes(self, monkeypatch: pytest.MonkeyPatch, poller: Poller) -> None:
        def no_library(*_arguments: object, **_names: object) -> object:
            return object()

        monkeypatch.setattr(ctypes, "CDLL", no_library)
        assert isinstance(make_sleeper(poller), ScopeSleeper)

    def test_where_the_kernel_makes_none_it_goes_by_scopes(
        self, monkeypatch: pytest.MonkeyPatch, poller: Poller
    ) -> None:
        class Library:
            """Knows the calls, and is refused them."""

            def __init__(self, *_arguments: object, **_names: object) -> None:
                self.timerfd_settime = None

            def timerfd_create(self, *_arguments: int) -> int:
                return -1

        monkeypatch.setattr(ctypes, "CDLL", Library)
        assert isinstance(make_sleeper(poller), ScopeSleeper)

    def test_a_poller_that_isn_t_the_kernel_s_own_gets_scopes(self) -> None:
        assert isinstance(make_sleeper(SelectorPoller()), ScopeSleeper)
