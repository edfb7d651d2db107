"""One server's reading of cluster time: never back, and never ahead of the time that has truly passed."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from raftnode.cluster_clock import ClusterClock


@attrs.define
class Monotonic:
    """A server's own clock, which begins anywhere."""

    now_us: int = 0

    def __call__(self) -> int:
        return self.now_us


def test_it_goes_on_from_where_it_was() -> None:
    own = Monotonic(5_000)
    clock = ClusterClock(own, 77)
    assert clock.now_us() == 77
    own.now_us += 10
    assert clock.now_us() == 87


def test_a_later_reading_moves_it_and_an_earlier_one_does_not() -> None:
    own = Monotonic(-3)
    clock = ClusterClock(own)
    clock.observe(100)
    assert clock.now_us() == 100
    own.now_us += 50
    clock.observe(120)
    assert clock.now_us() == 150
    clock.observe(150)
    assert clock.now_us() == 150


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 10**6), st.integers(0, 10**6))),
)
def test_clocks_that_hear_of_each_other_are_never_early(
    starts: list[int], messages: list[tuple[int, int, int, int]]
) -> None:
    """Readings arrive some time after they were taken, in any order, so a hop makes time late and never early."""
    owns = [Monotonic(start) for start in starts]
    clocks = [ClusterClock(own) for own in owns]
    elapsed_us = 0
    on_their_way: list[tuple[int, int]] = []
    last = [0] * len(clocks)
    for sender, receiver, pause_us, delivered in messages:
        on_their_way.append((receiver % len(clocks), clocks[sender % len(clocks)].now_us()))
        elapsed_us += pause_us
        for own in owns:
            own.now_us += pause_us
        to, reading_us = on_their_way.pop(delivered % len(on_their_way))
        clocks[to].observe(reading_us)
        readings = [clock.now_us() for clock in clocks]
        assert all(before <= reading <= elapsed_us for before, reading in zip(last, readings, strict=True))
        last = readings
