"""The torture: whose turn it is, what counts as a finding, and how files are damaged. No cluster runs here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random

import attrs
import pytest
import trio
import trio.testing

from fileserver.linearizability.checker import check
from fileserver.linearizability.history import (
    NotFound,
    Operation,
    Read,
    Write,
    Written,
    found,
)
from fileserver.torture.clients import Record
from fileserver.torture.disk_faults import damage
from fileserver.torture.failover import Failovers
from fileserver.torture.nemesis import DidNotHappen, Happening, Occupancy
from fileserver.torture.plan import FaultKind, Plan, Target, make_plan
from fileserver.torture.report import Load, Report

MINUTE_US = 60_000_000
SERVERS = range(1, 6)


def plan_of(seed: int, minutes: float = 1.0, kinds: Iterable[FaultKind] = FaultKind) -> Plan:
    return make_plan(seed, round(minutes * MINUTE_US), SERVERS, list(kinds))


async def test_faults_of_one_group_wait_for_each_others_servers(nursery: trio.Nursery) -> None:
    occupancy = Occupancy((1, 2, 3))
    taken: list[tuple[int, ...]] = []

    async def order() -> tuple[int, ...]:
        await trio.lowlevel.checkpoint()
        return (3, 2, 1)

    async def take(count: int) -> None:
        taken.append(await occupancy.take(order, count))

    assert await occupancy.take(order, 2) == (3, 2)
    nursery.start_soon(take, 3)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(take, 1)  # there is one for it, but it has to wait for its turn
    await trio.testing.wait_all_tasks_blocked()
    assert taken == []
    occupancy.give_back((3,))
    await trio.testing.wait_all_tasks_blocked()
    assert taken == []
    occupancy.give_back((2,))
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [(3, 2, 1)]
    occupancy.give_back((2,))
    await trio.testing.wait_all_tasks_blocked()
    assert taken == [(3, 2, 1), (2,)]


def report_of(operations: list[Operation], *happenings: Happening, plan: Plan | None = None) -> Report:
    """The report of a run of one second in which clients saw this."""
    record = Record()
    for operation in operations:
        record.add(operation)
    return Report(
        plan=plan or plan_of(1, kinds=[]),
        record=record,
        happenings=happenings,
        skipped=(),
        problems=(),
        judgement=check(operations),
        judged_in_seconds=0.0,
        load=Load(1.0, record.answered, {}),
        rate_min=1.0,
        state_hash="",
    )


GOOD = [
    Operation(1, "f", Write(b"one"), 0, 10, Written(1)),
    Operation(2, "f", Read(), 20, 30, found(1, b"one")),
]


def test_a_run_without_faults_that_lost_nothing_is_good() -> None:
    assert report_of(GOOD).is_good


def test_a_lost_change_is_a_finding() -> None:
    report = report_of([*GOOD, Operation(1, "f", Read(), 40, 50, NotFound())])
    assert not report.is_good
    assert any("no such file" in finding for finding in report.findings())


def test_an_undecided_history_is_a_finding() -> None:
    report = attrs.evolve(report_of(GOOD), judgement=check(GOOD, work_limit=0))
    assert not report.is_good


def test_too_few_operations_are_a_finding() -> None:
    report = attrs.evolve(report_of(GOOD), rate_min=3.0)
    assert list(report.findings()) == ["2 operations a second, fewer than 3: the run shows too little"]


def test_a_fault_that_did_not_happen_is_a_finding() -> None:
    plan = plan_of(1)
    happenings = [Happening(fault, 0, 1, "seen", is_real=True) for fault in plan.faults]
    assert report_of(GOOD, *happenings, plan=plan).is_good
    happenings[0] = attrs.evolve(happenings[0], is_real=False, evidence="nothing was dropped")
    (finding,) = report_of(GOOD, *happenings, plan=plan).findings()
    assert "DID NOT HAPPEN: nothing was dropped" in finding
    (finding,) = report_of(GOOD, *happenings[1:], plan=plan).findings()
    assert finding == f"not carried out: {plan.faults[0]}"
    counts = report_of(GOOD, *happenings, plan=plan).fault_counts
    assert sum(planned for *_, planned, _ in counts) == len(plan.faults)
    assert sum(happened for *_, happened in counts) == len(plan.faults) - 1


def test_percentiles_of_fail_overs() -> None:
    failovers = Failovers(times_us=[300, 100, 200, 400], unknown=0, lost=0)
    assert [failovers.percentile_us(percent) for percent in (25, 50, 99)] == [100, 200, 400]


# ------------------------------------------------------------------------------------------------ damage


def test_bits_are_flipped_in_the_middle_of_what_was_written(tmp_path: Path) -> None:
    """There has to be a good frame behind the damage, so it is not done to the last segment."""
    (tmp_path / "log-1.seg").write_bytes(b"a" * 8000)
    (tmp_path / "log-2.seg").write_bytes(b"b" * 10_000 + bytes(90_000))
    (tmp_path / "log-3.seg").write_bytes(b"c" * 5_000 + bytes(90_000))
    (tmp_path / "log-4.seg").write_bytes(b"d" * 100 + bytes(90_000))
    path, offset = damage(tmp_path, Target.LOG, Random(1))
    assert path.name == "log-2.seg"
    assert 2500 <= offset < 7500
    data = path.read_bytes()
    assert len(data) == 100_000
    assert [position for position in range(10_000) if data[position] != ord("b")] == list(range(offset, offset + 8))


def test_damage_done_twice_does_not_heal(tmp_path: Path) -> None:
    (tmp_path / "snapshot-1.snap").write_bytes(bytes(100))
    for number in range(2):
        damage(tmp_path, Target.SNAPSHOT, Random(number))
        assert any((tmp_path / "snapshot-1.snap").read_bytes())


def test_the_newest_snapshot_is_damaged(tmp_path: Path) -> None:
    for name in ("snapshot-1.snap", "snapshot-2.snap", "snapshot-3.tmp"):
        (tmp_path / name).write_bytes(bytes(100))
    path, offset = damage(tmp_path, Target.SNAPSHOT, Random(1))
    assert path == tmp_path / "snapshot-2.snap"
    assert 25 <= offset < 75


def test_what_is_not_there_cannot_be_damaged(tmp_path: Path) -> None:
    for target in Target:
        with pytest.raises(DidNotHappen):
            damage(tmp_path, target, Random(1))
