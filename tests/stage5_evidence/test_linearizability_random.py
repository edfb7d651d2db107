"""The checker against true histories, and against trying every order on small ones of all kinds."""

from __future__ import annotations

from random import Random

import attrs
import pytest

from fileserver.linearizability.checker import check
from fileserver.linearizability.history import Append, Cas, Delete, NotFound, Operation, Read, Touch, Write
from fileserver.linearizability.search import Verdict
from tests.stage5_evidence.brute_force import is_linearizable
from tests.stage5_evidence.file_histories import Shape, spoilt, true_history

SHAPES = {
    "plain": Shape(operations=6),
    "few contents": Shape(operations=6, contents=2, unknown=0.4),
    "expiring": Shape(operations=6, expiring=0.7, unknown=0.1),
    "expiring, unknown": Shape(operations=5, expiring=0.6, unknown=0.5, contents=2),
    "clock lags": Shape(operations=6, expiring=0.7, clock_lag_us=700_000, step_us=500_000),
    "writes and deletes": Shape(operations=6, clients=4, unknown=0.4, kinds=(Write, Delete, Delete, Read), contents=1),
    "appends": Shape(operations=6, clients=4, unknown=0.5, kinds=(Append, Append, Delete, Read), contents=2),
    "cas": Shape(operations=6, clients=4, unknown=0.4, kinds=(Cas, Cas, Delete, Read), contents=2),
    "touches": Shape(
        operations=5, clients=3, unknown=0.3, expiring=0.8, step_us=400_000, kinds=(Write, Touch, Touch, Delete, Read)
    ),
    "wide": Shape(operations=5, clients=5, unknown=0.2, expiring=0.2),
}
HISTORIES = 200
"""Of each shape: so many true ones, and twice as many spoilt ones."""


def judge_alike(operations: list[Operation], slack_us: int) -> bool:
    """Whether the history is linearizable, after making sure that all agree."""
    report = check(operations, clock_slack_us=slack_us)
    assert report.verdict is not Verdict.UNDECIDED
    expected = is_linearizable(operations, slack_us, slack_us)
    # The rules over all files are sound: they never contradict what is linearizable. The search needs no help by them.
    assert (not report.violations) == expected, [*report.lines(), *operations]
    assert expected or not report.is_good
    assert not (expected and report.facts), report.facts
    return expected


@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_trying_every_order(shape: str) -> None:
    random = Random(f"small {shape}")
    slack_us = SHAPES[shape].clock_lag_us
    verdicts = []
    for _ in range(HISTORIES):
        operations = true_history(random, SHAPES[shape])
        assert judge_alike(operations, slack_us), operations
        once = spoilt(random, operations)
        verdicts.append(judge_alike(once, slack_us))
        verdicts.append(judge_alike(spoilt(random, once), slack_us) if once else True)
    # Both verdicts occur, and often: else this would show nothing.
    assert verdicts.count(True) > HISTORIES // 10
    assert verdicts.count(False) > HISTORIES // 4


def test_agrees_with_trying_every_order_on_histories_of_anything() -> None:
    """Replies by chance, not changed from true ones."""
    random = Random("anything")
    verdicts = []
    for number in range(600):
        shape = list(SHAPES.values())[number % len(SHAPES)]
        first, second = (true_history(random, attrs.evolve(shape, operations=3)) for _ in range(2))
        verdicts.append(judge_alike([*first, *second][: random.randint(3, 6)], shape.clock_lag_us))
    assert min(verdicts.count(True), verdicts.count(False)) > 60


@pytest.mark.parametrize(
    "shape",
    [
        Shape(operations=400, clients=10, unknown=0.05),
        Shape(operations=400, clients=10, unknown=0.3),
        Shape(operations=400, clients=5, unknown=0.05, contents=3),
        Shape(operations=400, clients=20, files=3, unknown=0.02),
        Shape(operations=400, clients=5, unknown=0.02, expiring=0.3),
        Shape(operations=400, clients=10, files=4, unknown=0.02, expiring=0.3, clock_lag_us=900_000),
        Shape(operations=300, clients=6, unknown=0.1, kinds=(Write, Delete, Read)),
        Shape(operations=300, clients=6, unknown=0.1, kinds=(Append, Delete, Read)),
    ],
)
def test_true_histories_are_accepted(shape: Shape) -> None:
    for seed in range(10):
        operations = true_history(Random(f"long {seed}"), shape)
        report = check(operations, clock_slack_us=shape.clock_lag_us, work_limit=100_000)
        assert report.is_good, "\n".join(report.lines())


def test_long_histories_with_one_read_spoilt_are_rejected() -> None:
    shape = Shape(operations=300, clients=8, unknown=0.05, kinds=(Write, Write, Read, Read))
    for seed in range(20):
        random = Random(f"spoilt {seed}")
        operations = true_history(random, shape)
        middle_us = max(one.called_us for one in operations) // 2  # by then there is a file, and nobody deletes it
        reads = [isinstance(one.action, Read) and one.outcome is not None for one in operations]
        place = random.choice(
            [place for place, one in enumerate(operations) if reads[place] and one.called_us > middle_us]
        )
        operations[place] = attrs.evolve(operations[place], outcome=NotFound())
        report = check(operations, clock_slack_us=0, work_limit=100_000)
        assert report.verdict is Verdict.VIOLATION
