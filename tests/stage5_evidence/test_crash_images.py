"""What a crash may leave on a disk, at every operation of storage; and single bytes that have changed.

This is a sample that is the same in every run: at each operation of all scenarios at most 45 images (some 17,000 in
all), 20 lives made up by dice, every 11th byte of the log and every 31st of the snapshots changed once, every byte of
the hard state four times, of the clock into all values. ``bin/crash_images`` runs the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from raftnode import log_frames, recovery, segmented_log, storage
from raftnode.segmented_log import SegmentedLog
from raftnode.spare_segments import SpareSegments
from statemachine.events import HardState
from tests.crash_images import __main__ as program
from tests.crash_images import flips
from tests.crash_images.flips import judge_flips
from tests.crash_images.images import Disk, digest
from tests.crash_images.judge import Judge, Wrong
from tests.crash_images.life import Life, small_pieces
from tests.crash_images.plan import CASES, SAMPLE, run_flips, run_life, run_scenario
from tests.crash_images.recorder import Kind, Operation, Promise, Recorder, image_of
from tests.crash_images.scenarios import SCENARIOS
from tests.stage3_raftnode.storage_tools import run, small_segments


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_image_of_a_crash_recovers_with_all_that_was_acknowledged(name: str) -> None:
    row = run_scenario(name, SAMPLE)
    assert row.recovered == row.images > 2 * row.boundaries


@pytest.mark.parametrize("seed", range(SAMPLE.lives))
def test_so_does_every_image_of_a_life_that_dice_made_up(seed: int) -> None:
    row = run_life(seed, SAMPLE)
    assert row.recovered == row.images > row.boundaries / 2


@pytest.mark.parametrize("name", CASES)
def test_a_byte_that_changed_is_detected_or_harmless(name: str) -> None:
    row = run_flips(name, SAMPLE)
    assert (row.refused > 0) == (name in {"log", "hard state", "snapshot"})


class TestImages:
    """What is made of a record: known small cases."""

    @staticmethod
    def contents(*operations: Operation, count: int = 500) -> set[bytes | None]:
        """What ``x`` may hold when the last of these operations is cut in the middle."""
        disk = Disk({"x": b"old!"})
        for operation in operations[:-1]:
            disk.begin(operation)
            disk.end(operation)
        disk.begin(operations[-1])
        return {image.get("x") for _, image in disk.images(Random(1), count)}

    @staticmethod
    def operation(kind: Kind, **fields: Any) -> Operation:
        return Operation(kind, Promise(frozenset(), frozenset()), 1, "x", **fields)

    def test_a_write_in_the_middle(self) -> None:
        contents = self.contents(self.operation(Kind.WRITE, offset=4, data=b"abc", flushed=True))
        assert {b"old!", b"old!a", b"old!ab", b"old!abc", b"old!\0bc", b"old!\0\0c", b"old!\0\0\0"} <= contents
        assert all(content is not None and content[:4] == b"old!" and len(content) <= 7 for content in contents)
        assert len(contents) > 10

    def test_what_was_flushed_stays(self) -> None:
        write = self.operation(Kind.WRITE, offset=0, data=b"new", flushed=True)
        assert self.contents(write, self.operation(Kind.FLUSH)) == {b"new!"}

    def test_two_writes_survive_in_any_combination(self) -> None:
        first = self.operation(Kind.WRITE, offset=0, data=b"AA")
        second = self.operation(Kind.WRITE, offset=1, data=b"BB")
        assert {b"old!", b"AAd!", b"oBB!", b"ABB!", b"AAB!"} <= self.contents(first, second)

    def test_writing_what_stands_there_harms_nothing(self) -> None:
        assert self.contents(self.operation(Kind.WRITE, offset=0, data=b"old!")) == {b"old!"}

    def test_a_truncation_may_have_come_half_way(self) -> None:
        assert self.contents(self.operation(Kind.TRUNCATE, offset=1)) == {b"old!", b"old", b"ol", b"o"}

    def test_names_are_lost_from_the_end(self) -> None:
        rename = self.operation(Kind.RENAME, target="y")
        back = attrs.evolve(self.operation(Kind.RENAME, target="x"), name="y")
        unlink = self.operation(Kind.UNLINK)
        assert self.contents(rename) == {b"old!", None}
        assert self.contents(rename, back, unlink) == {b"old!", None}
        assert self.contents(rename, attrs.evolve(rename, kind=Kind.FLUSH_DIRECTORY), back) == {b"old!", None}

    def test_images_with_the_same_bytes_under_other_names_differ(self) -> None:
        assert len({digest(image) for image in ({"a": b"xy"}, {"b": b"xy"}, {"a": b"x", "b": b"y"}, {})}) == 4


def judge_scenario(name: str, change: Callable[[Operation], Operation] = lambda operation: operation) -> None:
    """Judges a few images of a scenario, of which the record was changed."""
    with small_pieces():
        life = Life()
        SCENARIOS[name](life)
        Judge(life.chunks, name).judge_recording({}, list(map(change, life.recorder.operations)), 20)


class TestTheJudgeSees:
    """A disk or a storage that doesn't do what it should is found out: else all that is green above means nothing."""

    @pytest.mark.parametrize(
        ("kind", "name_part", "scenario"),
        [
            (Kind.WRITE, ".seg", "append"),
            (Kind.WRITE, "log-next", "rotation"),
            (Kind.FLUSH_DIRECTORY, "", "rotation"),
            (Kind.FLUSH_DIRECTORY, "", "append"),
            (Kind.FLUSH_DIRECTORY, "", "install"),
            (Kind.FLUSH, "snapshot", "install"),
        ],
    )
    def test_a_flush_that_is_none(self, kind: Kind, name_part: str, scenario: str) -> None:
        def unflushed(operation: Operation) -> Operation:
            if operation.kind is not kind or name_part not in operation.name:
                return operation
            if kind is Kind.WRITE:
                return attrs.evolve(operation, flushed=False)
            return attrs.evolve(operation, kind=Kind.RETURNED)

        judge_scenario(scenario)
        with pytest.raises(Wrong):
            judge_scenario(scenario, unflushed)

    def test_a_hard_state_that_is_saved_apart_from_its_entries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        save = SegmentedLog.save

        def in_two_parts(log: SegmentedLog, hard_state: HardState | None, runs: Any, reset: Any = None) -> None:
            if hard_state is not None and runs:
                save(log, hard_state, ())
                hard_state = None
            save(log, hard_state, runs, reset)

        monkeypatch.setattr(SegmentedLog, "save", in_two_parts)
        with pytest.raises(Wrong, match="promised"):
            judge_scenario("hard state")

    def test_torn_saves_that_are_taken_for_damage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recovery, "find_frame", lambda data, start, salt, sequence_min, checksum: start + 8)
        with pytest.raises(Wrong, match="refused"):
            judge_scenario("append")

    def test_files_that_are_left_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "_is_temporary", lambda name: False)
        with pytest.raises(Wrong, match=r"left over|it exists"):
            judge_scenario("rotation")

    def test_a_stale_log_that_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "_reset_stale", lambda log, snapshot: None)
        with pytest.raises(Wrong, match="can't go on"):
            judge_scenario("install")

    def test_a_hard_state_that_goes_with_the_segments_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        header = segmented_log._header

        def without_hard_state(filesystem: Any, identity: Any, _: HardState, **fields: Any) -> Any:
            return header(filesystem, identity, HardState(0, None), **fields)

        monkeypatch.setattr(segmented_log, "_header", without_hard_state)
        with pytest.raises((Wrong, AssertionError)):
            judge_scenario("compaction")

    def test_a_segment_that_is_used_again_while_its_old_name_may_come_back(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take = SpareSegments.take

        def unflushed(spares: SpareSegments, size_bytes: int) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(Recorder, "flush_directory", lambda recorder, path: None)
                return take(spares, size_bytes)

        monkeypatch.setattr(SpareSegments, "take", unflushed)
        with pytest.raises(Wrong, match="refused"):
            judge_scenario("reused")

    def test_frames_of_an_earlier_use_that_are_taken_for_damage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They would have to have the same salt, which is rare."""
        header = segmented_log._header

        def of_one_salt(*arguments: Any, **fields: Any) -> Any:
            return attrs.evolve(header(*arguments, **fields), salt=7)

        monkeypatch.setattr(segmented_log, "_header", of_one_salt)
        judge_scenario("reused")
        find_frame = log_frames.find_frame
        monkeypatch.setattr(recovery, "find_frame", lambda data, start, salt, *_: find_frame(data, start, salt))
        with pytest.raises(Wrong, match="refused"):
            judge_scenario("reused")

    def test_damage_that_is_taken_for_torn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small_segments(monkeypatch, 16 * 1024)
        case = flips.log_case()
        monkeypatch.setattr(recovery, "find_frame", lambda data, start, salt, sequence_min, checksum: None)
        with pytest.raises(Wrong, match="not refused"):
            judge_flips(case, flips.one_value, stride=501)

    def test_a_refusal_that_deletes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        small_segments(monkeypatch, 16 * 1024)
        case = flips.log_case()
        find_log = recovery.find_log

        def deleting(filesystem: Any, directory: Path, names: Any, identity: Any) -> Any:
            try:
                return find_log(filesystem, directory, names, identity)
            except storage.LogCorrupt:
                filesystem.unlink(directory / names[-1])
                raise

        monkeypatch.setattr("raftnode.storage.find_log", deleting)
        with pytest.raises(Wrong, match="come or gone"):
            judge_flips(case, flips.one_value, stride=501)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_record_alone_leads_to_what_the_recorded_disk_holds(name: str) -> None:
    """Two models of a disk that know nothing of each other agree on what would be there without a crash."""
    with small_pieces():
        life = Life()
        SCENARIOS[name](life)
    disk = Disk()
    for operation in life.recorder.operations:
        disk.begin(operation)
        disk.end(operation)
    assert next(disk.images(Random(0), 1))[1] == image_of(life.disk)


def test_recordings_repeat() -> None:
    """Equal seeds make equal images, or a failure could not be looked at again."""
    rows = [run_scenario("prepare between", attrs.evolve(SAMPLE, images_per_boundary=5)) for _ in range(2)]
    assert rows[0] == rows[1]
    assert rows[0] != run_scenario("prepare between", attrs.evolve(SAMPLE, images_per_boundary=5, seed=2))


def test_a_save_while_a_snapshot_gets_its_name_is_recorded_in_between() -> None:
    with small_pieces():
        life = Life()
        life.open()
        life.save(None, run(1, 1, b"a"))
        begin = len(life.recorder.operations)
        life.recorder.interrupt(Kind.RENAME, "snapshot", lambda: life.save(None, run(2, 1, b"b")))
        life.take_snapshot(1, 1)
        kinds = [operation.kind for operation in life.recorder.operations[begin:]]
    assert kinds == [
        Kind.CREATE,
        Kind.WRITE,
        Kind.FLUSH,
        Kind.RENAME,
        Kind.WRITE,
        Kind.RETURNED,
        Kind.FLUSH_DIRECTORY,
        Kind.RETURNED,
    ]


def test_a_row_that_is_not_there_is_no_success() -> None:
    result = CliRunner().invoke(program.main, ["--sample", "--only", "nosuchrow"])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == "Error: --only: no row has 'nosuchrow' in its name"
