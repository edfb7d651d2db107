"""What is run: every part is a task of its own that gives one row of counts, so that parts can run side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from zlib import crc32

import attrs
import pytest

from tests.crash_images import flips
from tests.crash_images.flips import Case, FlipTally, Outcome, Values, judge_flips
from tests.crash_images.judge import Judge
from tests.crash_images.life import Life, small_pieces
from tests.crash_images.random_lives import RandomLife
from tests.crash_images.scenarios import SCENARIOS
from tests.stage3_raftnode.storage_tools import small_segments


@attrs.frozen
class Effort:
    """How much of it."""

    images_per_boundary: int
    recovery_every: int
    """Every so many images are crashed again in all operations of their recovery."""
    lives: int
    """How many made up by dice."""
    images_per_boundary_of_lives: int
    values: Values
    """What each byte is to become."""
    log_stride: int
    snapshot_stride: int
    """Only every so many bytes are changed."""
    small_values: Values
    """The same for the hard state, of which every byte is changed."""
    seed: int = 1


SAMPLE = Effort(
    images_per_boundary=45,
    recovery_every=15,
    lives=20,
    images_per_boundary_of_lives=6,
    values=flips.one_value,
    log_stride=11,
    snapshot_stride=31,
    small_values=flips.few_values,
)
"""For every run of the tests."""
FULL = Effort(
    images_per_boundary=300,
    recovery_every=5,
    lives=200,
    images_per_boundary_of_lives=12,
    values=flips.few_values,
    log_stride=1,
    snapshot_stride=1,
    small_values=flips.all_values,
)


@attrs.frozen
class Row:
    """What came of one task."""

    name: str
    boundaries: int
    images: int
    recovered: int
    torn: int
    """Of those recovered, where the rest of a save was dropped."""
    in_recovery: int
    """Of the images, those that a crash in a recovery left."""
    refused: int
    """Rightly."""
    digests: frozenset[bytes]
    """Of the images of crashes."""


def run_scenario(name: str, effort: Effort) -> Row:
    """Records a scenario and judges its images. Raises Wrong."""
    with small_pieces():
        life = Life(crc32(name.encode()))
        SCENARIOS[name](life)
        return _judged(name, life, effort, effort.images_per_boundary)


def run_life(seed: int, effort: Effort) -> Row:
    """The same of a life that dice make up."""
    with small_pieces():
        life = Life(seed)
        RandomLife(life, seed).live()
        return _judged(f"life {seed}", life, effort, effort.images_per_boundary_of_lives)


def run_lives(seeds: range, effort: Effort) -> Row:
    """Several of them in one row."""
    rows = [run_life(seed, effort) for seed in seeds]
    return added(f"lives {seeds[0]} to {seeds[-1]}", rows)


def _judged(name: str, life: Life, effort: Effort, images_per_boundary: int) -> Row:
    judge = Judge(life.chunks, f"seed {effort.seed}, {name}", recovery_every=effort.recovery_every)
    judge.judge_recording({}, life.recorder.operations, images_per_boundary)
    tally = judge.tally
    return Row(name, tally.boundaries, tally.images, tally.recovered, tally.torn, tally.in_recovery, 0, judge.digests)


CASES: dict[str, tuple[int, Callable[[], Case]]] = {
    "log": (16 * 1024, flips.log_case),
    "hard state": (512, flips.hard_state_case),
    "clock": (4096, flips.clock_case),
    "snapshot": (4096, partial(flips.snapshot_case, log_reaches_back=False)),
    "snapshot and whole log": (4096, partial(flips.snapshot_case, log_reaches_back=True)),
}
"""The size of the segments, and how the disk is prepared."""


def run_flips(name: str, effort: Effort, *, part: int = 0, parts: int = 1) -> Row:
    """Changes the bytes of one case, or of one part of them. Raises Wrong."""
    segment_bytes, prepare = CASES[name]
    stride, values = 1, effort.small_values
    if name == "log":
        stride, values = effort.log_stride, effort.values
    elif name.startswith("snapshot"):
        stride, values = effort.snapshot_stride, effort.values
    elif name == "clock":
        values = flips.all_values
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_segments(monkeypatch, segment_bytes)
        tally = judge_flips(prepare(), values, stride=stride * parts, start=stride * part)
    return _row_of_flips(f"{name}, flipped", tally)


def _row_of_flips(name: str, tally: FlipTally) -> Row:
    refused = tally.outcomes[Outcome.REFUSED]
    torn = tally.outcomes[Outcome.TORN]
    return Row(name, tally.places, tally.flips, tally.flips - refused, torn, 0, refused, frozenset())


def added(name: str, rows: list[Row]) -> Row:
    """The sum of rows; images that came in several of them count once."""
    digests = frozenset().union(*(row.digests for row in rows))
    repeated = sum(len(row.digests) for row in rows) - len(digests)
    return Row(
        name,
        sum(row.boundaries for row in rows),
        sum(row.images for row in rows) - repeated,
        sum(row.recovered for row in rows) - repeated,
        sum(row.torn for row in rows),
        sum(row.in_recovery for row in rows),
        sum(row.refused for row in rows),
        digests,
    )
