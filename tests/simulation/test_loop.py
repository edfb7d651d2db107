"""Simulated time: what happens when, and in which order."""

import pytest

from fileserver.simulation.loop import Loop, Spinning


def test_things_happen_in_the_order_of_their_times_and_then_of_laying_in() -> None:
    loop = Loop()
    seen: list[tuple[int, str]] = []
    for when_us, name in ((20, "c"), (10, "a"), (20, "d"), (10, "b")):
        loop.at(when_us, lambda name=name: seen.append((loop.now_us, name)))  # type: ignore[misc]
    loop.run_until(20)
    assert seen == [(10, "a"), (10, "b"), (20, "c"), (20, "d")]


def test_what_comes_too_late_happens_now() -> None:
    loop = Loop()
    seen: list[int] = []
    loop.at(10, lambda: loop.at(3, lambda: seen.append(loop.now_us)))
    loop.run_until(11)
    assert seen == [10]


def test_time_passes_though_nothing_happens() -> None:
    loop = Loop()
    loop.after(6, lambda: None)
    loop.run_until(5)
    assert loop.now_us == 5
    loop.after(5, lambda: None)
    assert loop.run_while(lambda: loop.now_us < 10, 100)
    assert loop.now_us == 10


def test_run_while_ends_with_the_condition_or_the_time() -> None:
    loop = Loop()
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(loop.now_us)
        loop.after(10, tick)

    loop.after(10, tick)
    assert loop.run_while(lambda: len(ticks) < 3, 1_000)
    assert ticks == [10, 20, 30]
    assert not loop.run_while(lambda: True, 55)
    assert (ticks[-1], loop.now_us) == (50, 55)
    assert not Loop().run_while(lambda: True, 7)


def test_a_time_that_does_not_pass() -> None:
    """A task that wakes itself, at once, again and again."""
    loop = Loop()

    def again() -> None:
        loop.after(0, again)

    loop.after(5, again)
    with pytest.raises(Spinning, match="at 5 us, and no end"):
        loop.run_until(10)
    with pytest.raises(Spinning, match="at 5 us, and no end"):
        loop.run_while(lambda: True, 10)
