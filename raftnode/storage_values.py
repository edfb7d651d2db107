"""The values that storage is told and tells: who a directory belongs to, and what was found in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs

from statemachine.events import EntriesRun, HardState

VOTED_FOR_NOBODY = 0
"""How ``voted_for=None`` is written; servers' ids start from 1."""


@attrs.frozen(slots=True)
class StorageIdentity:
    """Whose data this is; a directory of another cluster or server is never used by mistake."""

    cluster: str
    server_id: int

    @property
    def cluster_hash(self) -> bytes:
        """16 bytes that stand for the cluster's name."""
        return hashlib.blake2b(self.cluster.encode(), digest_size=16).digest()


@attrs.frozen(slots=True)
class SnapshotMeta:
    """A snapshot that is complete and durable."""

    index: int
    """The last log entry that it contains."""
    term: int
    """The term of that entry."""
    size_bytes: int
    """The length of its file."""
    path: Path


@attrs.frozen(slots=True)
class Torn:
    """What a crash left of a save that was under way: never acknowledged, and dropped."""

    path: Path
    offset: int
    """Where in the file it begins."""
    size_bytes: int
    """How much there is of it."""


@attrs.frozen(slots=True)
class Recovered:
    """What was found in a directory when it was opened."""

    hard_state: HardState
    snapshot: SnapshotMeta | None
    """The newest good one: the state to start from."""
    first_index: int
    """Where the log begins: 1, or one more than the snapshot's index. The log may be empty."""
    runs: tuple[EntriesRun, ...]
    """The log from first_index on, without gaps."""
    torn: Torn | None
    clock_us: int
    """What was given to save_clock last, or something earlier, or 0: a hint and no more."""
    damaged_snapshots: tuple[str, ...]
    """What is wrong with snapshots that are newer than the one to start from, for people."""

    @property
    def last_index(self) -> int:
        """The index of the last entry; first_index - 1 when there is none."""
        return self.runs[-1].last_index if self.runs else self.first_index - 1
