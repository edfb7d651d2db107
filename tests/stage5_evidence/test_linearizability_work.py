"""How much work the checker makes of long histories. The measure is configurations; the time is printed for people."""

from __future__ import annotations

import sys
from random import Random
from time import perf_counter

import attrs
import pytest

from fileserver.linearizability.checker import check
from fileserver.linearizability.history import Delete, Operation, Read, Write, Written, found
from tests.stage5_evidence.file_histories import Shape, true_history

LONG = Shape(operations=5_000, clients=10, unknown=0.02)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_five_thousand_operations_of_ten_clients_on_one_file(seed: int) -> None:
    operations = true_history(Random(seed), LONG)
    assert sum(one.outcome is None for one in operations) > 50
    begin = perf_counter()
    report = check(operations, clock_slack_us=0, work_limit=2 * LONG.operations)
    sys.stdout.write(f"{report.configurations} configurations in {perf_counter() - begin:.2f} s\n")
    assert report.is_good


def test_five_thousand_operations_with_expiry() -> None:
    shape = attrs.evolve(LONG, files=5, expiring=0.1, clock_lag_us=500_000)
    report = check(true_history(Random(3), shape), clock_slack_us=500_000, work_limit=4 * LONG.operations)
    assert report.is_good, "\n".join(report.lines())


def test_unknown_writes_that_nobody_observed_cost_nothing() -> None:
    """Nor do they hide a violation."""
    operations = [
        Operation(place, "f", Write(b"%d" % place), place, None) for place in range(1_000)
    ] + [
        Operation(place, "f", Write(b"x%d" % place), place, place + 1, Written(2_000 * place + 1))
        for place in range(1_000, 1_500)
    ]  # fmt: skip
    assert check(operations, clock_slack_us=0, work_limit=500).is_good
    stale = Operation(1, "f", Read(), 2_000, 2_001, found(2_000_001, b"x1000"))
    assert check([*operations, stale], clock_slack_us=0, work_limit=600).violations


def test_unknown_deletions_that_nobody_observed_cost_nothing() -> None:
    operations = [Operation(place, "f", Delete(), place, None) for place in range(1_000)] + [
        Operation(place, "f", Write(b"x"), place, place + 1, Written(2_000 * place + 1))
        for place in range(1_000, 1_500)
    ]
    assert check(operations, clock_slack_us=0, work_limit=500).is_good
