"""Lives that dice make up: any order of what a server may do, cut and killed anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random

from raftnode.simulated_disk import Survival
from raftnode.storage import DiskFull
from statemachine.events import HardState
from tests.crash_images.life import SEGMENT_BYTES, Life
from tests.crash_images.recorder import Kind
from tests.stage3_raftnode.storage_tools import run

STEPS = 40
_SIZES_BYTES = (0, 1, 7, 60, 300, 900, 2_500, 6_000)


class RandomLife:
    """One life; equal seeds make equal ones."""

    def __init__(self, life: Life, seed: int) -> None:
        self._life = life
        self._dice = Random(f"life {seed}")
        self._term = 1

    def live(self) -> None:
        """Opens, and does some forty things."""
        self._life.open()
        steps: list[Callable[[], None]] = [
            *[self._save] * 8,
            *[self._life.prepare_next] * 3,
            *[self._take_snapshot] * 2,
            *[self._compact] * 2,
            self._install,
            self._vote,
            self._save_within_preparation,
            self._reopen,
            self._fill_up,
        ]
        for _ in range(STEPS):
            step = self._dice.choice(steps)
            if self._dice.random() < 0.15:
                self._crash_in(step)
            else:
                step()

    def _crash_in(self, step: Callable[[], None]) -> None:
        calls = self._dice.randrange(1, 12)
        if self._dice.random() < 0.5:
            self._life.kill_in(calls, step)
        else:
            self._life.cut_in(calls, self._dice.randrange(1 << 30), step, self._dice.choice(list(Survival)))
        self._life.disk.space_bytes = None
        if self._dice.random() < 0.3:
            self._life.cut_in(self._dice.randrange(1, 20), self._dice.randrange(1 << 30), self._life.open)
        self._life.open()
        self._term = max(self._term, self._life.model.hard_state.current_term)

    def _last_index(self) -> int:
        model = self._life.model
        return max(model.entries, default=model.snapshot[0] if model.snapshot else 0)

    def _save(self) -> None:
        model, dice = self._life.model, self._dice
        lowest = model.snapshot[0] + 1 if model.snapshot else 1
        first_index = self._last_index() + 1
        if dice.random() < 0.3:
            first_index = max(first_index - dice.randrange(6), lowest)
            self._term += 1
        entries = [dice.randbytes(dice.choice(_SIZES_BYTES)) for _ in range(dice.choice((1, 1, 1, 2, 5)))]
        hard_state = HardState(self._term, dice.choice((None, 1, 5))) if dice.random() < 0.3 else None
        runs = [run(first_index, self._term, *entries)]
        if dice.random() < 0.2:
            self._term += 1
            runs.append(run(first_index + dice.randrange(len(entries) + 1), self._term, b"second run"))
        self._life.save(hard_state, *runs)

    def _vote(self) -> None:
        self._term += 1
        self._life.save(HardState(self._term, self._dice.choice((None, 2, 4))))
        self._life.save_clock(self._term * 1_000)

    def _save_within_preparation(self) -> None:
        """A save while another thread lays a segment ready, if that has to be done."""
        self._life.recorder.interrupt(Kind.WRITE, "log-next", self._save)
        try:
            self._life.prepare_next()
        finally:
            self._life.recorder.interrupt_no_more()

    def _take_snapshot(self) -> None:
        entries = self._life.model.entries
        if entries:
            index = self._dice.choice(sorted(entries))
            term = entries[index][0]
            self._life.take_snapshot(index, term, b"%d" % index * 200, b"%d" % term * 300)

    def _compact(self) -> None:
        snapshot = self._life.model.snapshot
        if snapshot is not None:
            self._life.compact(snapshot[0] + 1)

    def _install(self) -> None:
        index = self._last_index() + self._dice.randrange(1, 5)
        self._life.receive_snapshot(index, self._term, piece_bytes=self._dice.choice((150, 500, 5_000)))
        self._life.reset_to(index, self._term)

    def _reopen(self) -> None:
        self._life.close()
        assert self._life.open().torn is None

    def _fill_up(self) -> None:
        """A full disk for a while."""
        disk = self._life.disk
        disk.space_bytes = disk.used_bytes() + self._dice.randrange(SEGMENT_BYTES)
        for step in (self._save, self._take_snapshot, self._save, self._life.prepare_next):
            with contextlib.suppress(DiskFull):
                step()
        disk.space_bytes = None
