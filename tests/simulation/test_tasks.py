"""Coroutines on simulated time: signals, deadlines, blocking calls, and tasks that are dropped where they stand."""

from collections.abc import Callable

import attrs
import pytest

from fileserver.simulation.clocks import SkewedClock
from fileserver.simulation.loop import Action, Loop
from fileserver.simulation.tasks import SimulatedRuntime
from raftnode.simulated_disk import SimulatedCrash


@attrs.define
class FakeHost:
    """Does everything at once, and blocking calls in 50 us; fulfils Host."""

    loop: Loop
    clock: SkewedClock

    def soon(self, action: Action) -> None:
        self.loop.at(0, action)

    def at(self, true_us: int, action: Action) -> None:
        self.loop.at(true_us, action)

    def blocking_call(self, function: Callable[[], object], done: Callable[[object], None]) -> None:
        def call() -> None:
            try:
                done(function())
            except ValueError as error:
                done(error)

        self.loop.after(50, call)


@attrs.define
class Stage:
    """A runtime, and what its tasks say when."""

    loop: Loop = attrs.Factory(Loop)
    said: list[tuple[int, str]] = attrs.Factory(list)
    clock: SkewedClock = attrs.field()
    runtime: SimulatedRuntime = attrs.field()

    @clock.default
    def _make_clock(self) -> SkewedClock:
        return SkewedClock(self.loop, start_us=1_000)

    @runtime.default
    def _make_runtime(self) -> SimulatedRuntime:
        return SimulatedRuntime(FakeHost(self.loop, self.clock))

    def say(self, what: str) -> None:
        self.said.append((self.loop.now_us, what))


def test_sleep_goes_by_the_servers_clock() -> None:
    stage = Stage()
    stage.clock.set_rate(500_000)

    async def task() -> None:
        stage.say("begins")
        await stage.runtime.sleep(100)
        stage.say("wakes")
        await stage.runtime.sleep(0)
        stage.say("goes on")

    stage.runtime.start(task)
    assert stage.said == []  # a task begins when the one that started it has had its turn
    stage.loop.run_until(1_000)
    assert stage.said == [(0, "begins"), (200, "wakes"), (200, "goes on")]


@pytest.mark.parametrize(("set_at_us", "woken_us"), [(30, 30), (None, 100), (130, 100)])
def test_wait_until_ends_with_the_signal_or_the_deadline(set_at_us: int | None, woken_us: int) -> None:
    stage = Stage()
    signal = stage.runtime.signal()

    async def task() -> None:
        await stage.runtime.wait_until(signal, 1_100)
        stage.say("goes on")
        await stage.runtime.sleep(1_000)
        stage.say("sleeps no shorter for the other end of that wait")

    stage.runtime.start(task)
    if set_at_us is not None:
        stage.loop.at(set_at_us, signal.set)
    stage.loop.run_until(5_000)
    assert [at_us for at_us, _ in stage.said] == [woken_us, woken_us + 1_000]


def test_a_signal_wakes_all_who_wait_and_whoever_comes_later() -> None:
    stage = Stage()
    signal = stage.runtime.signal()

    async def task(name: str) -> None:
        await signal.wait()
        stage.say(name)
        await stage.runtime.wait_until(signal, 10_000)
        stage.say(f"{name} again")

    stage.runtime.start(lambda: task("one"))
    stage.runtime.start(lambda: task("two"))
    stage.loop.at(10, signal.set)
    stage.loop.at(10, signal.set)
    stage.loop.at(20, lambda: stage.runtime.start(lambda: task("three")))
    stage.loop.run_until(100)
    assert stage.said == [
        (10, "one"),
        (10, "one again"),
        (10, "two"),
        (10, "two again"),
        (20, "three"),
        (20, "three again"),
    ]


def test_a_blocking_call_gives_its_result_or_raises() -> None:
    stage = Stage()

    def divide(a: int, b: int) -> int:
        if b == 0:
            raise ValueError("by nothing")
        return a // b

    async def task() -> None:
        stage.say(str(await stage.runtime.run_blocking(divide, 6, 3)))
        try:
            await stage.runtime.run_blocking(divide, 6, 0)
        except ValueError as error:
            stage.say(str(error))

    stage.runtime.start(task)
    stage.loop.run_until(1_000)
    assert stage.said == [(50, "2"), (100, "by nothing")]


def test_dropped_tasks_end_where_they_stand_and_nothing_resumes_them() -> None:
    stage = Stage()
    signal = stage.runtime.signal()

    async def waits() -> None:
        try:
            await signal.wait()
            stage.say("never")
        finally:
            stage.say("on its way out")

    async def sleeps() -> None:
        await stage.runtime.sleep(50)
        stage.say("never")

    async def calls() -> None:
        await stage.runtime.run_blocking(lambda: stage.say("the call itself is made"))
        stage.say("never")

    for task in (waits, sleeps, calls):
        stage.runtime.start(task)
    stage.loop.at(20, stage.runtime.drop)
    stage.loop.at(30, signal.set)
    stage.loop.run_until(1_000)
    assert stage.said == [(20, "on its way out"), (50, "the call itself is made")]


def test_what_a_dropped_task_does_to_its_disk_on_its_way_out_comes_to_nothing() -> None:
    stage = Stage()

    async def task() -> None:
        try:
            await stage.runtime.sleep(100)
        finally:
            raise SimulatedCrash

    stage.runtime.start(task)
    stage.loop.at(10, stage.runtime.drop)
    stage.loop.run_until(1_000)


def test_an_exception_of_a_task_is_not_kept_from_anybody() -> None:
    stage = Stage()

    async def task() -> None:
        raise ZeroDivisionError

    stage.runtime.start(task)
    with pytest.raises(ZeroDivisionError):
        stage.loop.run_until(10)
