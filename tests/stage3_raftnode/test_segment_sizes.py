"""How long the files of a log are laid out: growing, or all of one size where that is asked for."""

import pytest

from raftnode.segments import SIZE_BYTES_MIN
from raftnode.simulated_disk import SimulatedDisk
from raftnode.storage import Storage
from statemachine.events import HardState
from tests.stage3_raftnode.storage_tools import DIRECTORY, IDENTITY, log_names, recover, run, state_of


@pytest.mark.parametrize(("segment_bytes", "files"), [(None, 1), (1_000, 10), (4_000, 2)])
def test_segments_are_as_long_as_asked_for(segment_bytes: int | None, files: int) -> None:
    disk = SimulatedDisk()
    entries = tuple((index, 1, b"%100d" % index) for index in range(1, 41))
    for begin in (0, 20):
        # The size holds for a log that is opened again, too.
        storage, _ = Storage.open(DIRECTORY, IDENTITY, disk, segment_bytes=segment_bytes)
        for index, term, entry in entries[begin : begin + 20]:
            storage.prepare_next()
            storage.save(HardState(1, None), (run(index, term, entry),))
        disk.process_killed()
    names = log_names(disk)
    sizes = {len(disk.content(DIRECTORY / name)) for name in names}
    assert sizes == {segment_bytes or SIZE_BYTES_MIN}
    assert len(names) == files
    assert state_of(recover(disk)) == (HardState(1, None), None, entries)
