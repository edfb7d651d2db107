"""Clocks that run fast or slow and jump, but never go back."""

import random

import pytest

from fileserver.simulation.clocks import TRUE_RATE_PPM, SkewedClock
from fileserver.simulation.loop import Loop


def test_a_true_clock() -> None:
    loop = Loop()
    clock = SkewedClock(loop, start_us=1_000)
    loop.run_until(500)
    assert clock.now_us() == 1_500
    assert clock.true_us(2_000) == 1_000


@pytest.mark.parametrize(("rate_ppm", "reading_us"), [(1_100_000, 1_100_000), (900_000, 900_000)])
def test_rates(rate_ppm: int, reading_us: int) -> None:
    loop = Loop()
    clock = SkewedClock(loop)
    clock.set_rate(rate_ppm)
    loop.run_until(1_000_000)
    assert clock.now_us() == reading_us
    assert clock.rate_ppm == rate_ppm


def test_a_change_of_rate_and_a_jump_begin_where_the_clock_is() -> None:
    loop = Loop()
    clock = SkewedClock(loop)
    loop.run_until(100)
    clock.set_rate(2 * TRUE_RATE_PPM)
    assert clock.now_us() == 100
    loop.run_until(200)
    assert clock.now_us() == 300
    clock.jump(5_000)
    assert clock.now_us() == 5_300
    loop.run_until(210)
    assert clock.now_us() == 5_320


def test_what_calls_to_the_disk_took_is_time_too() -> None:
    clock = SkewedClock(Loop())
    clock.charged_us = 70
    assert clock.now_us() == 70


@pytest.mark.parametrize("seed", range(5))
def test_at_its_true_time_a_reading_has_come_and_not_much_before(seed: int) -> None:
    dice = random.Random(seed)
    loop = Loop()
    clock = SkewedClock(loop, dice.randrange(10**9))
    previous_us = clock.now_us()
    for _ in range(200):
        clock.set_rate(dice.randint(900_000, 1_100_000))
        clock.jump(dice.choice((0, 0, dice.randrange(10**6))))
        wanted_us = clock.now_us() + dice.randrange(10**6)
        true_us = clock.true_us(wanted_us)
        loop.run_until(max(true_us - 2, loop.now_us))
        assert previous_us <= clock.now_us() <= wanted_us
        loop.run_until(true_us)
        assert wanted_us <= clock.now_us() <= wanted_us + 1
        previous_us = clock.now_us()
