"""Crashes at every call that storage makes to the file system, and what is found after them."""

from __future__ import annotations

from random import Random

import pytest

from raftnode.simulated_disk import SimulatedCrash, SimulatedDisk, Survival
from statemachine.events import HardState
from tests.stage3_raftnode.storage_tools import (
    DIRECTORY,
    State,
    Workload,
    open_storage,
    recover,
    run,
    small_segments,
    state_of,
)


class Life(Workload):
    """All that storage can do, in an order in which a server may do it."""

    def live(self) -> None:
        assert self.open().torn is None
        self.save(HardState(1, None))
        self.save(HardState(1, 2), run(1, 1, b"a" * 300, b"b"))
        self.do(self.storage.prepare_next)
        self.save(None, run(3, 1, b"c" * 600))
        self.save(None, run(4, 1, b"d" * 700))
        self.save_clock(5_000_000)
        self.save(HardState(3, 3), run(3, 3, b"C" * 300, b"D"), run(5, 3, b"E"))
        self.do(self.storage.prepare_next)
        self.save(None, run(6, 3, b"f" * 1500))
        self.take_snapshot(5, 3)
        self.do(lambda: self.storage.compact(6))
        self.do(self.storage.close)
        assert self.open().torn is None
        self.save(HardState(4, None), run(7, 4, b"g" * 100))
        self.do(self.storage.prepare_next)
        self.save(None, run(8, 4, b"h" * 900))
        self.receive_snapshot(40, 6)
        self.reset_to(40, 6)
        self.do(self.storage.prepare_next)
        self.save(HardState(6, 1), run(41, 6, b"i" * 900))
        self.take_snapshot(41, 6)
        self.do(lambda: self.storage.compact(42))
        self.save(None, run(42, 6, b"j"))
        self.do(self.storage.close)


def count_calls() -> int:
    disk = SimulatedDisk()
    Life(disk).live()
    return disk.call_count


def check_after_crash(disk: SimulatedDisk, allowed: frozenset[State]) -> None:
    """What is found is allowed, is complete, and can be built upon."""
    storage, recovered = open_storage(disk)
    found = state_of(recovered)
    assert found in allowed
    if recovered.snapshot is not None:
        assert list(storage.snapshots.read(recovered.snapshot))
    assert not [name for name in disk.list_directory(DIRECTORY) if name.endswith(".tmp")]
    storage.prepare_next()
    storage.save(HardState(99, 1), [run(recovered.last_index + 1, 99, b"after" * 300)])
    storage.save(None, [run(recovered.last_index + 2, 99, b"all")])
    disk.power_cut(Random(0), Survival.NOTHING)
    again = recover(disk)
    assert again.hard_state == HardState(99, 1)
    assert state_of(again)[2][: len(found[2])] == found[2]
    assert again.last_index == recovered.last_index + 2
    assert again.torn is None


@pytest.mark.parametrize("survival", ["killed", *Survival])
def test_a_crash_in_any_call_loses_nothing_that_was_acknowledged(
    monkeypatch: pytest.MonkeyPatch, survival: Survival | str
) -> None:
    small_segments(monkeypatch, 1024)
    seeds = range(12) if survival is Survival.RANDOM else range(1)
    for call in range(1, count_calls() + 1):
        for seed in seeds:
            disk = SimulatedDisk()
            workload = Life(disk)
            disk.crash_at_call = call
            with pytest.raises(SimulatedCrash):
                workload.live()
            if isinstance(survival, Survival):
                disk.power_cut(Random(call * 1000 + seed), survival)
            else:
                disk.process_killed()
            check_after_crash(disk, workload.allowed())


def test_a_second_crash_in_any_call_of_the_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    small_segments(monkeypatch, 1024)
    for call in range(5, count_calls() + 1, 3):
        for second in range(1, 40):
            disk = SimulatedDisk()
            workload = Life(disk)
            disk.crash_at_call = call
            with pytest.raises(SimulatedCrash):
                workload.live()
            # What the first crash leaves, the recovery after it may build upon: it must itself survive the second one.
            disk.power_cut(Random(call))
            disk.crash_at_call = disk.call_count + second
            try:
                open_storage(disk)
            except SimulatedCrash:
                disk.power_cut(Random(second))
                check_after_crash(disk, workload.allowed())
            else:
                break
        else:
            raise AssertionError("a recovery makes fewer calls than that")


def test_what_recovery_has_told_survives_a_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have found it in the page cache only: the process was killed in mid-write."""
    small_segments(monkeypatch, 1024)
    for call in range(1, count_calls() + 1):
        disk = SimulatedDisk()
        workload = Life(disk)
        disk.crash_at_call = call
        with pytest.raises(SimulatedCrash):
            workload.live()
        disk.process_killed()
        _, recovered = open_storage(disk)
        disk.power_cut(Random(call), Survival.NOTHING)
        check_after_crash(disk, frozenset({state_of(recovered)}))
