"""How long requests wait for those who were answered together with their senders."""

from __future__ import annotations

import pytest

from fileserver.returning_clients import PATIENCE, PATIENCE_US_MAX, ReturningClients

ANSWER_US = 1_000


def after(*answered: int, took_us: int = ANSWER_US, now_us: int = 0) -> ReturningClients:
    """Clients that were answered now, in so many batches, as they often were before."""
    clients = ReturningClients()
    for _ in range(200):
        for count in answered:
            clients.answered(count, took_us)
        clients.replies_go(0, now_us)
    return clients


def test_nobody_is_waited_for_at_first() -> None:
    assert ReturningClients().are_here(1, 0)


@pytest.mark.parametrize(
    ("answered", "enough"), [(1, 0), (2, 1), (3, 2), (10, 9), (11, 9), (20, 18), (64, 57), (1024, 921)]
)
def test_nine_in_ten_are_enough(answered: int, enough: int) -> None:
    clients = after(answered)
    assert clients.are_here(enough, 0)
    assert not clients.are_here(enough - 1, 0)


def test_what_is_answered_together_is_counted_together() -> None:
    clients = after(30, 34)
    assert clients.are_here(57, 0)
    assert not clients.are_here(56, 0)


@pytest.mark.parametrize(("took_us", "patience_us"), [(1_000, PATIENCE * 1_000), (100_000, PATIENCE_US_MAX)])
def test_they_are_waited_for_a_part_of_the_time_that_an_answer_takes(took_us: int, patience_us: float) -> None:
    clients = after(64, took_us=took_us, now_us=5_000)
    assert clients.until_us == pytest.approx(5_000 + patience_us, abs=1)
    assert not clients.are_here(1, clients.until_us - 1)
    assert clients.are_here(1, clients.until_us)


def test_those_that_waited_already_come_on_top() -> None:
    """Or each batch would be smaller than the one before, until there are two of half the size in turn."""
    clients = after(64)
    clients.answered(64, ANSWER_US)
    clients.replies_go(20, 0)
    assert clients.are_here(77, 0)
    assert not clients.are_here(76, 0)


def test_sending_nothing_changes_nothing() -> None:
    clients = after(64)
    until_us = clients.until_us
    clients.replies_go(5, until_us + 1)
    assert clients.until_us == until_us
    assert not clients.are_here(56, 0)


def test_who_is_gone_is_forgotten_with_the_next_answers() -> None:
    clients = after(64)
    clients.answered(3, ANSWER_US)
    clients.replies_go(0, 10_000)
    assert clients.are_here(2, 10_000)
    assert not clients.are_here(1, 10_000)
