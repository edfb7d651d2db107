"""Single bytes of a log, a snapshot, a hard state and a clock that have changed by themselves.

What is required, for every byte and whatever it became:

* In the log, anywhere before the last frame: refused, and nothing on the disk was changed or removed.
* In the last frame: the log ends before it, and says that something torn was dropped. It can't be told from a save that
  a crash cut short (see raftnode.recovery).
* In the zeros behind it: all is found, and something torn is reported. What stands in an older segment behind the
  place from which the log goes on in the next one is no part of the log.
* In the ends of a snapshot: passed over with a report where the log stands in for it, refused where it doesn't.
* In the rest of a snapshot: refused when it is read; every chunk given out before that is right. Opened again with
  that snapshot distrusted, as above. The damaged file stays as it is.
* In the clock: 0, or what was saved.

One prepared disk is used for all bytes of a case: the byte is changed, storage is opened, the byte is put back.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import attrs

from raftnode.recovery import find_log
from raftnode.simulated_disk import SimulatedDisk
from raftnode.snapshots import snapshot_path
from raftnode.storage import LogCorrupt, SnapshotCorrupt, Storage
from statemachine.events import HardState
from tests.crash_images.judge import Wrong
from tests.crash_images.recorder import Image, disk_of, image_of
from tests.stage3_raftnode.storage_tools import (
    DIRECTORY,
    IDENTITY,
    State,
    Workload,
    open_storage,
    run,
    state_of,
)

Values = Callable[[int, int, Random], Iterator[int]]
"""What a byte is to become: from its offset, its value and dice."""


class Outcome(enum.Enum):
    """How a changed byte was dealt with."""

    REFUSED = "refused"
    TORN = "torn"
    """Dropped as the rest of a save, and reported."""
    PASSED_OVER = "passed over"
    """A snapshot that the log, or an older one, stands in for; reported."""
    HARMLESS = "harmless"
    """All is there."""


@attrs.define
class FlipTally:
    """What became of the changed bytes of one case."""

    places: int
    """How many bytes were changed."""
    outcomes: Counter[Outcome] = attrs.Factory(Counter)

    @property
    def flips(self) -> int:
        """How many bytes were changed, each as often as it was."""
        return self.outcomes.total()


@attrs.frozen
class Case:
    """A disk, and what is on it."""

    name: str
    image: Image
    files: tuple[str, ...]
    """Those whose bytes are changed."""
    state: State
    chunks: dict[tuple[int, int], tuple[bytes, ...]]
    clocks_us: frozenset[int]
    last_name: str
    """The last segment."""
    last_frame: int
    """Where in it the last frame begins."""
    ends: dict[str, int]
    """Where in each segment the log ends, or goes on in the next."""
    state_without_last: State


def all_values(offset: int, value: int, dice: Random) -> Iterator[int]:
    """Everything else that a byte can be."""
    return (other for other in range(256) if other != value)


def few_values(offset: int, value: int, dice: Random) -> Iterator[int]:
    """The lowest bit of it changed, all bits, some by chance, and 0."""
    return iter(sorted({value ^ 1, value ^ 255, value ^ dice.randrange(1, 256), 0} - {value}))


def one_value(offset: int, value: int, dice: Random) -> Iterator[int]:
    """One other value, by chance."""
    yield value ^ dice.randrange(1, 256)


def _case(name: str, workload: Workload, disk: SimulatedDisk, wanted: Callable[[str], bool]) -> Case:
    """The disk as a killed process leaves it, all flushed; the last step has to have been a save of one frame."""
    image = image_of(disk)
    found = find_log(disk, DIRECTORY, list(image), IDENTITY)
    assert found is not None
    assert found.last_frame_offset is not None
    last = found.segments[-1]
    shorter = dict(image)
    shorter[last.path.name] = image[last.path.name][: found.last_frame_offset]
    _, without_last = open_storage(disk_of(shorter))
    return Case(
        name=name,
        image=image,
        files=tuple(sorted(filter(wanted, image))),
        state=workload.model.state(),
        chunks=workload.chunks,
        clocks_us=frozenset(workload.clocks_us),
        last_name=last.path.name,
        last_frame=found.last_frame_offset,
        ends={segment.path.name: segment.size_bytes for segment in found.segments},
        state_without_last=state_of(without_last),
    )


def log_case() -> Case:
    """A log of 64 KiB over its segments: small frames and bigger ones, hard states, truncations."""
    disk = SimulatedDisk()
    workload = Workload(disk)
    dice = Random("log to flip")
    workload.open()
    index = term = 1
    while workload.storage.log_bytes < 62 * 1024:
        if workload.storage.needs_next:
            workload.storage.prepare_next()
        hard_state = None
        if dice.random() < 0.2:
            term += 1
            hard_state = HardState(term, dice.choice((None, 1, 4)))
            index = max(index - 1, 1)
        entries = [dice.randbytes(dice.choice((20, 200, 700))) for _ in range(dice.choice((1, 1, 3)))]
        workload.save(hard_state, run(index, term, *entries))
        index += len(entries)
    return _case("log", workload, disk, lambda name: name.endswith(".seg"))


def hard_state_case() -> Case:
    """Terms and votes and nothing else, in segments so small that their headers hold some of them."""
    disk = SimulatedDisk()
    workload = Workload(disk)
    workload.open()
    for term in range(1, 20):
        if workload.storage.needs_next:
            workload.storage.prepare_next()
        workload.save(HardState(term, term % 6 or None))
    return _case("hard state", workload, disk, lambda name: name.endswith(".seg"))


def snapshot_case(*, log_reaches_back: bool) -> Case:
    """A snapshot of 64 KiB with a log that could stand in for it, or one that goes on behind it."""
    disk = SimulatedDisk()
    workload = Workload(disk)
    dice = Random("snapshot to flip")
    workload.open()
    entries = [dice.randbytes(100) for _ in range(10)]
    workload.save(HardState(1, 1), run(1, 1, *entries))
    chunks = [dice.randbytes(size) for size in (0, 1, 6_000, 20_000, 9_000, 30_000)]
    chunks.append(dice.randbytes(64 * 1024 - sum(map(len, chunks)) - 8 * (len(chunks) + 1) - 120))
    workload.take_snapshot(8, 1, *chunks)
    if not log_reaches_back:
        workload.receive_snapshot(40, 2, *chunks)
        disk.unlink(snapshot_path(DIRECTORY, 8, 1))
        workload.reset_to(40, 2)
    workload.save(HardState(3, 3), run(11 if log_reaches_back else 41, 3, b"last"))
    name = "snapshot, log reaches back" if log_reaches_back else "snapshot"
    return _case(name, workload, disk, lambda name: name.endswith(".snap"))


def clock_case() -> Case:
    """The file with the cluster clock."""
    disk = SimulatedDisk()
    workload = Workload(disk)
    workload.open()
    workload.save_clock(1_234_567_890_123_456)
    workload.save(HardState(1, 1), run(1, 1, b"last"))
    return _case("clock", workload, disk, lambda name: name == "clock")


def judge_flips(case: Case, values: Values, *, stride: int = 1, start: int = 0) -> FlipTally:
    """Changes every byte, or every ``stride``th from ``start``, into those values. Raises Wrong."""
    tally = FlipTally(sum(len(range(start, len(case.image[name]), stride)) for name in case.files))
    dice = Random(f"flips {case.name}")
    disk = disk_of(case.image)
    for name in case.files:
        content = case.image[name]
        for offset in range(start, len(content), stride):
            for value in values(offset, content[offset], dice):
                disk.content(DIRECTORY / name)[offset] = value
                try:
                    outcome = _judge_flip(case, disk, name, offset)
                except Wrong as error:
                    raise Wrong(f"{name} with {value} at {offset} in place of {content[offset]}: {error}") from error
                tally.outcomes[outcome] += 1
                disk.content(DIRECTORY / name)[offset] = content[offset]
                disk.process_killed()
                if not _is_as_before(case, disk):
                    disk = disk_of(case.image)
    return tally


def _is_as_before(case: Case, disk: SimulatedDisk) -> bool:
    """Whether the disk can be used for the next byte."""
    names = disk.list_directory(DIRECTORY)
    return len(names) == len(case.image) and all(
        name in case.image and disk.content(DIRECTORY / name) == case.image[name] for name in names
    )


def _judge_flip(case: Case, disk: SimulatedDisk, name: str, offset: int) -> Outcome:
    """Opens it. Raises Wrong."""
    before = bytes(disk.content(DIRECTORY / name))
    try:
        storage, recovered = open_storage(disk)
    except (LogCorrupt, SnapshotCorrupt) as error:
        if error.path.name != name:
            raise Wrong(f"the error names {error.path.name}") from error
        if not _must_refuse(case, name, offset):
            raise Wrong(f"it was refused: {error}") from error
        _check_untouched(case, disk, name, before)
        return Outcome.REFUSED
    # A damaged clock may be taken for none; one that is whole may not.
    clocks_us = case.clocks_us if name == "clock" else {max(case.clocks_us)}
    if recovered.clock_us not in clocks_us:
        raise Wrong(f"the clock is {recovered.clock_us}")
    state = state_of(recovered)
    if recovered.damaged_snapshots:
        _check_stand_in(case, state)
        _check_file(disk, name, before)
        return Outcome.PASSED_OVER
    if name.endswith(".seg"):
        return _judge_last(case, state, name, offset, is_torn=recovered.torn is not None)
    if state != case.state:
        raise Wrong(f"found {state}")
    if recovered.snapshot is not None and name.endswith(".snap"):
        return _judge_body(case, disk, storage, recovered.snapshot.path, before)
    return Outcome.HARMLESS


def _must_refuse(case: Case, name: str, offset: int) -> bool:
    """Whether storage is right not to open with damage there."""
    if name.endswith(".seg"):
        return offset < (case.last_frame if name == case.last_name else case.ends[name])
    return name.endswith(".snap") and case.state[1] is not None and case.state[1][0] == 40


def _judge_last(case: Case, state: State, name: str, offset: int, *, is_torn: bool) -> Outcome:
    """A log that was opened: only its last frame may be missing, or something stands behind that."""
    if _must_refuse(case, name, offset):
        raise Wrong("it was not refused")
    in_last_frame = offset < case.ends[name]
    if is_torn != (name == case.last_name):
        raise Wrong("nobody is told of it, or of something else")
    if state != (case.state_without_last if in_last_frame else case.state):
        raise Wrong(f"found {state}")
    return Outcome.TORN if in_last_frame else Outcome.HARMLESS


def _judge_body(case: Case, disk: SimulatedDisk, storage: Storage, path: Path, before: bytes) -> Outcome:
    """A snapshot whose ends are good is read; then storage is opened again without it."""
    snapshot = storage.snapshots.latest
    assert snapshot is not None
    chunks: list[bytes] = []
    try:
        chunks.extend(storage.snapshots.read(snapshot))
    except SnapshotCorrupt as error:
        if error.path != path:
            raise Wrong(f"the error names {error.path}") from error
    else:
        raise Wrong("it was read to its end")
    finally:
        if tuple(chunks) != case.chunks[snapshot.index, snapshot.term][: len(chunks)]:
            raise Wrong("wrong chunks were given out")
    disk.process_killed()
    _check_file(disk, path.name, before)
    try:
        _, recovered = Storage.open(DIRECTORY, IDENTITY, disk, distrusted={path})
    except SnapshotCorrupt as error:
        if not _must_refuse(case, path.name, 0):
            raise Wrong(f"it was refused: {error}") from error
        return Outcome.REFUSED
    _check_stand_in(case, state_of(recovered))
    _check_file(disk, path.name, before)
    return Outcome.PASSED_OVER


def _check_stand_in(case: Case, state: State) -> None:
    """Without the snapshot the log has to have all that was in it."""
    hard_state, snapshot, entries = state
    _, whole_snapshot, whole_entries = case.state
    if (hard_state, snapshot) != (case.state[0], None) or whole_snapshot is None:
        raise Wrong(f"found {state}")
    if [entry[0] for entry in entries] != list(range(1, whole_entries[-1][0] + 1)):
        raise Wrong("entries are missing")
    if entries[whole_snapshot[0] :] != whole_entries:
        raise Wrong("the entries are not those behind the snapshot")


def _check_file(disk: SimulatedDisk, name: str, before: bytes) -> None:
    if name not in disk.list_directory(DIRECTORY) or disk.content(DIRECTORY / name) != before:
        raise Wrong("the damaged file was changed or removed")


def _check_untouched(case: Case, disk: SimulatedDisk, name: str, before: bytes) -> None:
    """After a refusal everything is as it was."""
    names = disk.list_directory(DIRECTORY)
    if sorted(names) != sorted(case.image):
        raise Wrong(f"files have come or gone: {names}")
    for each in names:
        if disk.content(DIRECTORY / each) != (before if each == name else case.image[each]):
            raise Wrong(f"{each} was changed")
