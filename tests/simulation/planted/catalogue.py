"""All planted bugs."""

from __future__ import annotations

from typing import Final

from tests.simulation.planted import (
    disk_entries,
    disks,
    elections,
    reads,
    replication,
    sessions,
    snapshots,
    time_and_versions,
)
from tests.simulation.planted.bug import Bug

BUGS: Final[dict[str, Bug]] = {
    bug.name: bug
    for module in (elections, replication, reads, snapshots, disk_entries, disks, sessions, time_and_versions)
    for bug in module.BUGS
}
"""By name, in the order of the table."""
