"""All 58 tests of MIT 6.5840 (2025), labs 3 and 4, are here, under names that follow from theirs.

====================================  =====================
tests of the course                   here
====================================  =====================
3A elections, 3B agreement            `test_mit_3a_3b.py`
3C persistence                        `test_mit_3c.py`
3D snapshots                          `test_mit_3d.py`
4A a replicated state machine         `test_mit_4a.py`
4B a key/value service                `test_mit_4b.py`
4C a key/value service with snapshots `test_mit_4c.py`
====================================  =====================

``TestInitialElection3A`` is ``test_initial_election_3a``; the name of the course stands in its decorator too.
"""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from tests.simulation.scenarios.seeds import MIT_TESTS

NAMES = {
    "3A": "InitialElection ReElection ManyElections",
    "3B": "BasicAgree RPCBytes FollowerFailure LeaderFailure FailAgree FailNoAgree ConcurrentStarts Rejoin Backup "
    "Count",
    "3C": "Persist1 Persist2 Persist3 Figure8 UnreliableAgree Figure8Unreliable ReliableChurn UnreliableChurn",
    "3D": "SnapshotBasic SnapshotInstall SnapshotInstallUnreliable SnapshotInstallCrash SnapshotInstallUnCrash "
    "SnapshotAllCrash SnapshotInit",
    "4A": "Basic Concurrent LeaderFailure LeaderPartition RestartReplay Shutdown RestartSubmit",
    "4B": "Basic Speed Concurrent Unreliable OnePartition ManyPartitionsOneClient ManyPartitionsManyClients "
    "PersistOneClient PersistConcurrent PersistConcurrentUnreliable PersistPartition PersistPartitionUnreliable "
    "PersistPartitionUnreliableLinearizable",
    "4C": "Snapshot SnapshotRPC SnapshotSize Speed SnapshotRecover SnapshotRecoverManyClients SnapshotUnreliable "
    "SnapshotUnreliableRecover SnapshotUnreliableRecoverConcurrentPartition "
    "SnapshotUnreliableRecoverConcurrentPartitionLinearizable",
}
ALL = [f"Test{name}{lab}" for lab, names in NAMES.items() for name in names.split()]
WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z\d])|(?<=[A-Z\d])(?=[A-Z][a-z])|(?<=[A-Z\d])(?=\d)")
MODULES = ("3a_3b", "3c", "3d", "4a", "4b", "4c")


def test_there_are_58() -> None:
    assert len(set(ALL)) == 58


@pytest.mark.parametrize("name", ALL)
def test_it_is_ported(name: str) -> None:
    modules = [import_module(f"tests.simulation.scenarios.test_mit_{module}") for module in MODULES]
    here = MIT_TESTS[name]
    assert here == WORD_BEGINS.sub("_", name).lower()
    assert sum(hasattr(module, here) for module in modules) == 1
