"""Opens images with the real storage and judges what is found.

A crash harms nothing that was acknowledged, so every image of one must open. What is then required:

* The state found is one that was promised: all that was acknowledged, and of the step under way all or nothing.
* The snapshot to start from can be read to its end and holds what was written; no newer one is called damaged;
  no file that was begun is left over; the clock is 0 or one that was saved.
* What was found is on disk: it is found again after a power cut that takes all that wasn't flushed.
* The server can go on: a save made then, and acknowledged, is found behind the same state after another cut.
* A crash at any operation of this recovery leaves images for which the same holds. These are made for a part of the
  images, and judged in the same way, once deep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import attrs

from raftnode.simulated_disk import SimulatedDisk, Survival
from raftnode.storage import Recovered, Storage, StorageError
from statemachine.events import HardState
from tests.crash_images.images import Disk, digest
from tests.crash_images.recorder import Image, Operation, Promise, Recorder, disk_of
from tests.stage3_raftnode.storage_tools import DIRECTORY, State, open_storage, run, state_of

RECOVERY_IMAGES = 3
"""So many at each operation of a recovery."""


class Wrong(AssertionError):
    """An image broke a promise; the message says which image and how."""


@attrs.define
class Tally:
    """What was judged."""

    boundaries: int = 0
    images: int = 0
    """Different ones."""
    recovered: int = 0
    torn: int = 0
    """Of these, with the rest of a save that was dropped."""
    in_recovery: int = 0
    """Of the images, those that a crash in a recovery has left."""


@attrs.frozen
class _Found:
    state: State
    clock_us: int
    is_torn: bool


class Judge:
    """Judges the images of one recording. ``chunks`` is what the snapshots hold, by index and term.

    Every ``recovery_every``th image is also crashed at all operations of its own recovery (0: none is).
    """

    def __init__(
        self, chunks: Mapping[tuple[int, int], tuple[bytes, ...]], seed: str, *, recovery_every: int = 0
    ) -> None:
        self.tally = Tally()
        self._chunks = chunks
        self._seed = seed
        self._recovery_every = recovery_every
        self._known: dict[bytes, _Found] = {}
        self._states: dict[State, State] = {}

    @property
    def digests(self) -> frozenset[bytes]:
        """Of all images that were judged."""
        return frozenset(self._known)

    def judge_recording(self, start: Image, operations: list[Operation], images_per_boundary: int) -> None:
        """Makes and judges the images of each operation. Raises Wrong."""
        disk = Disk(start)
        for number, operation in enumerate(operations):
            disk.begin(operation)
            dice = Random(f"{self._seed}/{number}")
            for how, image in disk.images(dice, images_per_boundary):
                self._judge_deeply(image, operation.promise, f"{self._seed}/{number} ({operation}): {how}")
            disk.end(operation)
            self.tally.boundaries += 1

    def _judge_deeply(self, image: Image, promise: Promise, origin: str) -> None:
        """Judges an image, and if its turn has come, those of its recovery."""
        if not self._judge(image, promise, origin):
            return
        if self._recovery_every and self.tally.images % self._recovery_every == 0:
            for further, further_promise, how in self._crashes_of_recovery(image, promise, origin):
                if self._judge(further, further_promise, f"{origin}; then {how}"):
                    self.tally.in_recovery += 1

    def _judge(self, image: Image, promise: Promise, origin: str) -> bool:
        """Judges an image; returns whether it is one that had not come before."""
        mark = digest(image)
        found = self._known.get(mark)
        is_new = found is None
        if found is None:
            found = self._open(image, origin)
            self._known[mark] = found
            self.tally.images += 1
            self.tally.recovered += 1
            self.tally.torn += found.is_torn
        if found.state not in promise.states:
            raise Wrong(f"{origin}\nfound    {_shown(found.state)}" + _listed(promise.states))
        if found.clock_us not in promise.clocks_us:
            raise Wrong(f"{origin}\nfound the clock {found.clock_us}, which nobody had saved")
        return is_new

    def _open(self, image: Image, origin: str) -> _Found:
        """Recovers, recovers once more, goes on."""
        disk = disk_of(image)
        storage, recovered = self._recover(disk, origin)
        state = state_of(recovered)
        self._check_files(disk, storage, recovered, origin)
        disk.power_cut(Random(0), Survival.NOTHING)
        storage, again = self._recover(disk, f"{origin}; second recovery")
        if state_of(again) != state:
            raise Wrong(f"{origin}\nfound    {_shown(state)}\nand then {_shown(state_of(again))}")
        term = state[0].current_term + 1
        index = recovered.last_index + 1
        try:
            storage.save(HardState(term, 1), [run(index, term, b"after")])
        except (StorageError, ValueError) as error:
            raise Wrong(f"{origin}\nfound    {_shown(state)}\nand can't go on: {error!r}") from error
        disk.power_cut(Random(0), Survival.NOTHING)
        _, after = self._recover(disk, f"{origin}; after a further save")
        if state_of(after) != (HardState(term, 1), state[1], (*state[2], (index, term, b"after"))):
            raise Wrong(f"{origin}\nfound    {_shown(state)}\nand after a save {_shown(state_of(after))}")
        # Of equal states one is kept: those of big entries would fill the memory.
        state = self._states.setdefault(state, state)
        return _Found(state, recovered.clock_us, recovered.torn is not None)

    def _recover(self, disk: SimulatedDisk, origin: str) -> tuple[Storage, Recovered]:
        try:
            return open_storage(disk)
        except StorageError as error:
            raise Wrong(f"{origin}\nrefused: {error!r}") from error

    def _check_files(self, disk: SimulatedDisk, storage: Storage, recovered: Recovered, origin: str) -> None:
        if recovered.damaged_snapshots:
            raise Wrong(f"{origin}\ncalls snapshots damaged: {recovered.damaged_snapshots}")
        if left := [name for name in disk.list_directory(DIRECTORY) if name.endswith(".tmp")]:
            raise Wrong(f"{origin}\nleft over: {left}")
        snapshot = recovered.snapshot
        if snapshot is not None:
            chunks = tuple(storage.snapshots.read(snapshot))
            if chunks != self._chunks[snapshot.index, snapshot.term]:
                raise Wrong(f"{origin}\nthe snapshot at {snapshot.index} holds something else")

    def _crashes_of_recovery(self, image: Image, promise: Promise, origin: str) -> Iterator[tuple[Image, Promise, str]]:
        """What crashes in the recovery of an image leave, and behind it, where what was told must be found again."""
        told = [promise]
        recorder = Recorder(disk_of(image), lambda: told[-1])
        _, recovered = open_storage(recorder)
        told.append(Promise(frozenset({state_of(recovered)}), promise.clocks_us))
        recorder.returned()
        disk = Disk(image)
        for number, operation in enumerate(recorder.operations):
            disk.begin(operation)
            for how, further in disk.images(Random(f"{origin}/{number}"), RECOVERY_IMAGES):
                yield further, operation.promise, f"{number} of its recovery ({operation}): {how}"
            disk.end(operation)


def _shown(state: State) -> str:
    hard_state, snapshot, entries = state
    kept = ", ".join(f"{index}@{term}:{entry[:8]!r}({len(entry)})" for index, term, entry in entries)
    return f"{hard_state} snapshot {snapshot} entries {kept}"


def _listed(states: frozenset[State]) -> str:
    return "".join(f"\npromised {_shown(state)}" for state in sorted(states, key=repr))
