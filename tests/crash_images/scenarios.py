"""What storage is made to do while it is recorded: each scenario is a server's life, or a part of it.

Segments are of 4 KiB here (:func:`tests.crash_images.life.small_pieces`), so a few entries fill one.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from raftnode.simulated_disk import Survival
from statemachine.events import HardState
from tests.crash_images.life import SEGMENT_BYTES, Life
from tests.crash_images.recorder import Kind
from tests.stage3_raftnode.storage_tools import run


def first_start(life: Life) -> None:
    """An empty directory; starts that crashes cut short, so that all is lost, or some; then the first save."""
    for call in range(2, 14):
        life.cut_in(call, call, life.open, Survival.NOTHING)
    life.cut_in(20, 0, life.open, Survival.NOTHING)
    for call in range(2, 14, 3):
        life.cut_in(call, call, life.open)
        life.kill_in(call + 1, life.open)
    life.open()
    life.save(HardState(1, None))


def append(life: Life) -> None:
    """Small saves: one entry, several, empty ones, several runs, next to nothing."""
    life.open()
    life.save(None, run(1, 1, b"a"))
    life.save(None, run(2, 1, b"", b"", b"b" * 7))
    life.save(HardState(2, 1), run(5, 2, b"c" * 90))
    life.save(None, run(6, 2, b"d"), run(7, 3, b"e" * 40, b"f"), run(9, 4, b"g" * 8))
    life.save_clock(1_000_000)
    for index in range(10, 20):
        life.save(None, run(index, 4, b"%d" % index * 20))
    life.save_clock(2_000_000)
    life.save(None, run(20, 4, b"z"))


def append_big(life: Life) -> None:
    """Frames over many sectors and blocks; one that is written from several buffers."""
    dice = Random("big")
    life.open()
    life.save(None, run(1, 1, dice.randbytes(3_000)))
    life.save(None, run(2, 1, dice.randbytes(9_000), b"small", dice.randbytes(700)))
    life.save(HardState(2, 2), run(5, 2, dice.randbytes(20_000)))
    life.save(None, run(6, 2, *(dice.randbytes(70_000) for _ in range(4))))
    life.save(None, run(10, 2, b"end"))


def hard_state(life: Life) -> None:
    """Terms and votes, alone and with entries."""
    life.open()
    for term in range(1, 8):
        life.save(HardState(term, None))
        life.save(HardState(term, term % 5 + 1))
        if term % 2:
            life.save(HardState(term, 2), run(term // 2 + 1, term, b"entry"))
    life.prepare_next()
    life.save(None, run(5, 7, b"x" * SEGMENT_BYTES))
    life.save(HardState(9, 1))


def truncation(life: Life) -> None:
    """Entries that conflict: at the end, over segments, down to the first; twice at once."""
    life.open()
    life.save(HardState(1, 1), run(1, 1, *(b"%d" % index * 90 for index in range(1, 9))))
    life.save(HardState(2, 2), run(7, 2, b"seven", b"eight", b"nine"))
    life.prepare_next()
    life.save(None, run(10, 2, b"ten" * 900))
    life.save(None, run(5, 3, b"five" * 200))
    life.save(None, run(4, 4, b"4", b"5"), run(5, 5, b"five again"), run(6, 5, b"6"))
    life.prepare_next()
    life.save(HardState(6, None), run(1, 6, b"all new" * 300))
    life.save(None, run(1, 7, b"and again", b"2"))


def rotation(life: Life) -> None:
    """Segment after segment, each laid ready before it is needed."""
    life.open()
    for index in range(1, 12):
        life.save(HardState(index, 1) if index % 3 == 0 else None, run(index, index, b"%d" % index * 700))
        if life.storage.needs_next:
            life.prepare_next()


def growing(life: Life) -> None:
    """Past the end of a segment, since none is ready; then on in the next; then past the end of that."""
    life.open()
    for index in range(1, 7):
        life.save(None, run(index, 1, bytes([index]) * 1_500))
    life.prepare_next()
    life.save(None, run(7, 1, b"next" * 300))
    for index in range(8, 12):
        life.save(None, run(index, 2, bytes([index]) * 1_500))


def prepare_between(life: Life) -> None:
    """Another thread lays the next segment ready, makes a snapshot or compacts; saves come in between."""
    life.open()
    recorder = life.recorder
    life.save(None, run(1, 1, b"a" * 2_500))
    recorder.interrupt(Kind.WRITE, "log-next", lambda: life.save(None, run(2, 1, b"meanwhile" * 30)))
    recorder.interrupt(Kind.WRITE, "log-next", lambda: life.save(None, run(3, 1, b"meanwhile" * 40)))
    life.prepare_next()
    life.save(None, run(4, 2, b"b" * 1_500))
    recorder.interrupt(Kind.CREATE, "snapshot", lambda: life.save(None, run(5, 2, b"c" * 50)))
    recorder.interrupt(Kind.WRITE, "snapshot", lambda: life.save(HardState(3, 3), run(6, 3, b"d" * 50)))
    recorder.interrupt(Kind.RENAME, "snapshot", lambda: life.save(None, run(7, 3, b"e" * 50)))
    life.take_snapshot(4, 2, b"state" * 100, b"more")
    recorder.interrupt(Kind.CREATE, "log-next", lambda: life.save(HardState(4, None), run(6, 4, b"f" * 3_000)))
    life.prepare_next()
    # The rotation's flush of the directory makes the snapshot's name durable, before it has flushed it itself.
    recorder.interrupt(Kind.RENAME, "snapshot", lambda: life.save(None, run(7, 4, b"g" * 900)))
    life.take_snapshot(6, 4)
    recorder.interrupt(Kind.RENAME, ".seg", lambda: life.save(None, run(8, 4, b"h")))
    life.compact(7)
    assert recorder.all_interrupted


def worker_between(life: Life) -> None:
    """The other way round: in the middle of a save another thread does all those things."""
    life.open()
    recorder = life.recorder
    recorder.interrupt(Kind.WRITE, ".seg", life.prepare_next)
    life.save(HardState(1, 1), run(1, 1, b"a" * 2_500))
    recorder.interrupt(Kind.WRITE, "log-next", lambda: life.take_snapshot(1, 1, b"state" * 100))
    life.save(None, run(2, 1, b"b" * 1_900))
    life.prepare_next()
    recorder.interrupt(Kind.RENAME, "log-next", lambda: life.take_snapshot(2, 1, b"state" * 200))
    life.save(HardState(2, 2), run(3, 2, b"c" * 2_500))
    life.prepare_next()
    recorder.interrupt(Kind.WRITE, "log-next", lambda: life.compact(3))
    life.save(None, run(3, 3, b"d" * 2_500))
    life.prepare_next()
    recorder.interrupt(Kind.FLUSH_DIRECTORY, "", lambda: life.take_snapshot(3, 3, b"state" * 300))
    life.save(None, run(4, 3, b"e" * 2_500))
    recorder.interrupt(Kind.WRITE, ".seg", lambda: life.compact(4))
    life.save(None, run(5, 3, b"f"))
    assert recorder.all_interrupted


def _fill(life: Life, first_index: int, last_index: int, term: int) -> None:
    """Three entries to a segment."""
    for index in range(first_index, last_index + 1):
        if life.storage.needs_next:
            life.prepare_next()
        life.save(None, run(index, term, b"%d" % index * 600))


def compaction(life: Life) -> None:
    """Whole segments go, in steps, also such as were truncated."""
    life.open()
    life.save(HardState(1, 4))
    _fill(life, 1, 12, 1)
    life.take_snapshot(9, 1)
    life.compact(4)
    life.compact(10)
    life.save(HardState(2, 1), run(11, 2, b"conflict"))
    _fill(life, 12, 18, 2)
    life.save(HardState(3, None), run(13, 3, b"conflict"))
    life.take_snapshot(13, 3)
    life.compact(14)
    life.close()
    life.open()
    life.save(None, run(14, 3, b"on"))


def reused(life: Life) -> None:
    """Segments that compaction has set free are written over, and end with zeros before what they held."""
    life.open()
    _fill(life, 1, 12, 1)
    life.take_snapshot(9, 1)
    life.compact(10)
    _fill(life, 13, 17, 2)
    life.save(HardState(3, 2), run(17, 3, b"in the place of one"))
    life.take_snapshot(15, 2)
    life.compact(16)
    _fill(life, 18, 20, 3)
    life.cut_in(2, 1, lambda: life.save(None, run(21, 3, b"torn over something" * 60)))
    life.open()
    life.save(None, run(life.model.state()[2][-1][0], 4, b"on"))


def snapshot(life: Life) -> None:
    """Several, the oldest goes; one of many chunks; one again at the same entry; one given up."""
    life.open()
    life.save(HardState(1, 1), run(1, 1, *(b"%d" % index for index in range(1, 11))))
    life.take_snapshot(2, 1)
    life.take_snapshot(5, 1, *(bytes([number]) * 700 for number in range(7)), b"")
    life.save(None, run(11, 1, b"eleven"))
    life.take_snapshot(7, 1)
    writer = life.storage.snapshots.create(9, 1)
    writer.append(b"never finished" * 200)
    life.do(writer.abort)
    life.take_snapshot(7, 1)
    life.take_snapshot(11, 1, b"")
    life.compact(12)
    life.save(HardState(2, None), run(12, 2, b"twelve"))


def install(life: Life) -> None:
    """Snapshots from the leader: past the log, in conflict with it, within it; with pieces that repeat."""
    life.open()
    life.save(HardState(1, 1), run(1, 1, b"a" * 1_800, b"b" * 900, b"c"))
    life.prepare_next()
    life.save(None, run(4, 1, b"d" * 1_800))
    life.receive_snapshot(20, 3)
    life.reset_to(20, 3)
    life.save(HardState(3, 3), run(21, 3, b"e", b"f", b"g", b"h"))
    life.receive_snapshot(22, 3, b"within" * 300)
    life.save(None, run(25, 3, b"i"))
    life.receive_snapshot(24, 5, b"in conflict" * 300, piece_bytes=1_000)
    life.reset_to(24, 5)
    life.save(HardState(5, None), run(25, 5, b"j" * 1_800))
    life.prepare_next()
    life.save(None, run(26, 5, b"k" * 1_800))
    receiver = life.storage.snapshots.receive(30, 5)
    receiver.write(0, b"0123456789" * 20)
    receiver.write(50, b"5678901234" * 30)
    life.do(receiver.abort)
    life.receive_snapshot(30, 5)
    life.save_clock(7)
    life.reset_to(30, 5)
    life.compact(31)
    life.save(None, run(31, 5, b"l"))


def close(life: Life) -> None:
    """Closed cleanly, with and without a segment laid ready, and opened again."""
    life.open()
    life.save(HardState(1, 1), run(1, 1, b"a" * 600))
    life.close()
    assert life.open().torn is None
    life.save(None, run(2, 1, b"b" * 600))
    life.prepare_next()
    life.close()
    assert life.open().torn is None
    life.prepare_next()
    life.save(None, run(3, 1, b"c" * 1_500))
    life.prepare_next()
    life.save_clock(3)
    life.close()
    life.open()
    life.close()
    assert life.open().last_index == 3


def reopened(life: Life) -> None:
    """The power is cut in saves, in rotations and in recoveries; the server goes on each time."""
    life.open()
    next_index = 1
    for seed in range(14):
        term = seed + 1

        def step(index: int = next_index, term: int = term) -> None:
            life.save(HardState(term, None), run(index, term, b"%d" % term * 50, b"x"))
            life.prepare_next()
            life.save(None, run(index + 2, term, b"%d" % term * 1_700))

        life.cut_in(seed % 7 + 1, seed, step)
        life.cut_in(seed % 5 + 3, seed + 100, life.open)
        next_index = max(life.open().last_index + 1 - seed % 2, 1)


def killed(life: Life) -> None:
    """The process is killed in a save, so the last frame may be in the page cache only; then the power goes, too."""
    life.open()
    for seed in range(8):
        term = seed + 1
        index = 2 * seed + 1

        def step(index: int = index, term: int = term) -> None:
            life.save(HardState(term, 1), run(index, term, b"%d" % term * 400))
            life.save(None, run(index + 1, term, b"%d" % term * 900))
            life.prepare_next()

        life.kill_in(seed % 4 + 1, step)
        if seed % 3 == 2:
            life.kill_in(8, life.open)
        recovered = life.open()
        if recovered.last_index < index + 1:
            life.save(None, run(recovered.last_index + 1, term, *[b"made up"] * (index + 1 - recovered.last_index)))
        if seed % 3 == 1:
            life.cut_in(1, seed, life.close, Survival.NOTHING)
            life.open()


def disk_full(life: Life) -> None:
    """No room in the middle of a save, of laying a segment ready, of a snapshot; then there is room again."""
    life.open()
    life.save(HardState(1, 1), run(1, 1, b"a" * 3_000))
    life.disk.space_bytes = life.disk.used_bytes() + 700
    life.refused(lambda: life.save(HardState(2, 2), run(2, 2, b"b" * 3_000)))
    life.save(None, run(2, 1, b"c" * 200))
    life.refused(lambda: life.save(HardState(2, 2), run(3, 2, b"d" * 2_000, b"e")))
    life.refused(lambda: life.save(None, run(2, 3, b"f" * 5_000)))
    life.prepare_next()
    assert life.storage.disk_full
    life.refused(lambda: life.take_snapshot(1, 1, b"g" * 1_000, b"h" * 1_000))
    life.refused(lambda: life.receive_snapshot(9, 1))
    life.close()
    life.open()
    life.refused(lambda: life.save(None, run(3, 2, b"i" * 8_000)))
    life.disk.space_bytes += SEGMENT_BYTES + 3_000
    life.prepare_next()
    life.refused(lambda: life.save(None, run(3, 2, b"j" * 9_000)))
    life.save(HardState(3, 3), run(3, 3, b"k" * 900))
    life.disk.space_bytes = None
    life.take_snapshot(2, 1)
    life.save(None, run(4, 3, b"l" * 9_000))


def short_writes(life: Life) -> None:
    """Each write comes to disk in several calls, each of which flushes its part."""
    life.open()
    life.recorder.write_bytes_max = 300
    life.save(HardState(1, 1), run(1, 1, b"a" * 1_000))
    life.save(None, run(2, 1, b"b" * 700, b"c" * 10))
    life.prepare_next()
    life.save(HardState(2, None), run(3, 2, b"d" * 2_500))
    life.take_snapshot(2, 1, b"e" * 800)
    life.cut_in(3, 1, lambda: life.save(None, run(4, 2, b"f" * 900)))
    life.open()
    life.save(None, run(life.model.state()[2][-1][0], 3, b"g" * 400))


SCENARIOS: dict[str, Callable[[Life], None]] = {
    scenario.__name__.replace("_", " "): scenario
    for scenario in (
        first_start,
        append,
        append_big,
        hard_state,
        truncation,
        rotation,
        growing,
        prepare_between,
        worker_between,
        compaction,
        reused,
        snapshot,
        install,
        close,
        reopened,
        killed,
        disk_full,
        short_writes,
    )
}
