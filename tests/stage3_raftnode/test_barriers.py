"""Reads that wait for a barrier: whoever waits is called back once, and never by a barrier older than himself."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from raftnode.barriers import Barriers


def test_reads_share_a_barrier_and_wait_for_its_index() -> None:
    passed: list[str] = []
    barriers = Barriers()
    barriers.add(lambda: passed.append("one"))
    barriers.add(lambda: passed.append("two"))
    assert barriers.wants_number
    number = barriers.begin()
    assert number == 1
    assert not barriers.wants_number
    barriers.confirmed(number, read_index=10)
    barriers.release(9)
    assert passed == []
    barriers.release(10)
    assert passed == ["one", "two"]
    assert len(barriers) == 0


def test_a_later_read_needs_a_later_barrier() -> None:
    passed: list[str] = []
    barriers = Barriers()
    barriers.add(lambda: passed.append("early"))
    first = barriers.begin()
    barriers.add(lambda: passed.append("late"))
    assert barriers.begin() is None, "one at a time"
    assert first is not None
    barriers.confirmed(first, 0)
    barriers.release(100)
    assert passed == ["early"]
    second = barriers.begin()
    assert second is not None
    assert second > first
    barriers.confirmed(second, 0)
    barriers.release(100)
    assert passed == ["early", "late"]


def test_a_barrier_that_failed_is_asked_for_again_under_another_number() -> None:
    passed: list[str] = []
    barriers = Barriers()
    barriers.add(lambda: passed.append("early"))
    first = barriers.begin()
    barriers.add(lambda: passed.append("late"))
    assert first is not None
    barriers.failed(first)
    assert len(barriers) == 2
    second = barriers.begin()
    assert second is not None
    assert second != first
    barriers.confirmed(first, 0)
    barriers.failed(first)
    barriers.release(100)
    assert passed == []
    barriers.confirmed(second, 3)
    barriers.confirmed(second, 3)
    barriers.failed(second)
    barriers.release(3)
    assert passed == ["early", "late"]


def test_nothing_waits_nothing_is_asked() -> None:
    barriers = Barriers()
    assert barriers.begin() is None
    barriers.confirmed(0, 5)
    barriers.failed(0)
    barriers.release(5)


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen, in any order, with answers that come late, twice, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.barriers = Barriers()
        self.passed: list[int] = []
        self.added = 0
        self.covers: dict[int, int] = {}
        """Barrier: how many reads had been added when it was begun."""
        self.confirmed: dict[int, int] = {}
        self.applied = 0

    @rule()
    def add(self) -> None:
        read = self.added
        self.added += 1
        self.barriers.add(lambda: self.passed.append(read))

    @rule()
    def begin(self) -> None:
        number = self.barriers.begin()
        if number is not None:
            assert number not in self.covers
            self.covers[number] = self.added

    @precondition(lambda self: self.covers)
    @rule(back=st.integers(0, 2), ahead=st.integers(0, 3))
    def answer(self, back: int, ahead: int) -> None:
        number = max(len(self.covers) - back, 1)
        index = self.confirmed.setdefault(number, self.applied + ahead)
        self.barriers.confirmed(number, index)

    @precondition(lambda self: self.covers)
    @rule(back=st.integers(0, 2))
    def fail(self, back: int) -> None:
        self.barriers.failed(max(len(self.covers) - back, 1))

    @rule(more=st.integers(0, 2))
    def apply(self, more: int) -> None:
        before = len(self.passed)
        self.applied += more
        self.barriers.release(self.applied)
        for read in self.passed[before:]:
            assert any(
                self.covers[number] > read and index <= self.applied for number, index in self.confirmed.items()
            ), "no barrier younger than the read is confirmed and applied"

    @invariant()
    def everybody_waits_or_has_passed(self) -> None:
        assert len(set(self.passed)) == len(self.passed)
        assert len(self.passed) + len(self.barriers) == self.added
        assert self.passed == sorted(self.passed)


TestAnyOrder = AnyOrder.TestCase


def test_whether_a_release_would_let_something_pass() -> None:
    barriers = Barriers()
    assert not barriers.is_confirmed_up_to(10)
    barriers.add(lambda: None)
    number = barriers.begin()
    assert number is not None
    barriers.confirmed(number, 7)
    assert not barriers.is_confirmed_up_to(6)
    assert barriers.is_confirmed_up_to(7)
