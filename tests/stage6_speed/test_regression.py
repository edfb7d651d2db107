"""Nothing may become dearer by more than a fifth, in calls that are counted.

What to do when one of these fails: find out by the figures of the packages where the calls come from; make it cheaper,
or, if it has a good reason, keep the new figures by the command that the failure names.
"""

from __future__ import annotations

import pytest

from tests.stage6_speed.baseline import COMMAND, GROWTH_MAX, baseline
from tests.stage6_speed.operations import EVERY
from tests.stage6_speed.ratios import REFERENCES, Sample, dearer, ratio


@pytest.mark.parametrize("name", EVERY)
def test_calls_of_an_operation(name: str) -> None:
    """Deterministic: the same on any machine, however busy."""
    kept = baseline()["calls"][name]
    calls = EVERY[name]()
    limit = GROWTH_MAX * sum(kept.values())
    assert sum(calls.values()) <= limit, (
        f"{name}: {calls} calls for an operation, where {kept} is the baseline; "
        f"at most {limit:.1f} in all are allowed. To keep the new figures: {COMMAND}"
    )


def test_calls_are_the_same_in_every_run() -> None:
    name = "cluster: write-64"
    assert EVERY[name]() == EVERY[name]()


def test_what_is_dearer() -> None:
    assert set(REFERENCES) == set(baseline()["ratios"])
    assert dearer({"a": 12.0, "b": 9.0}, {"a": 10.0, "b": 10.0}, 1.2) == {}
    assert dearer({"a": 12.1}, {"a": 10.0}, 1.2) == {"a": "12.10, which is 1.21 times the baseline of 10.00"}
    samples = [Sample(30.0, 5.0, 0.1), Sample(20.0, 6.0, 0.3)]
    assert [each.is_quiet for each in samples] == [True, False]
    assert ratio(samples) == 4.0
