"""The log against a dumb model: a list of (index, term, entry)."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from statemachine.log import Log
from tests.stage2_statemachine.states import entry


def log_of(*terms: int, base: int = 0, base_term: int = 0) -> Log:
    log = Log(base, base_term)
    for index, term in enumerate(terms, base + 1):
        log.append(term, [entry(index, term)])
    return log


def contents(log: Log) -> list[tuple[int, int | None, bytes]]:
    """What is in memory of it."""
    first_index = log.memory_base + 1
    entries = log.entries(first_index, log.last_index)
    return [(index, log.term_at(index), each) for index, each in enumerate(entries, first_index)]


@pytest.mark.parametrize(
    ("log", "index", "term"),
    [
        (log_of(), 0, 0),
        (log_of(), 1, None),
        (log_of(), -1, None),
        (log_of(1, 1, 2), 1, 1),
        (log_of(1, 1, 2), 3, 2),
        (log_of(1, 1, 2), 4, None),
        (log_of(3, 5, base=10, base_term=2), 9, None),
        (log_of(3, 5, base=10, base_term=2), 10, 2),
        (log_of(3, 5, base=10, base_term=2), 11, 3),
        (log_of(3, 5, base=10, base_term=2), 12, 5),
        (log_of(base=10, base_term=2), 10, 2),
        (log_of(base=10, base_term=2), 11, None),
    ],
)
def test_term_at(log: Log, index: int, term: int | None) -> None:
    assert log.term_at(index) == term


@pytest.mark.parametrize(
    ("first", "bytes_max", "expected"),
    [
        (1, 100, (1, (b"1.1", b"1.2"))),
        (1, 6, (1, (b"1.1", b"1.2"))),
        (1, 5, (1, (b"1.1",))),
        (1, 0, (1, (b"1.1",))),
        (2, 100, (1, (b"1.2",))),
        (3, 100, (4, (b"4.3", b"4.4", b"4.5"))),
        (4, 6, (4, (b"4.4", b"4.5"))),
    ],
)
def test_run_from_takes_one_term_and_what_fits(
    first: int, bytes_max: int, expected: tuple[int, tuple[bytes, ...]]
) -> None:
    assert log_of(1, 1, 4, 4, 4).run_from(first, bytes_max) == expected


@pytest.mark.parametrize(
    ("first", "term", "count", "matching"),
    [
        (1, 1, 1, 1),
        (1, 1, 2, 2),
        (1, 1, 5, 2),
        (2, 1, 5, 1),
        (3, 4, 2, 2),
        (3, 4, 9, 3),
        (3, 5, 2, 0),
        (1, 4, 2, 0),
        (6, 4, 2, 0),
        (9, 4, 0, 0),
    ],
)
def test_count_matching(first: int, term: int, count: int, matching: int) -> None:
    assert log_of(1, 1, 4, 4, 4).count_matching(first, term, count) == matching


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(7, 9, 7), (99, 9, 7), (7, 4, 5), (7, 5, 5), (4, 4, 4), (7, 1, 2), (7, 0, 0), (1, 6, 1), (7, 6, 7)],
)
def test_last_index_not_after(index: int, term: int, expected: int) -> None:
    assert log_of(1, 1, 4, 4, 4, 6, 6).last_index_not_after(index, term) == expected


@pytest.mark.parametrize(("index", "term", "expected"), [(12, 1, 10), (5, 9, 10), (12, 3, 11), (11, 2, 10)])
def test_last_index_not_after_stops_at_the_base(index: int, term: int, expected: int) -> None:
    assert log_of(3, 5, base=10, base_term=2).last_index_not_after(index, term) == expected


def test_a_reset_log_begins_behind_the_snapshot() -> None:
    log = log_of(1, 1, 4)
    log.reset(9, 3)
    assert (log.first_index, log.last_index, log.last_term, len(log)) == (10, 9, 3, 0)
    log.append(5, [b"x", b"y"])
    assert log.runs() == [(10, 5)]
    assert contents(log) == [(10, 5, b"x"), (11, 5, b"y")]


def test_compaction_keeps_what_is_behind_it() -> None:
    log = log_of(1, 1, 2, 4, 4, 6)
    for first, runs in ((2, [(2, 1), (3, 2), (4, 4), (6, 6)]), (4, [(4, 4), (6, 6)]), (5, [(5, 4), (6, 6)]), (7, [])):
        log.compact(first)
        assert (log.runs(), log.first_index, log.last_index, log.last_term) == (runs, first, 6, 6)
        log.compact(first - 1)
        assert log.first_index == first


def test_compaction_past_the_end_is_a_mistake() -> None:
    with pytest.raises(AssertionError):
        log_of(1, 1).compact(5)


class LogMachine(RuleBasedStateMachine):
    """Any sequence of operations, on the log and on a list."""

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.model: list[tuple[int, int | None, bytes]] = []
        self.base = (0, 0)
        self.memory_base = 0
        self.appended_bytes = 0

    @initialize(base=st.integers(0, 5), term=st.integers(0, 3))
    def begin(self, base: int, term: int) -> None:
        self.base = (base, term if base else 0)
        self.log = Log(*self.base)
        self.memory_base = base

    @property
    def last(self) -> tuple[int, int]:
        if not self.model:
            return self.base
        index, term, _ = self.model[-1]
        assert term is not None
        return index, term

    @rule(more=st.integers(0, 2), count=st.integers(1, 5))
    def append(self, more: int, count: int) -> None:
        index, term = self.last
        term = max(term + more, 1)
        entries = [entry(each, term) for each in range(index + 1, index + count + 1)]
        self.log.append(term, entries)
        self.model += [(each, term, entry(each, term)) for each in range(index + 1, index + count + 1)]
        self.appended_bytes += sum(map(len, entries))

    @rule(back=st.integers(0, 6))
    def truncate(self, back: int) -> None:
        last = max(self.last[0] - back, self.memory_base)
        self.log.truncate(last)
        self.model = [each for each in self.model if each[0] <= last]

    @rule(part=st.integers(0, 10))
    def compact(self, part: int) -> None:
        first = self.base[0] - 1 + part
        if first > self.last[0] + 1:
            return
        for index, term, _ in self.model:
            if index == first - 1:
                assert term is not None
                self.base = (index, term)
        self.model = [each for each in self.model if each[0] >= first]
        self.log.compact(first)
        self.memory_base = max(self.memory_base, self.base[0])

    @rule(bytes_max=st.integers(0, 30), back=st.integers(0, 4))
    def limit_memory(self, bytes_max: int, back: int) -> None:
        last = self.last[0] - back
        self.log.limit_memory(bytes_max, last)
        while self.memory_base < last and sum(len(each) for _, _, each in self.in_memory) > bytes_max:
            self.memory_base += 1

    @precondition(lambda self: self.last[0] > 0)
    @rule(ahead=st.integers(1, 5))
    def reset(self, ahead: int) -> None:
        self.base = (self.last[0] + ahead, self.last[1])
        self.model = []
        self.log.reset(*self.base)
        self.memory_base = self.base[0]

    @property
    def in_memory(self) -> list[tuple[int, int | None, bytes]]:
        return [each for each in self.model if each[0] > self.memory_base]

    @invariant()
    def same(self) -> None:
        log = self.log
        assert contents(log) == self.in_memory
        assert [(each[0], log.term_at(each[0])) for each in self.model] == [each[:2] for each in self.model]
        assert (log.memory_base, log.appended_bytes) == (self.memory_base, self.appended_bytes)
        assert log.memory_bytes == sum(len(each) for _, _, each in self.in_memory)
        assert (log.base_index, log.base_term) == self.base
        assert (log.last_index, log.last_term) == self.last
        assert len(log) == len(self.model)
        for index, term, _ in self.model:
            others = [other for other, other_term, _ in self.model if other_term == term]
            assert log.last_of_run(index) == max(others)
        terms = groupby(self.model, key=lambda each: each[1])
        assert log.runs() == [(next(group)[0], term) for term, group in terms]

    @invariant()
    def same_conflict_hints(self) -> None:
        known = [self.base, *((index, term or 0) for index, term, _ in self.model)]
        for index in range(self.base[0], self.last[0] + 3):
            for term in range(self.last[1] + 2):
                agreeing = [each for each, each_term in known if each <= index and each_term <= term]
                assert self.log.last_index_not_after(index, term) == max(agreeing, default=self.base[0])


LogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestLogMachine = LogMachine.TestCase


@given(st.lists(st.integers(1, 3), min_size=1, max_size=20).map(sorted), st.data())
def test_runs_can_be_sent_one_after_another(terms: list[int], data: st.DataObject) -> None:
    log = log_of(*terms)
    bytes_max = data.draw(st.integers(0, 20))
    index, received = 1, []
    while index <= log.last_index:
        term, entries = log.run_from(index, bytes_max)
        received += [(term, each) for each in entries]
        index += len(entries)
    assert received == [(term, each) for _, term, each in contents(log)]
